"""The model card of a merge: what it was made of and how, and under which licences its parents stand."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from umaf.errors import CheckpointError
from umaf.files import sha256_file

LORAS = "merge of LoRAs"
"""What the record of a merged LoRA says that it is."""

_HUB = re.compile(r"^[\w.-]+/[\w.-]+$")


def licence_of(folder: str | Path) -> str | None:
    """Read the licence a model's card names; None where it names none.

    Example:
        >>> licence_of("no/such/folder")
    """
    try:
        text = (Path(folder) / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if head is None:
        return None
    try:
        data = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return None
    if not isinstance(data, dict):
        return None
    name = data.get("license")
    if isinstance(name, list):
        name = ", ".join(map(str, name))
    if name == "other" and data.get("license_name"):
        name = f"other ({data['license_name']})"
    return str(name) if name else None


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read umaf.json of a merged folder.

    Raises:
        CheckpointError: there is none, or it is of something else.
    """
    path = Path(folder) / "umaf.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{path} cannot be read ({problem}); name a folder that umaf merge made."
        ) from problem
    if not isinstance(data, dict) or not (data.get("kind") == "merge" or _of_loras(data)):
        raise CheckpointError(f"{path} is not of a merge; name a folder that umaf merge made.")
    return data


def _of_loras(manifest: Mapping[str, Any]) -> bool:
    return manifest.get("made") == LORAS


def verify(folder: str | Path) -> int:
    """Check every file of weights of a merged folder against the checksum in its manifest.

    Args:
        folder: that umaf merge made.

    Returns:
        How many files were checked.

    Raises:
        CheckpointError: a file is missing or has changed, or there are no checksums.
    """
    shards = read_manifest(folder).get("shards")
    if shards is None:
        raise CheckpointError(
            f"{folder} was merged by a version of umaf that wrote no checksums of LoRAs; make the merge again."
        )
    for name, checksum in shards.items():
        path = Path(folder) / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; make the merge again, or copy it again.")
        if sha256_file(path) != checksum:
            raise CheckpointError(
                f"{path} has changed since it was made; make the merge again, or copy it again."
            )
    return len(shards)


def card_of(manifest: Mapping[str, Any]) -> str:
    """Write the model card.

    Args:
        manifest: content of umaf.json.

    Returns:
        README.md: its head says what the hub reads, its body what people read.
    """
    if _of_loras(manifest):
        from umaf.deltas.write import page  # it imports torch, which other cards do without

        about = lora_card(manifest) if "recipe" in manifest else ""
        return page(manifest["base"], len(manifest["modules"]), about)
    recipe, parents = manifest["recipe"], manifest["parents"]
    method = recipe["method"]
    head = yaml.safe_dump(_head(parents), sort_keys=False, allow_unicode=True).strip()
    written = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    rows = [
        f"| {_code(one['model'])} | {one['licence'] or 'not stated'} | "
        f"{'config, tokenizer' if one.get('donor') else ''} |"
        for one in _with_adapters(parents)
    ]
    counts = Counter(one["method"] for one in manifest["tensors"].values())
    rules = ", ".join(f"{name} ({count})" for name, count in counts.most_common())
    text = [
        f"---\n{head}\n---",
        "# A merge of language models",
        f"Merged by the method `{method}` with umaf {manifest['versions'].get('umaf') or ''}.".replace(
            " .", "."
        ),
        "## Parents\n\n| model | licence | also gives |\n|---|---|---|\n" + "\n".join(rows),
        _licences(parents),
        f"## Recipe\n\n```yaml\n{written}```",
        f"Tensors by rule: {rules}. Seed {manifest['seed']}. `umaf.json` has the rule and options of each tensor, the "
        "hashes of the parents, and a checksum of each file.",
    ]
    if manifest["notes"]:
        text.append("## Notes\n\n" + "\n".join(f"- {note}" for note in manifest["notes"]))
    return "\n\n".join(part for part in text if part) + "\n"


def lora_card(record: Mapping[str, Any]) -> str:
    """Write what the card of a merged LoRA says of its parents and its recipe.

    Args:
        record: "parents", each with model and licence, and "recipe".

    Example:
        >>> one = {"model": "org/a", "licence": "mit"}
        >>> lora_card({"parents": [one], "recipe": {"method": "linear"}}).splitlines()[4]
        '| `org/a` | mit |'
    """
    parents = record["parents"]
    rows = [f"| {_code(one['model'])} | {one['licence'] or 'not stated'} |" for one in parents]
    recipe = yaml.safe_dump(record["recipe"], sort_keys=False, allow_unicode=True)
    text = [
        "## Parents\n\n| adapter | licence |\n|---|---|\n" + "\n".join(rows),
        _licences(parents),
        f"## Recipe\n\n```yaml\n{recipe}```",
    ]
    return "\n\n".join(part for part in text if part) + "\n"


def _with_adapters(parents: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give every parent, and behind them the adapters that were put on them, each once."""
    added = {one["model"]: one for parent in parents for one in parent.get("adapters", ())}
    return [*parents, *added.values()]


def _head(parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    hub = [one["model"].split("@")[0].split("+")[0] for one in parents]
    known = [name for name in dict.fromkeys(hub) if _HUB.match(name) and not Path(name).exists()]
    head: dict[str, Any] = {"library_name": "transformers", "tags": ["merge", "umaf"]}
    if known:
        head["base_model"] = known
    licences = {one["licence"] for one in _with_adapters(parents)}
    if len(licences) == 1 and None not in licences:
        (only,) = licences
        head["license"] = "other" if only.startswith("other") else only
    return head


def _licences(parents: Sequence[Mapping[str, Any]]) -> str:
    licences = {one["licence"] for one in _with_adapters(parents)}
    if None in licences:
        return "The licence of a parent is not known here: find out before you pass the result on."
    if len(licences) > 1:
        return "The parents stand under different licences; the result must keep to all of them."
    return ""


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"
