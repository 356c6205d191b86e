"""Names of number formats: those of safetensors files and those of torch."""

from __future__ import annotations

import torch

from umaf.errors import CheckpointError

_KNOWN = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
# An older torch has fewer.
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, own) for name, own in _KNOWN.items() if hasattr(torch, own)
}
_SIZES = {name: dtype.itemsize for name, dtype in _DTYPES.items()}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def torch_dtype(name: str) -> torch.dtype:
    """Give torch's dtype for a safetensors name.

    Raises:
        CheckpointError: a format that torch does not have.

    Example:
        >>> torch_dtype("BF16")
        torch.bfloat16
    """
    found = _DTYPES.get(name) if isinstance(name, str) else None
    if found is None:
        raise CheckpointError(
            f"The number format {name!r} is not known here; there are {', '.join(_DTYPES)}."
        )
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """Give the safetensors name of a torch dtype.

    Raises:
        CheckpointError: a dtype that safetensors does not store.

    Example:
        >>> dtype_name(torch.float16)
        'F16'
    """
    if dtype not in _NAMES:
        raise CheckpointError(f"{dtype} has no name in safetensors files; convert it first.")
    return _NAMES[dtype]


def size_of(name: str) -> int:
    """Give the bytes of one number.

    Raises:
        CheckpointError: a format that torch does not have.

    Example:
        >>> size_of("BF16")
        2
    """
    return _SIZES[name] if isinstance(name, str) and name in _SIZES else torch_dtype(name).itemsize
