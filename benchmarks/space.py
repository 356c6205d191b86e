"""The trained extractor, interpolator and gate, measured: every architecture is left out once.

    python -m benchmarks.space [--minutes 60] [--index FOLDER] [--take FOLDER ...] [--only-summary]

Experts are trained and read first (`space_experts`, `space_read`; those of the index are taken over), then the
Transformer Encoder is trained for three architectures left out (`space_encoder`). The linear extractor is fitted in
seconds, so that is done here, five times. All is kept and gone on with. At the end what was measured becomes a dated
record and comparison/space/summary.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from benchmarks import (
    index_experts,
    index_read,
    space_encoder,
    space_experts,
    space_read,
    space_sizes,
)
from benchmarks.index_plan import Member, task_of
from benchmarks.index_read import probes
from benchmarks.index_spaces import KIN
from benchmarks.space_plan import SMALL, card_of, split_of
from benchmarks.space_sums import sums
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.statistics import mean_interval
from umaf.evaluation.summary import Figure, write_summary
from umaf.extraction import (
    Answers,
    Fingerprint,
    Linear,
    anchor_map,
    default_pca,
    fit_linear,
    fit_pca,
    load_universal,
    meant,
    movement,
    save_linear,
)
from umaf.models import open_model
from umaf.training.accept import Fold, Verdict, ranks, silhouettes, verdict
from umaf.training.entries import EntryCard

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "comparison" / "space"
FAMILIES = tuple(model.partition("-")[0] for model in SMALL)
Measured = Mapping[Member, Mapping[str, Tensor]]


class Collection:
    """Experts that learned their task, what they show, and how each way makes fingerprints of them.

    Attributes:
        members: who they are.
        cards: where they come from.
        split: whether each is for training, validation or held out.
        movements: `[expert, 512]`, what the linear extractor is fitted on.
        descriptions: `[expert, 4096]`, what the closed-form one reads.
    """

    def __init__(self, measured: Measured) -> None:
        self.all = len(measured)
        self.members = [m for m, one in measured.items() if space_read.learned(m, float(one["score"]))]
        bases = {name: open_model(f"zoo:{name}") for name in {m.model for m in self.members}}
        self.cards = [card_of(member, bases[member.model]) for member in self.members]
        self.split = {member: card.split for member, card in zip(self.members, self.cards, strict=True)}
        self.space = load_universal()
        self.anchors = anchor_map(self.space)
        self.places = self.space.places(probes())
        self.movements = torch.stack([self.moved(measured[m]["shift"]) for m in self.members])
        self.descriptions = torch.stack([measured[m]["description"].double() for m in self.members])

    def moved(self, shift: Tensor) -> Tensor:
        """Give the movement of one expert on the common probes."""
        return movement(self.places, shift.float(), self.anchors)

    def rows(self, left_out: str) -> list[int]:
        """Number the experts that an extractor may be fitted on when one architecture is left out."""
        return [
            at
            for at, card in enumerate(self.cards)
            if card.split != "heldout" and card.architecture != left_out
        ]

    def fitted(self, rows: Sequence[int], *, shuffled: int | None = None) -> Linear:
        """Fit a linear extractor to some experts; shuffled, each counts for a capability that it has not learned."""
        names = [self.cards[at].capability for at in rows]
        if shuffled is not None:
            names = [names[at] for at in np.random.default_rng(shuffled).permutation(len(names))]
        return fit_linear(self.movements[rows], names, space=self.space, anchors=self.anchors)


def linear_folds(
    known: Collection, added: Mapping[tuple[Member, Member], Mapping[str, Tensor]]
) -> list[Fold]:
    """Leave each architecture out of a fit."""
    rival = known.descriptions @ default_pca().components.double().T
    place = {member: at for at, member in enumerate(known.members)}
    found = []
    for left_out in FAMILIES:
        extractor = known.fitted(known.rows(left_out))
        pairs = [pair for pair in added if pair[0].architecture == left_out]
        both = torch.stack([known.moved(added[pair]["shift"]) for pair in pairs])
        alone = torch.stack([known.movements[[place[one] for one in pair]] for pair in pairs])
        parts = unit(extractor.of(alone.flatten(0, 1))).unflatten(0, alone.shape[:2])
        vectors = extractor.of(known.movements)
        found.append(Fold(left_out, vectors, rival, known.cards, extractor.of(both), parts))
    return found


def unit(rows: Tensor) -> Tensor:
    """Bring rows to length 1."""
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def looked_up(
    tables: Mapping[str, Tensor], cards: Sequence[EntryCard], *, kin: bool = False
) -> list[tuple[EntryCard, int]]:
    """Look held-out entries of each left-out architecture up in the table made without it: card and rank."""
    if kin:
        cards = [
            EntryCard(**{**vars(card), "capability": KIN.get(card.capability, card.capability)})
            for card in cards
        ]
    found = []
    for left_out, vectors in tables.items():
        found += [(cards[at], rank) for at, rank in ranks(vectors, cards, of=left_out).items()]
    return found


def share(found: Sequence[tuple[EntryCard, int]], first: int, aim: str | None = None) -> Figure:
    """Give the share of entries whose capability is among the first; intervals draw whole capabilities."""
    told = mean_interval([rank < first for _, rank in found], groups=[card.capability for card, _ in found])
    return Figure(told.value, told.low, told.high, len(found), aim)


def retrievals(
    known: Collection, encoders: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    """Give the fingerprints of everybody by each way and left-out architecture."""
    components = default_pca().components.double()
    same = {
        "pca": known.descriptions @ components.T,
        "movement": known.movements,
        "description_unreduced": known.descriptions,
    }
    made: dict[str, dict[str, Tensor]] = {name: dict.fromkeys(FAMILIES, rows) for name, rows in same.items()}
    for left_out in FAMILIES:
        rows = known.rows(left_out)
        made.setdefault("linear", {})[left_out] = known.fitted(rows).of(known.movements)
        made.setdefault("control_shuffled_capabilities", {})[left_out] = known.fitted(rows, shuffled=0).of(
            known.movements
        )
        fitted = fit_pca(known.descriptions[rows]).components.double()
        made.setdefault("pca_fitted", {})[left_out] = known.descriptions @ fitted.T
        whitened = shrunk(known, rows)
        made.setdefault("whitened_unreduced", {})[left_out] = whitened
        made.setdefault("whitened", {})[left_out] = whitened @ components.T
        if left_out in encoders:
            table = torch.stack([encoders[left_out][member.name].double() for member in known.members])
            made.setdefault("encoder", {})[left_out] = table
    return made


def shrunk(known: Collection, rows: Sequence[int], strength: float = 50.0) -> Tensor:
    """Shrink in the description what the linear extractor shrinks in movements: `[expert, 4096]`, no fingerprint."""
    table = unit(known.descriptions)
    names = [known.cards[at].capability for at in rows]
    groups = [
        [at for at, other in zip(rows, names, strict=True) if other == name] for name in sorted(set(names))
    ]
    apart = torch.cat([table[group] - table[group].mean(0) for group in groups if len(group) > 1])
    _, values, directions = torch.linalg.svd(apart, full_matrices=False)
    lost = 1 - (1 + strength * (values / values[0]).square()).rsqrt()
    moved = table - table[list(rows)].mean(0)
    return moved - (moved @ directions.T * lost) @ directions


def answered(known: Collection, index: Path | None) -> Tensor | None:
    """Give what the store's extractor `answers` makes of the held-out experts; zeros of all others."""
    rows, space = [], known.places
    for member in known.members:
        path = (index or index_read.home()) / f"{member.name}.safetensors"
        task = task_of(member.task)
        if split_of(member.task) != "heldout" or not path.is_file():
            rows.append(torch.zeros(512, dtype=torch.float64))
            continue
        told = load_file(path)["told"][: len(probes())]
        rows.append(meant(space, [Answers(task.cue, task.labels, told)]))
    return torch.stack(rows) if any(bool(row.any()) for row in rows) else None


