"""Merging against mergekit and against the floor, side by side: CPU, wall, memory, growth, and error.

    python -m benchmarks.speed [--runs 3] [--slow 1] [--small 0] [--part merges growth lora spectral] [--only-summary]

Every pair of runs stands side by side in time, on one thread each, with warm pages; figures are medians of the ratios
of pairs, and their interval is the smallest and largest pair. What is measured is kept, so that an interrupted run goes
on where it was; it takes about 35 minutes on a quiet machine. Checkpoints are made by the benchmark (about 5 GB for the
merges, 19 GB for the growth) under out/speed, and stay there.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import statistics
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.speed_data import GROWTH, HALF, Size, write_models
from benchmarks.speed_error import ties_error
from benchmarks.speed_lora import lora_pairs
from benchmarks.speed_run import PEER, ROOT, Cost, cost_of, merge_cost, mergekit, warm
from benchmarks.speed_spectral import spectral_pairs
from umaf.evaluation.record import new_record, write_record
from umaf.evaluation.summary import Figure, write_summary
from umaf.files import write_json

HOME = ROOT / "comparison" / "speed"
WORK = ROOT / "out" / "speed"
EXPERTS = 4
DENSE, SORTED = ("linear", "task_arithmetic", "slerp", "model_stock", "karcher"), (
    "ties", "sce", "dare_linear", "dare_ties", "breadcrumbs_ties", "della",
)  # fmt: skip
SMALL, LARGE = GROWTH[0], HALF
PARTS = ("merges", "growth", "lora", "spectral")


def rounds(runs: int, slow: int, small: int) -> list[tuple[str, Size, int]]:
    """List the pairs to be measured, round by round: method, size of the checkpoints, number of the pair.

    Args:
        runs: pairs of each method for which mergekit takes seconds.
        slow: pairs of each for which it takes minutes.
        small: more pairs of these at the smaller size, where the start-up of both programs weighs more.

    Example:
        >>> [number for method, _, number in rounds(2, 1, 0) if method in ("linear", "ties")]
        [0, 0, 1]
    """
    wanted = [
        *((method, LARGE, runs) for method in DENSE),
        *((method, LARGE, slow) for method in SORTED),
        *((method, SMALL, small) for method in SORTED),
    ]
    return [
        (method, size, number)
        for number in range(max(runs, slow, small))
        for method, size, most in wanted
        if number < most
    ]


def recipe(method: str, base: Path, experts: Sequence[Path]) -> dict:
    """Give the mergekit recipe of a method; both programs read the same file."""
    one = {
        "linear": {"weight": 0.25}, "task_arithmetic": {"weight": 0.25}, "ties": {"weight": 0.5, "density": 0.2},
        "dare_linear": {"weight": 0.25, "density": 0.5}, "dare_ties": {"weight": 0.25, "density": 0.5},
        "breadcrumbs_ties": {"weight": 0.25, "density": 0.5, "gamma": 0.01},
        "della": {"weight": 0.25, "density": 0.5, "epsilon": 0.1},
    }.get(method)  # fmt: skip
    if method == "slerp":
        chosen, settings = [base, experts[0]], {"parameters": {"t": 0.5}}
    else:
        chosen, settings = list(experts), {"parameters": {"select_topk": 0.1}} if method == "sce" else {}
    rows = [{"model": str(path), **({"parameters": one} if one else {})} for path in chosen]
    based = {} if method in ("linear", "karcher") else {"base_model": str(base)}
    return {"merge_method": method, "models": rows, **based, **settings, "dtype": "bfloat16"}


def written(method: str, models: Sequence[Path]) -> Path:
    """Write a method's recipe and give its file."""
    file = WORK / f"{method}-{models[0].name}-{len(models) - 1}.yml"
    file.write_text(yaml.safe_dump(recipe(method, models[0], models[1:])))
    return file


def umaf_merge(file: Path, out: Path) -> Cost:
    """Cost of `umaf merge` with one worker."""
    return merge_cost([Path(sys.executable).with_name("umaf"), "merge", file, "--workers", "1"], out)


