"""The registry of dispatchers, and what they may be given.

A package adds one with an entry point in the group ``umaf.dispatchers`` whose object is a function of (shelf, material)
that gives a function of texts: see `umaf.dispatch.decision.Dispatcher`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from umaf.dispatch.decision import Dispatcher
from umaf.dispatch.shelf import Shelved
from umaf.experts.expert import Expert
from umaf.registry import Registry
from umaf.search import Cma, CrossEntropy
from umaf.tasks.task import Example

DISPATCHERS = Registry(
    "dispatcher",
    "umaf.dispatchers",
    {
        "prompt": "umaf.dispatch.prompt:prompt",
        "classifier": "umaf.dispatch.classifier:classifier",
        "probe": "umaf.dispatch.probe:probe",
        "few-shot": "umaf.dispatch.few_shot:few_shot",
    },
)


@dataclass(frozen=True)
class Material:
    """What a dispatcher may learn from; each one takes what it needs and says so when it is missing.

    Attributes:
        examples: texts by the name of the expert they are for, and by "other" (probe, and training a classifier).
        classifier: an expert that was trained to name the kind of a text (classifier).
        shots: examples with answers of the task to come (few-shot).
        cue: the word before the answer of a shot.
        reward: which reward judges the answers to shots.
        run_code: allow the reward "code" to run what the model writes.
        max_new_tokens: longest answer to a shot.
        fitness: what makes a mixture good (few-shot): "likelihood" of the right answers to the shots, under a prior
            that expects the base; or "reward" of the answers it writes, and the likelihood for ties, as
            Transformer-squared has it.
        prior: standard deviation of weights around 0 that is expected before any shot is seen (fitness "likelihood").
        per: one weight per expert ("model"), or one per expert and layer ("layer").
        search: how the weights are searched for; the cross-entropy method with the paper's numbers by default.
        mixed: weigh experts by their share of belief instead of taking the likeliest (prompt, classifier, probe).
        said: called with (done, in all) during long work.
    """

    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classifier: Expert | None = None
    shots: tuple[Example, ...] = ()
    cue: str | None = None
    reward: str = "exact"
    run_code: bool = False
    max_new_tokens: int = 16
    fitness: Literal["likelihood", "reward"] = "likelihood"
    prior: float = 0.3
    per: Literal["model", "layer"] = "model"
    search: CrossEntropy | Cma = field(default_factory=CrossEntropy)
    mixed: bool = False
    said: Callable[[int, int], None] | None = None


def make_dispatcher(name: str, shelf: Shelved, material: Material | None = None) -> Dispatcher:
    """Make a dispatcher by name; a probe is fitted and a few-shot mixture searched for here, once.

    Args:
        name: "prompt", "classifier", "probe", "few-shot", or what a package registered.
        shelf: the experts to choose among.
        material: what it may learn from.

    Returns:
        A function of texts.

    Raises:
        RegistryError: no such dispatcher.
        ExpertError: something it needs is missing from the material.
    """
    make = cast(Callable[[Shelved, Material], Dispatcher], DISPATCHERS.get(name))
    return make(shelf, material or Material())
