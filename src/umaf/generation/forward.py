"""Route `generate`: one forward pass of a trained generator; no gradient step, no answer of a source.

The sources' answers have gone into the fused fingerprint. From then on only it, the label words and the probes' texts
are used: the fingerprint says what each probe is called, and the target reads the probes twice, the second time with
the adapter, to take back what the rest of the layer made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from umaf.adapters import cores
from umaf.adapters.factors import combine
from umaf.adapters.factors import truncate as truncated
from umaf.errors import ConfigError, TaskError
from umaf.extraction import Answers, Fingerprint, along
from umaf.generation.decisions import Asked, ask, batches, decide
from umaf.generation.distill import distill
from umaf.generation.generator import Generator, load_generator, shipped_generator
from umaf.generation.goals import Goal
from umaf.generation.newton import as_cores
from umaf.generation.solve import Solved
from umaf.generation.structured import at_answers, listening, values
from umaf.generation.train import widened
from umaf.models import Model

BATCH = 64


def forward(
    model: Model,
    goals: Sequence[Goal],
    *,
    rank: int = 8,
    generator: str | Path | Generator | None = None,
    fingerprint: Fingerprint | None = None,
    refine: int = 0,
    seed: int = 0,
    truncate: bool = False,
) -> Solved:
    """Generate an adapter from a fused fingerprint.

    Args:
        model: the target; left as it was.
        goals: one per capability, for its probes, cue and label words; what they want is not looked at.
        rank: highest rank of every module's update; the writers need as many as there are labels in all.
        generator: a trained one of this target, or its folder; the one that ships with umaf when not given.
        fingerprint: the fused fingerprint.
        refine: gradient steps of `distill` that go on from the generated adapter; these do look at the goals.
        seed: of the refinement.
        truncate: cut probes that are longer than the target's window.

    Returns:
        The factors, and a row that says how they came about.

    Raises:
        ConfigError: no generator, or no fingerprint.
        FingerprintError: a fingerprint of another extractor, or a generator of another target.
        TaskError: a capability without labels.
    """
    generator = generator or shipped_generator(model)
    if generator is None or fingerprint is None:
        raise ConfigError(
            f'The route "generate" needs a fused fingerprint and a generator trained for {model.name}, and '
            f"{'no generator' if generator is None else 'no fingerprint'} was given; train one with "
            "`umaf train generator`, and name its folder with --generator."
        )
    own = generator if isinstance(generator, Generator) else load_generator(generator)
    for goal in goals:
        if goal.is_function:
            raise TaskError(
                f'The route "generate" was asked for the capability "{goal.cue}", whose answers are free text, but it '
                'makes adapters for label words alone; use the route "distill".'
            )
    warning = own.check(fingerprint, model)
    factors = adapter(own, model, goals, fingerprint, cut=truncate)
    small, lost = truncated(factors, rank)
    history: list[dict] = [{"note": warning}] if warning else []
    row = {"stage": "generate", "generator": own.version}
    history.append({**row, "lost to the rank": max(lost.values())})
    if not refine:
        return Solved(small, tuple(history))
    start = widened(small, rank, seed)
    more = distill(model, goals, rank=rank, steps=refine, start=start, seed=seed, truncate=truncate)
    return Solved(more.factors, (*history, *more.history))


@torch.no_grad()
def adapter(
    generator: Generator, model: Model, goals: Sequence[Goal], fingerprint: Fingerprint, *, cut: bool = False
) -> dict[str, tuple[Tensor, Tensor]]:
    """Make the whole adapter of a fused fingerprint, at the rank that it has.

    Args:
        generator: a trained one of this target.
        model: the target.
        goals: probes, cue and label words of every capability in the fingerprint.
        fingerprint: checked to be one of this generator's.
        cut: cut probes that are longer than the window.

    Returns:
        Module name -> (A, B).
    """
    shared = generator.standing(model.device)
    said = [called.to(model.device) for called in calls(generator, goals, fingerprint)]
    heard = [ask(model, goal, truncate=cut) for goal in goals]
    pushes = [values(asked, generator.card.writers[-1]) for asked in heard]

    def written(keys: Sequence[Tensor], weights: Sequence[float]) -> dict[str, tuple[Tensor, Tensor]]:
        pairs = zip(keys, pushes, strict=True)
        return combine([generator.update(key, push, scales) for key, push in pairs], weights)

    counts = [len(goal.texts) for goal in goals]
    with cores(model, *as_cores(shared)):
        given, logits = _all_seen(heard, generator.card.writers)
        rows, scales = generator.side_by_side(given)
        keys = generator.keys(rows.split(counts), said, logits, scales)
        # Each capability at its full weight: what is taken back is what its own update did on the way out.
        with cores(model, *as_cores(written(keys, [1.0] * len(goals)))):
            given, logits = _all_seen(heard, generator.card.writers)
        rows, _ = generator.side_by_side(given, scales)
        more = generator.corrections(rows.split(counts), said, logits, scales)
    weights = [goal.weight for goal in goals]
    most = max(map(abs, weights))
    own = written([a + b for a, b in zip(keys, more, strict=True)], [weight / most for weight in weights])
    whole = {**shared, **own}
    return {name: (a.contiguous().cpu(), b.contiguous().cpu()) for name, (a, b) in whole.items()}


def _all_seen(heard: Sequence[Asked], writers: Sequence[str]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Read what writers are given at the probes of all capabilities, one after another, and each one's logits."""
    found = [seen(asked, writers) for asked in heard]
    whole = {name: torch.cat([given[name] for given, _ in found]) for name in writers}
    return whole, [logits for _, logits in found]


def calls(
    generator: Generator, goals: Sequence[Goal], fingerprint: Fingerprint
) -> list[Float[Tensor, "text label"]]:
    """Read off a fingerprint what each probe is called: per goal, 1 for one label of a text and 0 for the others."""
    names = [words_of(goal) for goal in goals]
    found = generator.directions(fingerprint, names)
    called = []
    for goal, group in zip(goals, names, strict=True):
        # Of a label that two goals share, both get what the fingerprint has for it.
        far = along(torch.stack([found[name] for name in group]), generator.space.places(goal.texts))
        called.append(functional.one_hot(far.argmax(1), len(group)).float())
    return called


def words_of(goal: Goal) -> tuple[str, ...]:
    """Give the names under which a goal's labels lie in a fingerprint."""
    return Answers(goal.cue or "", goal.labels, goal.wanted).words


def seen(asked: Asked, writers: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
    """Read what writers are given at every probe's answer, `[text, in]` each, and the logits `[text, label]`.

    Hooks around the target stay active.
    """
    found: dict[str, dict[int, Tensor]] = {writer: {} for writer in writers}
    said: dict[int, Tensor] = {}
    for rows in batches(asked, BATCH):
        with listening(asked, writers) as heard, torch.no_grad():
            logits = decide(asked, rows).logits[:, 0]
        said |= dict(zip(rows, logits, strict=True))
        for writer, given in at_answers(asked, rows, heard).items():
            found[writer] |= dict(zip(rows, given, strict=True))
    order = range(len(asked))
    given = {writer: torch.stack([one[row] for row in order]) for writer, one in found.items()}
    return given, torch.stack([said[row] for row in order])