def merges(plan: Sequence[tuple[str, Size, int]]) -> list[dict]:
    """Run every method by both programs, and the floor, in turns; what is measured is kept, and not measured again.

    To measure anew, remove out/speed/merges.json.
    """
    kept = WORK / "merges.json"
    found: list[dict] = json.loads(kept.read_text()) if kept.exists() else []
    for method, size, number in plan:
        if sum((one["method"], one["parameters"]) == (method, size.parameters) for one in found) > number:
            continue
        models = write_models(size, EXPERTS, WORK)
        file = written(method, models)
        warm(models)
        pair: dict = {"method": method, "parameters": size.parameters}
        pair["umaf"] = vars(umaf_merge(file, WORK / "umaf"))
        pair["mergekit"] = vars(merge_cost([mergekit(), file], WORK / "mergekit"))
        if method == "linear":
            floor = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed_floor", *models]
            pair["floor"] = vars(merge_cost(floor, WORK / "floor"))
        if method == "ties":
            pair["error"] = ties_error(models, WORK / "umaf", WORK / "mergekit")
        found.append(pair)
        write_json(kept, found)
        print(json.dumps(pair), flush=True)
    return found


def growth(runs: int, sizes: Sequence[Size], counts: Sequence[int]) -> dict[str, list[dict]]:
    """Time TIES over sizes with two experts, over numbers of experts at the smallest size, and a plan alone.

    What is measured is kept; to measure anew, remove out/speed/growth.json.
    """
    kept = WORK / "growth.json"
    found: dict[str, list[dict]] = {"size": [], "experts": [], "start": []}
    found |= json.loads(kept.read_text()) if kept.exists() else {}
    points = [
        *(("experts", sizes[0], count, {"experts": count}) for count in counts),
        *(("size", size, 2, {"parameters": size.parameters}) for size in sizes),
    ]
    for part, size, count, point in points:
        for _ in range(runs - sum(point.items() <= one.items() for one in found[part])):
            models = write_models(size, count, WORK)
            warm(models)
            cost = umaf_merge(written("ties", models), WORK / "umaf")
            found[part].append({**point, **vars(cost)})
            write_json(kept, found)
            print(part, found[part][-1], flush=True)
    plan = written("ties", write_models(sizes[0], 2, WORK))
    while len(found["start"]) < runs:  # what a merge takes whatever it merges
        cost = cost_of([Path(sys.executable).with_name("umaf"), "merge", plan, "--dry-run"])
        found["start"].append(vars(cost))
    return found


def headline(numbers: dict) -> dict[str, Figure]:
    """Compute the figures from whatever has been measured."""
    pairs, figures = numbers.get("merges", []), {}
    for method in (*DENSE, *SORTED):
        aim = ">= 3" if method in DENSE else ">= 10"
        for size, name in ((LARGE, method), (SMALL, f"{method}.small")):
            own = [one for one in pairs if (one["method"], one["parameters"]) == (method, size.parameters)]
            for kind in ("wall", "cpu"):
                if own or size is LARGE:
                    ratios = [one["mergekit"][kind] / one["umaf"][kind] for one in own]
                    figures[f"ratio.{name}.{kind}"] = _figure(ratios, aim)
    large = [one for one in pairs if one["parameters"] == LARGE.parameters]
    weighed = [one for one in large if one["umaf"]["memory"]]
    ratios = [one["mergekit"]["memory"] / one["umaf"]["memory"] for one in weighed]
    figures["ratio.memory.peak"] = _figure(ratios, ">= 3")
    figures["memory.peak"] = _figure([one["umaf"]["memory"] for one in weighed], None)
    floors = [one for one in pairs if "floor" in one]
    for kind, name in (("cpu", "floor.linear"), ("wall", "floor.linear.wall")):
        figures[name] = _figure([one["umaf"][kind] / one["floor"][kind] for one in floors], "<= 2")
    errors = [one["error"] for one in pairs if "error" in one]
    for program, name in (
        ("umaf", ""),
        ("mergekit", ".mergekit"),
        ("rounding", ".rounding"),
        ("equal", ".equal"),
    ):
        rows = [one[program] for one in errors if program in one]
        figures[f"error.ties.float64{name}"] = _figure(rows, None)
    lora = numbers.get("lora", [])
    figures["ratio.lora_svd"] = _figure([one["peft"]["cpu"] / one["umaf"]["cpu"] for one in lora], ">= 50")
    figures["error.lora_svd"] = _figure([one["umaf"]["error"] for one in lora], None)
    figures["error.lora_svd.peft"] = _figure([one["peft"]["error"] for one in lora], None)
    for method, rows in numbers.get("spectral", {}).items():
        figures[f"ratio.{method}.cpu"] = _figure([one["plain"] / one["umaf"] for one in rows], ">= 5")
        figures[f"svds.{method}"] = _figure([one["umaf"] / one["svd"] for one in rows], None)
    return figures | _growth_figures(numbers.get("growth", {}))


