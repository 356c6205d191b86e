"""The four stages in a row: fingerprint the sources, scale, fuse, and make an adapter for the target."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from umaf.adapters import attach, write_lora
from umaf.errors import ConfigError
from umaf.evaluation.provenance import versions
from umaf.evaluation.record import plain
from umaf.extraction import Answers, Bound, Fingerprint, extract, open_extractor
from umaf.extraction.answered import Answered
from umaf.files import refuse_existing
from umaf.fusion import FUSIONS, fuse
from umaf.generation.generate import Generated, check_route, generate
from umaf.generation.goals import Goal
from umaf.generation.replies import Replies, labels_of
from umaf.generation.sources import Source, check_sources, goals_of
from umaf.models import Model, weights_hash
from umaf.readout import make_readout
from umaf.scaling import SCALINGS, scale
from umaf.search.fusion import FEW, Refined, Score, refine_weights
from umaf.search.shots import shot_score

FINGERPRINT = "fingerprint.safetensors"
Say = Callable[[str], object]
Options = Mapping[str, Any] | None


@dataclass(frozen=True)
class Transfer:
    """What a transfer gave.

    Attributes:
        factors: module name -> (A [rank, in], B [out, rank]), with dW = B A.
        fingerprints: one per source, in their order.
        fused: the sources' fingerprints, scaled to the target and fused.
        route: how the adapter was made.
        history: rows of the route's progress; a row with "note" says something in words.
        seconds: wall time of the route alone.
        folder: the PEFT folder; None when none was asked for.
    """

    factors: dict[str, tuple[Tensor, Tensor]]
    fingerprints: tuple[Fingerprint, ...]
    fused: Fingerprint
    route: str
    history: tuple[dict[str, Any], ...]
    seconds: float
    folder: Path | None


def transfer(  # every argument is one the command line has too
    sources: Sequence[Source],
    target: Model,
    out: str | Path | None = None,
    *,
    route: str = "solve",
    rank: int = 8,
    seed: int = 0,
    extractor: str | None = None,
    scaling: str = "identity",
    fusion: str = "weighted",
    options: Options = None,
    shots: Goal | None = None,
    truncate: bool = False,
    say: Say | None = None,
) -> Transfer:
    """Move the capabilities of one or more sources into a LoRA for a target.

    Args:
        sources: models with their probes; none may be the target itself.
        target: the model that receives; it is left as it was.
        out: the PEFT folder to write, which must not exist; None writes nothing.
        route: how the adapter is made; see `umaf.generation.generate.ROUTES`.
        rank: rank of every module's update.
        seed: of everything random.
        extractor: of the fingerprints; "bound" for a route that reads them and "pca" for others when None.
        scaling: of the fingerprints, to the target's size.
        fusion: of the fingerprints, by the sources' weights.
        options: further options of the route.
        shots: a few labelled texts of a wanted task, from `umaf.search.shots.shots_of`: the sources' weights are
            searched for what does best on them, from those given on. For routes that read fingerprints.
        truncate: cut probes that are longer than a model's window; the history says how many.
        say: called with a few words at the start of every stage.

    Returns:
        The adapter's factors, the fingerprints, and how it went.

    Raises:
        UmafError: what was asked for cannot be done; nothing was written.

    Example:
        >>> transfer([Source(expert, probes, "sentiment")], target, "adapters/sentiment")  # doctest: +SKIP
        Transfer(...)
        >>> transfer([], target=None)
        Traceback (most recent call last):
        umaf.errors.ConfigError: A transfer needs at least one source, and none was given; name one.
    """
    tell = say or (lambda _: None)
    if out is not None:
        refuse_existing(out)
    check_sources(sources, target)
    make = check_route(target, route=route, rank=rank, options=options)
    reads = "fingerprint" in inspect.signature(make).parameters
    extractor = extractor or ("bound" if reads else "pca")
    _check_names(extractor, scaling, fusion)
    _check_shots(shots, target, route=route, reads=reads, count=len(sources))

    replies = Replies(truncate=truncate)
    fingerprints = _fingerprints(sources, extractor, replies, tell)
    tell("scale and fuse")
    scaled = [scale(fingerprint, target, method=scaling) for fingerprint in fingerprints]
    fused = fuse(scaled, [source.weight for source in sources], method=fusion)

    def made_of(goals: Sequence[Goal], fused: Fingerprint, given: Options = options) -> Generated:
        asked = {**(given or {}), **({"fingerprint": fused} if reads else {})}
        return generate(target, goals, route=route, rank=rank, seed=seed, options=asked, truncate=truncate)

    found = None
    if shots is not None:
        # A try ends before the gradient steps that refine what comes out in the end.
        quick = {name: value for name, value in (options or {}).items() if name != "refine"}

        def tried(one: Fingerprint) -> tuple[float, ...]:
            tell(f"{len(shots.texts)} shots try the shares {_shares(one.card.weights)}")
            goals = goals_of(_weighed(sources, one.card.weights), target, replies=replies)
            return shot_score(attach(target, made_of(goals, one, quick).factors), shots)

        found = _searched(scaled, fused.card.weights, tried, fusion=fusion, seed=seed)
        fused, sources = found.fused, _weighed(sources, found.weights)
    tell("read the sources' answers")
    goals = goals_of(sources, target, replies=replies)
    tell(f"{route} for {target.name}")
    made = made_of(goals, fused)
    rows = (*_cut(fingerprints), *_chosen(found), *made.history)
    done = Transfer(made.factors, tuple(fingerprints), fused, route, rows, made.seconds, None)
    if out is None:
        return done
    tell(f"write {out}")
    asked = {"route": route, "options": dict(options or {}), "rank": rank, "seed": seed, "truncate": truncate}
    asked |= {"extractor": extractor, "scaling": scaling, "fusion": fusion}
    return replace(done, folder=_write(out, target, done, asked=asked, sources=sources))


def _write(
    out: str | Path, target: Model, done: Transfer, *, asked: Mapping[str, Any], sources: Sequence[Source]
) -> Path:
    """Write the PEFT folder with the fused fingerprint and all that is needed to do it again."""
    about = {
        **asked,
        "sources": [_about(source, one) for source, one in zip(sources, done.fingerprints, strict=True)],
        "target_weights": weights_hash(target),
        "fingerprint": asdict(done.fused.card),
        "history": done.history,
        "seconds": round(done.seconds, 3),
        "versions": versions(),
    }
    return write_lora(
        out,
        target,
        done.factors,
        provenance=plain(about),
        beside=lambda draft: done.fused.save(draft / FINGERPRINT),
    )


def _check_names(extractor: str, scaling: str, fusion: str) -> None:
    """Stop at a name that nothing has, before any model runs."""
    open_extractor(extractor)
    SCALINGS.get(scaling.partition(":")[0])
    FUSIONS.get(fusion)


def _check_shots(shots: Goal | None, target: Model, *, route: str, reads: bool, count: int) -> None:
    """Stop where there is nothing to weigh, or where every try would take a training."""
    if shots is None:
        return
    if not reads:
        raise ConfigError(
            f'Shots were given for the route "{route}", which does not read fingerprints, so every try would be a '
            'whole run of it; use the route "generate", or leave the shots out.'
        )
    if count < 2:
        raise ConfigError(
            "Shots were given to weigh sources by, with one source; name more, or leave the shots out."
        )
    make_readout(target, shots.labels, shots.cue)


def _searched(
    scaled: Sequence[Fingerprint], weights: Sequence[float], tried: Score, *, fusion: str, seed: int
) -> Refined:
    return refine_weights(scaled, weights, tried, method=fusion, settings=replace(FEW, seed=seed))


def _weighed(sources: Sequence[Source], weights: Sequence[float]) -> list[Source]:
    return [replace(source, weight=weight) for source, weight in zip(sources, weights, strict=True)]


def _shares(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:.2f}" for weight in weights)


def _chosen(found: Refined | None) -> tuple[dict[str, Any], ...]:
    """Tell which weights the shots chose."""
    if found is None:
        return ()
    before, after = (f"{score[0]:.0%}" for score in (found.before, found.after))
    note = f"shots chose the shares {_shares(found.weights)}: {before} of them right before, {after} after"
    return (
        {"note": note, "shots": {"weights": found.weights, "before": found.before, "after": found.after}},
    )


def _fingerprints(
    sources: Sequence[Source], extractor: str, replies: Replies, tell: Say
) -> list[Fingerprint]:
    found = []
    for number, source in enumerate(sources, start=1):
        tell(f"fingerprint {number} of {len(sources)}: {source.model.name}")
        found.append(_fingerprint(source, extractor, replies))
    return found


def _fingerprint(source: Source, extractor: str, replies: Replies) -> Fingerprint:
    """Fingerprint a source; where the extractor puts its answers in, with these."""
    answers = None
    if isinstance(open_extractor(extractor), Bound | Answered):
        labels = labels_of(source)
        scores = replies.scores(source) if labels else torch.zeros(len(source.probes), 0)
        answers = Answers(source.cue, labels, scores)
    return extract(
        source.model,
        source.probes,
        base=source.base,
        extractor=extractor,
        truncate=replies.truncate,
        answers=answers,
    )


def _cut(fingerprints: Sequence[Fingerprint]) -> tuple[dict[str, Any], ...]:
    cards = [fingerprint.card for fingerprint in fingerprints if fingerprint.card.truncated]
    return tuple(
        {"note": f"{card.truncated} of {card.probe_count} probes were cut to the window of {card.model}"}
        for card in cards
    )


def _about(source: Source, fingerprint: Fingerprint) -> dict[str, Any]:
    """Tell in the adapter's own file where a capability comes from; the probes stay with the user."""
    return {
        "model": source.model.name,
        "weights": weights_hash(source.model),
        "base": None if source.base is None else source.base.name,
        "base_weights": None if source.base is None else weights_hash(source.base),
        "weight": source.weight,
        "cue": source.cue,
        "labels": labels_of(source),
        "probes": fingerprint.card.probes,
        "probe_count": fingerprint.card.probe_count,
        "fingerprint": asdict(fingerprint.card),
    }