def figures_of(
    known: Collection, made: Mapping[str, Mapping[str, Tensor]], judged: Verdict
) -> dict[str, Figure]:
    """Compute the headline figures."""
    found: dict[str, Figure] = {}
    aims = {"linear": (">= 0.90", ">= 0.98")}
    held = [at for at, card in enumerate(known.cards) if card.split == "heldout"]
    for name, tables in made.items():
        hits, (one, five) = looked_up(tables, known.cards), aims.get(name, (None, None))
        found[f"retrieval.{name}.top1"], found[f"retrieval.{name}.top5"] = (
            share(hits, 1, one),
            share(hits, 5, five),
        )
        found[f"retrieval_kin.{name}.top1"] = share(looked_up(tables, known.cards, kin=True), 1)
        for left_out in tables:
            own = [(card, rank) for card, rank in hits if card.architecture == left_out]
            found[f"retrieval.{name}.left_out_{left_out}.top1"] = share(own, 1)
        pairs = [silhouettes(rows[held], [known.cards[at] for at in held]) for rows in tables.values()]
        for place, what in enumerate(("capability", "architecture")):
            value = float(np.mean([pair[place] for pair in pairs]))
            aim = ">= 0.50" if (name, what) == ("linear", "capability") else None
            found[f"silhouette.{name}.{what}"] = Figure(value, n=len(held), aim=aim)
    found["retrieval.top1"], found["retrieval.top5"] = (
        found["retrieval.linear.top1"],
        found["retrieval.linear.top5"],
    )
    found["additivity.linear"] = Figure(judged.additive, n=len(FAMILIES), aim="> 0.8")
    found["accepted.linear"] = Figure(float(judged.accepted), n=len(FAMILIES), aim="1")
    return found