def _growth_figures(rows: dict[str, list[dict]]) -> dict[str, Figure]:
    """Exponent of the time in size and in experts (1 is linear), and of memory in size (0 is constant).

    The first two also above the time that a plan alone takes: imports are most of what a small merge costs.
    """
    figures = {}
    start = statistics.median([one["cpu"] for one in rows.get("start", [])] or [0.0])
    for name, along, of, aim, less in (
        ("growth.size", "size", "cpu", 1, 0.0), ("growth.size.above_start", "size", "cpu", 1, start),
        ("growth.experts", "experts", "cpu", 1, 0.0), ("growth.experts.above_start", "experts", "cpu", 1, start),
        ("growth.memory", "size", "memory", 0, 0.0),
    ):  # fmt: skip
        key = "parameters" if along == "size" else "experts"
        points = rows.get(along, [])
        if len({one[key] for one in points}) > 1 and (less or not name.endswith("above_start")):
            figures[name] = Figure(
                round(_slope([one[key] for one in points], [one[of] - less for one in points]), 3),
                n=len(points),
                aim=aim,
            )
    return figures


def _slope(along: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of the power of `along` that `values` grow by, by least squares of logarithms."""
    across = [math.log(one) for one in along]
    middle = statistics.fmean(across)
    spread = sum((one - middle) ** 2 for one in across)
    rises = zip(across, values, strict=True)
    return sum((one - middle) * math.log(value) for one, value in rises) / spread


def _figure(values: Sequence[float], aim: str | None) -> Figure:
    if not values:
        return Figure(None, aim=aim)
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = [float(f"{one:.4g}") for one in (middle, low, high)]
    return Figure(digits[0], digits[1], digits[2], n=len(values), aim=aim)


def main() -> None:
    """Measure the asked parts, write a record, and show the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="pairs of each quick method, and of other parts")
    parser.add_argument(
        "--slow", type=int, default=1, help="pairs of each method that takes mergekit minutes"
    )
    parser.add_argument("--small", type=int, default=0, help="pairs of each of these on small checkpoints")
    parser.add_argument(
        "--sizes", type=int, default=len(GROWTH), help="how many sizes the growth is taken over"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only-summary", action="store_true", help="of what was measured last, part by part")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    # What pip does with a package that it installs, the peer for one.
    compileall.compile_dir(ROOT / "src" / "umaf", quiet=1)
    makers = {
        "merges": lambda: merges(rounds(asked.runs, asked.slow, asked.small)),
        "growth": lambda: growth(2, GROWTH[: asked.sizes], (2, 4, 8, 16)),
        "lora": lambda: lora_pairs(asked.runs),
        "spectral": lambda: spectral_pairs(asked.runs),
    }
    for part in PARTS:
        if part in asked.part and not asked.only_summary:
            write_json(WORK / f"{part}.json", makers[part]())
    files = {part: WORK / f"{part}.json" for part in PARTS}
    summarise(
        {part: json.loads(file.read_text()) for part, file in files.items() if file.exists()}, asked.runs
    )


def summarise(numbers: dict, runs: int) -> None:
    """Write record and summary, and print the figures."""
    figures = headline(numbers)
    config = {"peer": f"mergekit {PEER}", "experts": EXPERTS, "runs": runs, "parameters": LARGE.parameters}
    shown = {name: vars(figure) for name, figure in figures.items()}
    record = new_record("speed", config=config, numbers={"figures": shown, **numbers})
    HOME.mkdir(parents=True, exist_ok=True)
    write_record(HOME / f"{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.json", record)
    write_summary(HOME / "summary.json", figures)
    table = Table("figure", "value", "lowest", "highest", "n", "aim", title="merging: speed")
    for name, figure in figures.items():
        cells = ["" if one is None else f"{one:.3g}" for one in (figure.value, figure.low, figure.high)]
        table.add_row(name, *cells, str(figure.n), str("" if figure.aim is None else figure.aim))
    Console().print(table)


if __name__ == "__main__":
    main()
