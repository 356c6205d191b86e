"""mergekit's methods in the words of those here: what it asks for, its defaults, and where the base belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from umaf.errors import ConfigError
from umaf.merging.recipes.recipe import Scalar

IDLE = ("int8_mask", "embed_slerp")
"""Parameters of real recipes that change nothing."""

PARAMETERS: tuple[str, ...] = (
    "weight",
    "density",
    "t",
    "normalize",
    "lambda",
    "rescale",
    "gamma",
    "epsilon",
    "scale",
    "filter_wise",
)
"""Parameters that recipes put where only keys belong."""

MIXTURES = ("experts", "gate_mode", "experts_per_token", "shared_experts")
"""Keys that only recipes of mergekit-moe have."""

ABSENT = {
    "arcee_fusion": "nearswap and slerp are the nearest for two models",
    "ram": "ties and consensus_ta are the nearest",
    "ramplus_tl": "ties and consensus_ta are the nearest",
}


@dataclass(frozen=True)
class Rule:
    """How mergekit's method of a name is said here.

    Attributes:
        required: parameters without a default.
        defaults: options here that give mergekit's meaning where the recipe says nothing.
        idle: parameters that change nothing in this method.
        base_is_model: in the form with `models` the base is one of the models that are merged.
        base_first: it is the first of them, in slices too.
    """

    required: tuple[str, ...] = ()
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    base_is_model: bool = False
    base_first: bool = False


_CONSENSUS = {"elect": "weighted", "divisor": "weights"}
RULES = {
    "linear": Rule(("weight",), {"normalize": True}, base_is_model=True),
    "slerp": Rule(("t",), base_first=True),
    "nuslerp": Rule(("weight",)),
    "multislerp": Rule(("weight",)),
    "karcher": Rule(defaults={"max_iter": 10, "tol": 1e-5}, base_is_model=True),
    "task_arithmetic": Rule(("weight",), {"normalize": False}, idle=("density", "rescale")),
    "ties": Rule(
        ("weight",),
        {
            "density": 1.0,
            "combine": "mean",
            "trim": "tensor",
            "tie": "plus",
            "rounding": "down",
            **_CONSENSUS,
        },
    ),
    "dare_linear": Rule(("weight",), {"density": 1.0, "rescale": "l1", "normalize": False}),
    "dare_ties": Rule(("weight",), {"density": 1.0, "rescale": "l1", "combine": "sum", **_CONSENSUS}),
    "breadcrumbs": Rule(("weight",), {"density": 1.0, "gamma": 0.01, "normalize": False}),
    "breadcrumbs_ties": Rule(("weight",), {"density": 1.0, "gamma": 0.01, "combine": "sum", **_CONSENSUS}),
    "della": Rule(
        ("weight",), {"density": 1.0, "epsilon": 0.15, "rescale": "l1", "combine": "mean", **_CONSENSUS}
    ),
    "della_linear": Rule(("weight",), {"density": 1.0, "epsilon": 0.15, "rescale": "l1", "normalize": False}),
    "model_stock": Rule(defaults={"filter_wise": False}),
    "sce": Rule(defaults={"select_topk": 1.0, "select": "deltas"}),
    "nearswap": Rule(("t",), base_first=True),
    "passthrough": Rule(),
}


def absent(name: str) -> ConfigError | None:
    """Give the error for a method that mergekit has and umaf has not; None for other names.

    Example:
        >>> absent("ram")
        ConfigError('ram is a method of mergekit that umaf has not; ties and consensus_ta are the nearest.')
    """
    if name not in ABSENT:
        return None
    return ConfigError(f"{name} is a method of mergekit that umaf has not; {ABSENT[name]}.")
