"""Every mistake that umaf reports, in one tree.

    UmafError                       everything below; `except UmafError` catches all of it
    ├── ModelError       ValueError       a model cannot be opened, or cannot be read from
    ├── ProbeError       ValueError       probes are empty, repeated, too few or too long
    ├── TaskError        LookupError      a task or its data is not there
    ├── AdapterError     ValueError       an adapter does not fit its target
    ├── CheckpointError  ValueError       weight files are missing, cut short, or do not belong together
    ├── FingerprintError ValueError       fingerprints that cannot be read or compared
    ├── ExpertError      ValueError       an expert, a shelf or a reward does not fit what it is asked for
    ├── StoreError       ValueError       a store of fingerprints is missing, damaged, or asked to mix spaces
    ├── OutputError      OSError          a result cannot be written where it was asked for
    ├── NumericalError   ArithmeticError  NaN, infinity, or a system without a solution
    ├── ConfigError      ValueError       an option or a key of a config file is wrong
    └── RegistryError    LookupError      no such method, or two claims on one name

A message is one sentence: what was asked, what was found, what to do. Each class is also a builtin, so code that
knows nothing of umaf can catch it. The command line prints the sentence on stderr and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UmafError(Exception):
    """Anything the caller can put right."""


class ModelError(UmafError, ValueError):
    """A model is unknown, gated, corrupt, stored as pickle, or has no usable hidden states."""


class ProbeError(UmafError, ValueError):
    """Probes are empty, repeated, too few, or longer than the model's window."""


class TaskError(UmafError, LookupError):
    """A task is unknown, or its data is nowhere to be found."""


class AdapterError(UmafError, ValueError):
    """An adapter does not fit its target, or its folder is not PEFT's."""


class CheckpointError(UmafError, ValueError):
    """Weight files are missing, cut short, or do not belong together."""


class FingerprintError(UmafError, ValueError):
    """A fingerprint is malformed, or fingerprints of different spaces are mixed."""


class ExpertError(UmafError, ValueError):
    """An expert is of another base, a shelf is ambiguous, or a reward cannot teach anything."""


class StoreError(UmafError, ValueError):
    """A store of fingerprints is missing or damaged, or fingerprints of different spaces would be mixed."""


class OutputError(UmafError, OSError):
    """A result cannot be written where it was asked for."""


class NumericalError(UmafError, ArithmeticError):
    """A number is NaN or infinite, or a system has no solution."""


class ConfigError(UmafError, ValueError):
    """An option or a key of a config file is unknown, missing or out of range."""


class RegistryError(UmafError, LookupError):
    """A name is not registered, or two packages claim it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known word nearest to a mistyped one.

    Returns:
        ' Did you mean "x"?' with a leading space, ready to end a message; '' when nothing is near.

    Example:
        >>> did_you_mean("cosin", ["cosine", "pearson"])
        ' Did you mean "cosine"?'
        >>> did_you_mean("tree", ["cosine", "pearson"])
        ''
    """
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f' Did you mean "{by_lower[near[0]]}"?' if near else ""
