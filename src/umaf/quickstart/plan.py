"""What a quickstart does, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moved:
    """A capability, and the model that will have it and give it.

    Attributes:
        task: a generated task with labels.
        base: the model whose expert is the source.
        short: how tables name the capability.
    """

    task: str
    base: str
    short: str


@dataclass(frozen=True)
class Plan:
    """Models, tasks and sizes of a quickstart; the defaults take about 75 seconds of one core.

    Attributes:
        moved: capabilities with their sources, of different architectures.
        target: the model that receives them all in one adapter.
        labelled: labelled texts that each expert, and the oracle, learns from.
        probes: texts without labels that a transfer sees, per capability; a prefix of those texts.
        tests: held-out texts per capability and level.
        expert_steps: gradient steps of each expert.
        oracle_steps: gradient steps of the oracle.
        distill_steps: gradient steps of the route distill.
        iterations: linearisations of the route solve.
        rank: of the adapters.
        seed: of everything random.
        device: where models run.
        dtype: number type models are loaded in.

    Example:
        >>> [one.short for one in Plan().moved]
        ['question', 'tense']
    """

    moved: tuple[Moved, ...] = (
        Moved("made/question", "zoo:bert-1m", "question"),
        Moved("made/tense", "zoo:gpt2-1m", "tense"),
    )
    target: str = "zoo:llama-1m"
    labelled: int = 1000
    probes: int = 256
    tests: int = 400
    expert_steps: int = 150
    oracle_steps: int = 200
    distill_steps: int = 240
    iterations: int = 12
    rank: int = 8
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
