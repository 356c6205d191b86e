"""Every error that a user can meet.

    UmafError
    ├── ModelError (ValueError)         a model that cannot be opened or used
    ├── ProbeError (ValueError)         texts that cannot be used as probes
    ├── TaskError (LookupError)         a task or data set that is not there or not whole
    ├── AdapterError (ValueError)       an adapter that does not fit
    ├── FingerprintError (ValueError)   fingerprints that cannot be compared or fused
    ├── ConfigError (ValueError)        a configuration with unknown or impossible values
    ├── RegistryError (LookupError)     a name that nothing is registered under, or two things are
    ├── OutputError (OSError)           an output that exists already or cannot be written
    └── NumericalError (ArithmeticError)  NaN or infinity where numbers were expected
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UmafError(Exception):
    """What was asked, what was found, what to do, in one sentence."""


class ModelError(UmafError, ValueError):
    """A model that cannot be opened or used."""


class ProbeError(UmafError, ValueError):
    """Texts that cannot be used as probes."""


class TaskError(UmafError, LookupError):
    """A task or data set that is not there or not whole."""


class AdapterError(UmafError, ValueError):
    """An adapter that does not fit."""


class FingerprintError(UmafError, ValueError):
    """Fingerprints that cannot be compared or fused."""


class ConfigError(UmafError, ValueError):
    """A configuration with unknown or impossible values."""


class RegistryError(UmafError, LookupError):
    """A name that nothing is registered under, or that two things claim."""


class OutputError(UmafError, OSError):
    """An output that exists already or cannot be written."""


class NumericalError(UmafError, ArithmeticError):
    """NaN or infinity where numbers were expected."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word, as a sentence to append; empty where none is near.

    Example:
        >>> did_you_mean("desnity", ["density", "weight"])
        ' Did you mean "density"?'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f' Did you mean "{near[0]}"?' if near else ""
