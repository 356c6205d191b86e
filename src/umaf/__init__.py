"""umaf moves capabilities between language models of different architecture, size and tokenizer.

Names are loaded on first use: `import umaf` alone imports neither torch nor transformers.

    import umaf

    model = umaf.open_model("zoo:bert-1m")
    probes = umaf.read_probes("probes.txt")
    print(umaf.fingerprint(model, probes).vector.shape)  # torch.Size([1, 512])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from umaf.errors import UmafError

if TYPE_CHECKING:
    from umaf.activations.probes import read_probes
    from umaf.dispatch.adaptive import AdaptiveModel
    from umaf.evaluation.evaluate import evaluate
    from umaf.extraction.extractor import extract as fingerprint
    from umaf.extraction.fingerprint import Fingerprint
    from umaf.extraction.similarity import similarity
    from umaf.fusion.fuse import fuse
    from umaf.generation.sources import Source
    from umaf.models.open import Model, open_model
    from umaf.pipeline import transfer
    from umaf.tasks.door import load_task
    from umaf.tasks.task import Task

__version__ = "0.1.0"

__all__ = [
    "AdaptiveModel",
    "Fingerprint",
    "Model",
    "Source",
    "Task",
    "UmafError",
    "__version__",
    "evaluate",
    "fingerprint",
    "fuse",
    "load_task",
    "open_model",
    "read_probes",
    "similarity",
    "transfer",
]

_HOMES = {
    "AdaptiveModel": "umaf.dispatch.adaptive:AdaptiveModel",
    "Fingerprint": "umaf.extraction.fingerprint:Fingerprint",
    "Model": "umaf.models.open:Model",
    "Source": "umaf.generation.sources:Source",
    "Task": "umaf.tasks.task:Task",
    "evaluate": "umaf.evaluation.evaluate:evaluate",
    "fingerprint": "umaf.extraction.extractor:extract",
    "fuse": "umaf.fusion.fuse:fuse",
    "load_task": "umaf.tasks.door:load_task",
    "open_model": "umaf.models.open:open_model",
    "read_probes": "umaf.activations.probes:read_probes",
    "similarity": "umaf.extraction.similarity:similarity",
    "transfer": "umaf.pipeline:transfer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'umaf' has no attribute {name!r}")
    module, attribute = _HOMES[name].split(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
