"""Names of number formats: those of safetensors files and those of torch."""

from __future__ import annotations

import torch

from umaf.errors import CheckpointError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def torch_dtype(name: str) -> torch.dtype:
    """Give torch's dtype for a safetensors name.

    Raises:
        CheckpointError: a format that torch does not have.

    Example:
        >>> torch_dtype("BF16")
        torch.bfloat16
    """
    if name not in _DTYPES:
        raise CheckpointError(
            f"The number format {name!r} is not known here; there are {', '.join(_DTYPES)}."
        )
    return _DTYPES[name]


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

    Example:
        >>> size_of("BF16")
        2
    """
    return torch_dtype(name).itemsize
