"""Writers that are killed in the middle: what was acknowledged must be in the store afterwards.

    python -m benchmarks.index_kills [--kills 100]

Each round starts several processes that add entries to one store, one commit each, and say so when a commit returned;
all are killed at a random moment. At the end every entry that was acknowledged must be there once and whole.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from umaf.activations import ANCHORS_HASH, DEPTHS
from umaf.extraction import FingerprintCard
from umaf.index.entry import Entry, key_of
from umaf.index.opening import make_store, open_store
from umaf.index.space import Space
from umaf.index.verify import verify

WRITERS = 3
# Seconds to wait for a writer's first acknowledgement; a crowded machine takes long to start one.
PATIENCE = 600


def space() -> Space:
    """Give the settings of a store of made-up fingerprints."""
    return Space(
        extractor="made-up",
        asked="pca",
        anchors=ANCHORS_HASH,
        normalisation="centred",
        depths=tuple(DEPTHS),
        probes="made-up",
        texts=tuple(f"probe {number}" for number in range(16)),
    )


def entry(name: str, vector: torch.Tensor, *, architecture: str = "made") -> Entry:
    """Give an entry with a made-up card."""
    own = space()
    card = FingerprintCard(
        model=name, base=None, architecture=architecture, parameters=1, layers=1, width=1, tokenizer="made",
        probes=own.probes, probe_count=16, truncated=0, anchors=own.anchors, extractor=own.extractor,
        normalisation=own.normalisation, depths=own.depths, strength=1.0, unchanged=False,
    )  # fmt: skip
    vector = vector.flatten().float()
    return Entry(key_of(name), name, None, name, card, vector / vector.norm(), None)


def write(place: str, prefix: str, said: Connection) -> None:
    """Add entries without end, and say the name of each once it is committed."""
    torch.set_num_threads(1)
    store, number = make_store(place, space()), 0
    while True:
        name = f"{prefix}-{number}"
        store.put([entry(name, torch.randn(512))])
        said.send(name)
        number += 1


def rounds(place: str | Path, *, kills: int, seconds: float = 1.0, seed: int = 0) -> dict[str, int]:
    """Kill writers so many times, then compare.

    Args:
        place: of the store, which is made by whoever comes first.
        kills: processes to kill.
        seconds: longest life of a round, counted from its first acknowledged write.
        seed: of the moments.

    Returns:
        kills, acknowledged writes, those lost, entries, faults that `verify` found.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.index_kills"])
    draw, acknowledged, killed = random.Random(seed), [], 0
    while killed < kills:
        living = []
        for one in range(min(WRITERS, kills - killed)):
            heard, said = context.Pipe(duplex=False)
            process = context.Process(target=write, args=(str(place), f"{killed}-{one}", said), daemon=True)
            process.start()
            said.close()
            living.append((process, heard))
        # The first acknowledgement shows that the writers are at work, in the middle of which they are stopped.
        spoke = living[0][1].poll(PATIENCE)
        time.sleep(draw.uniform(0, seconds))
        for process, _ in living:
            process.kill()
        for process, heard in living:
            process.join()
            killed += 1
            try:
                while heard.poll():
                    acknowledged.append(heard.recv())
            except EOFError:
                pass
        if not spoke:
            raise RuntimeError(f"no writer acknowledged anything within {PATIENCE} seconds")
    return {"kills": killed, "acknowledged": len(acknowledged), **compare(place, acknowledged)}


def compare(place: str | Path, acknowledged: Sequence[str]) -> dict[str, int]:
    """Count what is missing, and what is there but faulty."""
    store = open_store(place)
    keys, found = store.keys(), verify(store)
    lost = sum(key_of(name) not in keys for name in acknowledged)
    return {"lost": lost, "entries": len(store), "faults": len(found.faults)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    with tempfile.TemporaryDirectory() as folder:
        print(rounds(Path(folder) / "store", kills=parser.parse_args(arguments).kills))


if __name__ == "__main__":
    main()
