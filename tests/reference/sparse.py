"""The sparse merge methods once more: float64, entry by entry, in the order the papers and programs say it."""

from __future__ import annotations

import math

import numpy as np


def magnitude_rank(values, place):
    """1 for the largest magnitude; entries of equal magnitude share the best rank among them."""
    return 1 + sum(abs(other) > abs(values[place]) for other in values)


def top(values, count):
    """Keep the `count` largest magnitudes and what equals the last of them."""
    if count <= 0:
        return [0.0 for _ in values]
    bound = sorted((abs(value) for value in values), reverse=True)[min(count, len(values)) - 1]
    return [value if abs(value) >= bound else 0.0 for value in values]


def sign(value):
    return int(value > 0) - int(value < 0)


def elected(rows, signs, weights, shares, combine):
    """Combine, for every entry, the models whose sign is the elected one."""
    out = []
    for place, wanted in enumerate(signs):
        agreeing = [i for i, row in enumerate(rows) if wanted != 0 and sign(row[place]) == wanted]
        terms = [weights[i] * rows[i][place] for i in agreeing]
        if not agreeing:
            out.append(0.0)
        elif combine == "max":
            out.append(max(terms, key=abs))
        elif combine == "sum":
            out.append(sum(terms))
        else:
            divisor = sum(shares[i] for i in agreeing)
            out.append(sum(terms) / (divisor if divisor != 0 else 1.0))
    return np.array(out)


def vote(rows, weights, *, elect, tie):
    """Give the sign of the sum over models, and of most entries (or plus) where it is 0."""
    factors = weights if elect == "weighted" else [1.0] * len(rows)
    sums = [
        sum(f * row[place] for f, row in zip(factors, rows, strict=True)) for place in range(len(rows[0]))
    ]
    signs = [sign(value) for value in sums]
    default = sign(sum(signs)) if tie == "majority" else 1
    return [one if one != 0 else default for one in signs]


def ties(rows, *, weights, density, elect, tie, divisor, combine, rounding):
    n = len(rows[0])
    trimmed = []
    for row, share in zip(rows, density, strict=True):
        count = n if share >= 1 else int(n * share) + 1 if rounding == "code" else max(1, int(n * share))
        trimmed.append(top(row, count))
    signs = vote(trimmed, weights, elect=elect, tie=tie)
    if elect == "weighted":
        trimmed = [[w * value for value in row] for w, row in zip(weights, trimmed, strict=True)]
        weighted = [1.0] * len(rows)
    else:
        weighted = weights
    shares = weights if divisor == "weights" else [1.0] * len(rows)
    return elected(trimmed, signs, weighted, shares, combine)


def breadcrumbs(rows, *, weights, density, gamma):
    n = len(rows[0])
    out = np.zeros(n)
    for row, w, share, cut in zip(rows, weights, density, gamma, strict=True):
        stay = n if share >= 1 else max(1, int(share * n))
        over = min(int(cut * n), n - stay)
        ordered = sorted((abs(value) for value in row), reverse=True)
        most, least = ordered[over], ordered[over + stay - 1]
        out += [w * value if least <= abs(value) <= most else 0.0 for value in row]
    return out


def sce(rows, *, select_topk, select):
    models, n = len(rows), len(rows[0])
    spread = np.var(np.array(rows), axis=0)
    if select_topk < 1:
        varied = sum(value != 0 for value in spread)
        count = int(varied * select_topk)
        bound = sorted(spread, reverse=True)[count - 1] if count else math.inf
        chosen = [value >= bound for value in spread]
    else:
        chosen = [True] * n
    sums = [sum(row[p] ** 2 for p in range(n) if chosen[p]) for row in rows]
    weights = [s / sum(sums) if sum(sums) > 0 else 1 / models for s in sums]
    if select == "deltas":
        rows = [[row[p] if chosen[p] else 0.0 for p in range(n)] for row in rows]
    return elected(rows, vote(rows, weights, elect="unweighted", tie="plus"), weights, weights, "mean")


