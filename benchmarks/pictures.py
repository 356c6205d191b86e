"""Small grey pictures of digits and shapes, with what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umaf import seeds
from umaf.tasks.door import find_data

SIZE = 28
NAMES = (*"0123456789", *"OXTL")
"""What is shown; the names are single tokens of the zoo's language models."""
SHAPES = {
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "X": "10001 10001 01010 00100 01010 10001 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "L": "10000 10000 10000 10000 10000 10000 11111",
}
DIGITS = {
    "0": "01110 10011 10101 10101 10101 11001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11110 00001 00001 01110 00001 00001 11110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "01110 10000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00001 01110",
}
COUNTS = {"train": 200, "test": 60}


@dataclass(frozen=True)
class Pictures:
    """Pictures and what they show.

    Attributes:
        pixels: ``[picture, 1, 28, 28]`` from 0 to 1.
        names: numbers into NAMES, ``[picture]``.
    """

    pixels: Tensor
    names: Tensor


def pictures(side: str, seed: int) -> Pictures:
    """Give the pictures of a side, "train" or "test", in a random order: digits of MNIST where it is found."""
    draw = np.random.default_rng(seeds.derive(seed, "pictures", side))
    folder, found = find_data(), []
    path = None if folder is None else folder / "vision" / "mnist.npz"
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as data:
            kept = draw.permutation(len(data[f"y_{side}"]))[: COUNTS[side] * 10]
            found += [
                (data_row / 255, int(name))
                for data_row, name in zip(data[f"x_{side}"][kept], data[f"y_{side}"][kept], strict=True)
            ]
    else:
        found += [
            (_drawn(DIGITS[name], draw), NAMES.index(name)) for name in DIGITS for _ in range(COUNTS[side])
        ]
    found += [(_drawn(SHAPES[name], draw), NAMES.index(name)) for name in SHAPES for _ in range(COUNTS[side])]
    order = draw.permutation(len(found))
    pixels = np.stack([found[i][0] for i in order]).astype(np.float32)[:, None]
    return Pictures(torch.from_numpy(pixels), torch.tensor([found[i][1] for i in order]))


def _drawn(rows: str, draw: np.random.Generator) -> np.ndarray:
    """Draw a bitmap of 7 by 5 at a random size and place, with some noise."""
    bits = np.array([[int(bit) for bit in row] for row in rows.split()], dtype=float)
    scale = int(draw.integers(2, 4))
    large = np.kron(bits, np.ones((scale, scale))) * draw.uniform(0.6, 1.0)
    top, left = (int(draw.integers(0, SIZE - size + 1)) for size in large.shape)
    picture = np.zeros((SIZE, SIZE))
    picture[top : top + large.shape[0], left : left + large.shape[1]] = large
    return np.clip(picture + draw.normal(0, 0.05, picture.shape), 0, 1)
