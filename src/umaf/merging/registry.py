"""The table of merge methods: what ships, and what other packages add by the entry point group `umaf.merge_methods`."""

from __future__ import annotations

from umaf.errors import ConfigError
from umaf.merging.contract import Method
from umaf.registry import Registry

_ROOM = "umaf.merging.methods"
_FILES = {
    "breadcrumbs": ("breadcrumbs", "breadcrumbs_ties"),
    "consensus": ("consensus_ta", "consensus_ties"),
    "dare": ("dare_linear", "dare_ties"),
    "della": ("della", "della_linear"),
    "doge": ("doge",),
    "emr": ("emr_unified",),
    "iso": ("iso_c", "iso_cts"),
    "karcher": ("karcher",),
    "knots": ("knots",),
    "layer_swap": ("layer_swap",),
    "linear": ("linear",),
    "localize_and_stitch": ("localize_and_stitch",),
    "model_stock": ("model_stock",),
    "multislerp": ("multislerp",),
    "mwa": ("mwa",),
    "nearswap": ("nearswap",),
    "nuslerp": ("nuslerp",),
    "opcm": ("opcm",),
    "optmerge": ("optmerge",),
    "passthrough": ("passthrough",),
    "pcb": ("pcb",),
    "sce": ("sce",),
    "slerp": ("slerp",),
    "somf": ("somf",),
    "task_arithmetic": ("task_arithmetic",),
    "ties": ("ties",),
    "tsv": ("tsv_m", "r_tsvm"),
    "varm": ("varm",),
    "widen": ("widen",),
    "wudi": ("wudi",),
}
METHODS = Registry(
    "merge method",
    "umaf.merge_methods",
    {name: f"{_ROOM}.{file}:{name}" for file, names in _FILES.items() for name in names},
)


def method_of(name: str) -> Method:
    """Look a method up by name.

    Raises:
        RegistryError: no such method.
        ConfigError: what is registered is not a merge method.
    """
    method = getattr(METHODS.get(name), "method", None)
    if not isinstance(method, Method):
        raise ConfigError(
            f"{name!r} is registered as a merge method but lacks the decorator merge_method; add it."
        )
    return method
