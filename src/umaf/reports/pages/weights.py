"""Merged folders, adapters and differences: what was done to weights, and where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from umaf.deltas.difference import OUTSIDE, layer_and_kind
from umaf.errors import ConfigError
from umaf.reports.blocks import Block, Cell, Command, Gallery, Paragraph, Picture, Section, Table, Tile, Tiles
from umaf.reports.change_map import change_map
from umaf.reports.known import Found
from umaf.reports.layers import layer_bars
from umaf.reports.pages.parts import words_of

_MOST = 12


def merge(found: Found) -> list[Section]:
    """Tell how a merged folder was made."""
    data = found.data
    recipe, parents, tensors = data["recipe"], data["parents"], data["tensors"]
    rows = tensors.values() if isinstance(tensors, Mapping) else tensors
    rules = Counter(str(row.get("method")) for row in rows)
    tiles = Tiles(
        [
            Tile("Method", str(recipe.get("method"))),
            Tile("Parents", len(parents)),
            Tile("Tensors", len(tensors)),
            Tile("Seed", int(data.get("seed") or 0)),
        ]
    )
    parent_rows: list[list[Cell]] = [
        [
            str(row.get("model")),
            "yes" if row.get("donor") else None,
            row.get("licence"),
            str(row.get("identity") or "")[:34] or None,
        ]
        for row in parents
    ]
    by_rule: list[list[Cell]] = [[rule, count] for rule, count in rules.most_common()]
    blocks: list[Block] = [
        tiles,
        Table("Parents", ["model", "config and tokenizer of", "licence", "weights"], parent_rows),
        Table("Tensors by rule", ["rule", "tensors"], by_rule),
        *[Paragraph(f"Note: {note}") for note in data.get("notes") or []],
    ]
    text = yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)
    return [
        Section("What was merged", blocks),
        Section(
            "How to merge it again",
            [
                Command(text, note="The recipe: save it as recipe.yml."),
                Command(f"umaf merge recipe.yml {found.name} --seed {int(data.get('seed') or 0)}"),
                _versions(data),
            ],
        ),
    ]


def adapter(found: Found) -> list[Section]:
    """Tell where an adapter comes from, and how much it changes each layer."""
    data = found.data
    about: Mapping[str, Any] = data.get("provenance") or data
    rows: list[list[Cell]] = [
        [
            str(row.get("model")),
            row.get("base"),
            f"{row['weight']:g}" if isinstance(row.get("weight"), int | float) else None,
            row.get("cue"),
            ", ".join(row.get("labels") or []) or None,
            row.get("probe_count"),
        ]
        for row in about.get("sources") or []
        if isinstance(row, Mapping)
    ]
    target = data.get("target") or {}
    name = target.get("model", "its base") if isinstance(target, Mapping) else str(target)
    facts = words_of(about, ("route", "rank", "seed", "method", "extractor", "scaling", "fusion", "seconds"))
    blocks: list[Block] = []
    if rows:
        blocks.append(Table("Sources", ["model", "base", "share", "cue", "labels", "probes"], rows))
    if facts:
        blocks.append(Table("Settings", ["setting", "value"], facts))
    parts = [
        Section(f"An adapter for {name}", blocks or [Paragraph("Its card says no more than its target.")])
    ]
    changes = _norms(found)
    if changes:
        parts.append(_where(changes, "norm of the update", "Where the adapter changes the model"))
    load = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'target = AutoModelForCausalLM.from_pretrained("{name}")\n'
        f'model = PeftModel.from_pretrained(target, "{found.name}")'
    )
    parts.append(
        Section("How to load it", [Command(load, note="Nothing of umaf is needed."), _versions(about)])
    )
    return parts


def difference(found: Found) -> list[Section]:
    """Tell what changed between two checkpoints."""
    data = found.data
    total = data["total"]
    first, second = data.get("first", "the first"), data.get("second", "the second")
    tiles = Tiles(
        [
            Tile("Relative change", f"{_number(total['relative']):.3g}", "norm of the change / norm before"),
            Tile("Cosine", f"{_number(total['cosine']):.6f}"),
            Tile("Entries changed", f"{_number(total['changed']):.1%}"),
            Tile("Entries", int(total["entries"])),
        ]
    )
    most = sorted(data["tensors"], key=lambda row: -_number(row["relative"]))[:_MOST]
    rows: list[list[Cell]] = [
        [
            row["name"],
            f"{_number(row['relative']):.3g}",
            f"{_number(row['cosine']):.6f}",
            f"{_number(row['changed']):.1%}",
        ]
        for row in most
    ]
    changes = {row["name"]: _number(row["relative"]) for row in data["tensors"]}
    blocks: list[Block] = [
        tiles,
        Table("Most changed", ["tensor", "relative", "cosine", "entries changed"], rows),
        *[
            Paragraph(f"Only in {name}: {', '.join(data[key][:8])}.")
            for key, name in (("only_first", first), ("only_second", second))
            if data.get(key)
        ],
    ]
    parts = [Section(f"From {first} to {second}", blocks)]
    layers = {row["name"]: _number(row["relative"]) for row in data["layers"] if row["name"] != OUTSIDE}
    if layers:
        parts.append(_where(changes, "norm of the change / norm before", "Where it changed", layers))
    again = Section("How to do it again", [Command(f"umaf diff {first} {second} --json > diff.json")])
    return [*parts, again]


def _where(
    changes: Mapping[str, float], unit: str, title: str, layers: Mapping[str, float] | None = None
) -> Section:
    """A bar per layer and a map of layers by modules."""
    cells: dict[tuple[str, str], float] = {}
    sums: dict[str, float] = {}
    for name, value in changes.items():
        layer, kind = layer_and_kind(name)
        if layer != OUTSIDE:
            cells[layer, kind] = max(value, cells.get((layer, kind), 0.0))
            sums[layer] = sums.get(layer, 0.0) + value**2
    shown = layers or {layer: math.sqrt(value) for layer, value in sums.items()}
    if not cells:
        return Section(title, [Paragraph("No tensor lies in a numbered layer.")])
    bars = Picture(
        layer_bars(shown, axis=unit),
        caption="Each layer as a whole, the first above.",
        alt=f"Bars of the change of {len(shown)} layers.",
        name="layers",
    )
    drawn = Picture(
        change_map(cells, title="Layers by modules", unit=unit),
        caption="Brighter changed more.",
        alt="Map of the change by layer and module.",
        name="modules",
    )
    return Section(title, [Gallery([bars, drawn])])


def _norms(found: Found) -> dict[str, float]:
    """Give the norm of each module's update B A, from the factors' Gram matrices; empty where there are none."""
    file = found.path.parent / "adapter_model.safetensors"
    if not file.is_file():
        return {}
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as problem:
        raise ConfigError(
            f"The adapter {file} was asked for, but it cannot be read ({problem}); copy it again."
        ) from problem
    norms = {}
    for name, a in tensors.items():
        b = tensors.get(name.replace(".lora_A.", ".lora_B."))
        if ".lora_A." in name and b is not None and a.ndim == 2:
            a, b = a.double(), b.double()
            # |B A|^2 = trace of (B^T B)(A A^T): rank by rank, whatever the width.
            square = float(((b.T @ b) * (a @ a.T)).sum())
            norms[name.split(".lora_A.")[0].removeprefix("base_model.model.")] = math.sqrt(max(0.0, square))
    return norms


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.inf


def _plain(data: Any) -> Any:
    """Leave out what a recipe does not say."""
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items() if value not in (None, {}, [], ())}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_plain(value) for value in data]
    return data


def _versions(data: Mapping[str, Any]) -> Paragraph:
    known = data.get("versions") or {}
    text = ", ".join(f"{name} {version}" for name, version in known.items() if version)
    made = f"Made {data['made']} " if data.get("made") else "Made "
    return Paragraph(f"{made}with {text}." if text else "Its card names no versions.")