def varm(rows):
    means = [np.mean(np.square(row)) for row in rows]
    total = sum(means)
    weights = [m / total if total > 0 else 1 / len(rows) for m in means]
    return sum(w * np.array(row) for w, row in zip(weights, rows, strict=True))


def emr(rows):
    out = []
    for entries in zip(*rows, strict=True):
        wanted = 1 if sum(entries) / len(entries) > 0 else -1
        agreeing = [abs(value) for value in entries if sign(value) == wanted]
        out.append(wanted * max(agreeing, default=0.0))
    return np.array(out)


def consensus(rows, total, *, threshold, least):
    out = []
    for place, value in enumerate(total):
        users = sum(
            abs(row[place]) > one * abs(value - row[place]) for row, one in zip(rows, threshold, strict=True)
        )
        out.append(value if users >= least else 0.0)
    return np.array(out)


def minmax(values):
    values = np.asarray(values)
    width = values.max() - values.min()
    return (values - values.min()) / (width if width > 0 else 1.0)


def pcb_code(rows, *, weights, density):
    models, n = len(rows), len(rows[0])
    total = np.sum(rows, axis=0)
    scores, clamped = [], []
    for row, share in zip(rows, density, strict=True):
        ordered = np.sort(np.abs(row))
        low, high = ordered[int(n * 0.0001)], ordered[max(0, int(n * (1 - 0.0001) - 1))]
        size = np.minimum(np.maximum(np.abs(row), low), high)
        beta = np.exp(models * minmax(size) ** 2) * np.tanh(row * total)
        bound = np.sort(beta)[min(n - 1, int(n * (1 - share)))]
        if beta.max() > bound:
            scores.append((np.maximum(beta, bound) - bound) / (beta.max() - bound))
        else:
            scores.append(((beta >= bound) & (row != 0)).astype(float))
        clamped.append(size * np.sign(row))
    merged = sum(w * c * t for w, c, t in zip(weights, scores, clamped, strict=True))
    return merged / np.maximum(np.sum(scores, axis=0), 1e-12)


def pcb_nearly_tied(rows, density):
    """Tell whether scores at the bound differ by less than float32 can hold: which of them stays is then rounding."""
    models, n, total = len(rows), len(rows[0]), np.sum(rows, axis=0)
    for row in rows:
        ordered = np.sort(np.abs(row))
        size = np.clip(np.abs(row), ordered[int(n * 0.0001)], ordered[max(0, int(n * (1 - 0.0001) - 1))])
        beta = np.sort(np.exp(models * minmax(size) ** 2) * np.tanh(row * total))
        gaps = np.abs(beta - beta[min(n - 1, int(n * (1 - density)))])
        if ((gaps > 0) & (gaps < 1e-5 * np.abs(beta).max())).any():
            return True
    return False


def softmax(values):
    values = np.exp(np.asarray(values))
    return values / values.sum()


def pcb_paper(rows, *, weights, density):
    models, n = len(rows), len(rows[0])
    scores = []
    for row, share in zip(rows, density, strict=True):
        own = softmax(models * minmax(row * row))
        beta = own * sum(softmax(minmax(row * other)) for other in rows)
        bound = np.sort(beta)[min(n - 1, int(n * (1 - share)))]
        scores.append(np.where(beta >= bound, beta, 0.0))
    merged = sum(w * c * row for w, c, row in zip(weights, scores, rows, strict=True))
    divisor = np.sum(scores, axis=0)
    return np.where(divisor > 0, merged / np.where(divisor > 0, divisor, 1.0), 0.0)


def row_chances(row, density, epsilon):
    """Give each entry's chance to stay, by its rank in the row; equal magnitudes in the order of the row."""
    n = len(row)
    order = sorted(range(n), key=lambda place: (abs(row[place]), place))
    chance = np.empty(n)
    for rank, place in enumerate(order):
        chance[place] = density - epsilon + 2 * epsilon * (rank / (n - 1) if n > 1 else 0.5)
    return chance
