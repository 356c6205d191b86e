"""The floor: as plain a program as can be that reads five checkpoints and writes the mean of four.

    python -m benchmarks.speed_floor BASE EXPERT… OUT

It maps the files, walks over them in blocks of 64 K numbers, and writes each block where it belongs. It checks nothing.
"""

from __future__ import annotations

import json
import mmap
import struct
import sys
from pathlib import Path

import torch

BLOCK = 65_536


def maps(folder: Path) -> list[tuple[mmap.mmap, int]]:
    """Map every shard; give each with the place where its data begin."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (header,) = struct.unpack("<Q", file.read(8))
            found.append((mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 8 + header))
    return found


def main(base: Path, experts: list[Path], out: Path) -> None:
    """Read all, average the experts, write the result in the base's layout."""
    torch.set_num_threads(1)
    out.mkdir(parents=True)
    row, total, half = torch.empty(BLOCK), torch.empty(BLOCK), torch.empty(BLOCK, dtype=torch.bfloat16)
    weight = {}
    all_maps = [maps(folder) for folder in (base, *experts)]
    for number, path in enumerate(sorted(base.glob("*.safetensors"))):
        whole, start = all_maps[0][number]
        with (out / path.name).open("wb") as file:
            file.write(whole[:start])
            for place in range(start, len(whole), 2 * BLOCK):
                end = min(place + 2 * BLOCK, len(whole))
                size = (end - place) // 2
                weight["read"] = whole[place:end][0]  # the base is read and not used, as in the comparison
                total.zero_()
                for shards in all_maps[1:]:
                    block = torch.frombuffer(
                        shards[number][0], dtype=torch.bfloat16, count=size, offset=place
                    )
                    total[:size] += row[:size].copy_(block)
                half[:size].copy_(total[:size].mul_(1 / len(experts)))
                file.write(half[:size].view(torch.uint8).numpy())
    index = base / "model.safetensors.index.json"
    (out / index.name).write_text(json.dumps(json.loads(index.read_text())))


if __name__ == "__main__":
    first, *others, last = map(Path, sys.argv[1:])
    main(first, others, last)