def shown_by(known: Collection) -> dict[str, dict[Member, Fingerprint]]:
    """Give everybody's fingerprints by both closed forms; the linear one left out no architecture."""
    linear = known.fitted(known.rows(""))
    tables = {
        "pca": (known.descriptions @ default_pca().components.double().T, default_pca().version),
        "linear": (linear.of(known.movements), linear.version),
    }
    return {
        name: dict(zip(known.members, space_sizes.fingerprints(rows, known.cards, version), strict=True))
        for name, (rows, version) in tables.items()
    }


def sizes(known: Collection) -> dict[str, Figure]:
    """Judge interpolator and gate on fingerprints of both closed forms."""
    found: dict[str, Figure] = {}
    for name, shown in shown_by(known).items():
        told = space_sizes.interpolated(shown)
        for way in ("identity", "ridge", "film"):
            found[f"interpolator.{name}.{way}"] = Figure(getattr(told, way), n=told.pairs)
        found[f"interpolator.{name}.accepted"] = Figure(float(told.accepted), n=told.pairs, aim="1")
        for way, values in space_sizes.gated(shown, known.split).items():
            one = mean_interval(values)
            found[f"gate.{name}.{way}"] = Figure(one.value, one.low, one.high, len(values))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, read and measure what is missing, then write record and summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=120.0, help="begin no new expert after this long")
    parser.add_argument("--take", nargs="*", type=Path, default=[], help="folders of experts made elsewhere")
    parser.add_argument("--index", type=Path, help="folder of what the index read")
    parser.add_argument(
        "--ship",
        type=Path,
        help="folder to write what ships to: extractor and interpolator of all architectures",
    )
    parser.add_argument("--only-summary", action="store_true", help="measure nothing new")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    index = asked.index or index_read.home()
    shelves = [*asked.take, index_experts.shelf()]
    if not asked.only_summary:
        if asked.index is None:
            index_experts.train(minutes=asked.minutes)
            index_read.read(minutes=asked.minutes)
        space_experts.train(minutes=asked.minutes, others=shelves)
        space_read.read(minutes=asked.minutes, others=shelves, index=index)
        for left_out in space_encoder.LEFT_OUT:
            space_encoder.train(left_out, index)
    known = Collection(space_read.collection(index))
    folds = linear_folds(known, sums(known.members, shelves))
    judged = verdict(folds)
    made = retrievals(known, space_encoder.found())
    told = answered(known, index)
    if told is not None:
        made["answers"] = dict.fromkeys(FAMILIES, told)
    figures = figures_of(known, made, judged)
    figures |= sizes(known)
    if asked.ship is not None:
        asked.ship.mkdir(parents=True, exist_ok=True)
        save_linear(known.fitted(known.rows("")), asked.ship / "extractor")
        space_sizes.shipped(shown_by(known)["pca"], known.split).half().save(asked.ship / "film.safetensors")
    _write(known, judged, figures)


def _write(known: Collection, judged: Verdict, figures: Mapping[str, Figure]) -> None:
    names = {
        split: sorted({c.capability for c in known.cards if c.split == split})
        for split in ("train", "validation", "heldout")
    }
    config: dict[str, Any] = {
        "experts": known.all,
        "experts_that_learned": len(known.cards),
        "capabilities": names,
        "models": sorted({card.base for card in known.cards}),
        "probes": len(probes()),
        "encoder": space_encoder.PLAN.model_dump(),
    }
    numbers = {
        "figures": {name: vars(one) for name, one in figures.items()},
        "verdict": vars(judged),
        "encoder": space_encoder.curves(),
    }
    stamp = f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}"
    write_record(PLACE / f"{stamp}.json", new_record("space", config=config, numbers=numbers))
    write_summary(PLACE / "summary.json", figures)
    table = Table("figure", "value", "95 % interval", "n", "aim", title="space")
    for name, one in figures.items():
        span = "" if one.low is None else f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(name, f"{one.value:.3f}", span, str(one.n), str(one.aim or ""))
    Console().print(table)
    Console().print(str(judged))


if __name__ == "__main__":
    main()
