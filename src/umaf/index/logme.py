"""LogME: how well a linear model on fixed features explains labels, without training one.

The logarithm of the evidence of Bayesian linear regression, at its largest over the precisions of prior and noise,
divided by the number of texts; of a classification, the mean over one-against-all targets. Larger is better. It needs
every model to be run on the query's texts, and is here to compare searches with.

Source: You, Liu, Wang, Long, LogME: Practical Assessment of Pre-trained Models for Transfer Learning, ICML 2021,
equations 2 to 5 (fixed point of MacKay); iteration as in You et al., 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import NumericalError

ROUNDS = 100
TOLERANCE = 1e-8


def logme(features: Float[Tensor, "text hidden"], labels: Sequence[str | int]) -> float:
    """Score features for a classification.

    Args:
        features: of each text, inside one model.
        labels: of each text; at least two different ones.

    Returns:
        Mean evidence per text in nats.

    Raises:
        NumericalError: one label only, another number of labels than texts, or features that are not finite.

    Example:
        >>> x = torch.tensor([[-1.0, 0.2], [-1.1, -0.1], [0.9, 0.1], [1.2, -0.2]])
        >>> logme(x, ["no", "no", "yes", "yes"]) > logme(x, ["no", "yes", "no", "yes"])
        True
    """
    names = sorted(set(labels), key=str)
    if len(features) != len(labels) or len(names) < 2 or not torch.isfinite(features).all():
        raise NumericalError(
            f"LogME needs finite features and a label for each of {len(features)} texts, of two kinds or more; got "
            f"{len(labels)} labels of {len(names)}."
        )
    rows = features.double()
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    found = []
    for name in names:
        target = torch.tensor([float(label == name) for label in labels], dtype=torch.float64)
        found.append(evidence(left, values, target, width=rows.shape[1]))
    return sum(found) / len(found)


def evidence(left: Tensor, values: Tensor, target: Tensor, *, width: int) -> float:
    """Maximise the log evidence of one target over prior precision alpha and noise precision beta.

    Args:
        left: left singular vectors of the features `[text, rank]`.
        values: singular values `[rank]`.
        target: `[text]`.
        width: number of features, which may exceed the rank.

    Returns:
        The evidence divided by the number of texts.
    """
    count = len(target)
    squares = values**2
    along = (left.T @ target) ** 2
    beyond = float(target @ target - along.sum())
    alpha, beta = 1.0, 1.0
    for _ in range(ROUNDS):
        gain = squares / (squares + alpha / beta)
        gamma = float(gain.sum())
        length = float((squares * along / (squares + alpha / beta) ** 2).sum())
        error = float((along * (1 - gain) ** 2).sum()) + max(beyond, 0.0)
        new_alpha, new_beta = gamma / max(length, 1e-12), (count - gamma) / max(error, 1e-12)
        change = abs(new_alpha / new_beta - alpha / beta) / (alpha / beta)
        alpha, beta = new_alpha, new_beta
        if change < TOLERANCE:
            break
    gain = squares / (squares + alpha / beta)
    length = float((squares * along / (squares + alpha / beta) ** 2).sum())
    error = float((along * (1 - gain) ** 2).sum()) + max(beyond, 0.0)
    volume = float((alpha + beta * squares).log().sum()) + (width - len(values)) * math.log(alpha)
    total = width * math.log(alpha) + count * math.log(beta) - volume
    total -= count * math.log(2 * math.pi) + beta * error + alpha * length
    return total / (2 * count)
