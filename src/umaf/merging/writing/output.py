"""All of a merged folder besides its weights: config, tokenizer, chat template, generation config, card, manifest."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from umaf.errors import OutputError
from umaf.files import write_json, write_text
from umaf.merging.planning.jobs import Job, Plan
from umaf.merging.planning.tokenizer_file import FILE
from umaf.merging.planning.vocabulary import Alignment
from umaf.merging.recipes.written import written
from umaf.merging.writing.card import card_of
from umaf.merging.writing.chat_templates import TEMPLATES, check_template
from umaf.merging.writing.parents import parents_of

MANIFEST = "umaf.json"
TOKENIZER = (
    FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "target.spm",
)
"""Files of a tokenizer. Of a union only the first two go along: the others would still hold one model's tokens."""

BESIDE = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
"""Files that the donor of the config gives as they are."""

_TEMPLATE = "chat_template.jinja"
_TEXT = ("text_config", "llm_config", "language_config")  # of models that also see or hear


def complete(
    plan: Plan,
    draft: Path,
    *,
    alignment: Alignment | None,
    identities: Sequence[str],
    shards: Mapping[str, Any],
) -> None:
    """Write what belongs beside the weights.

    Args:
        plan: what was merged.
        draft: folder that holds the weights.
        alignment: the vocabulary, where it was made of several.
        identities: of the plan's models.
        shards: checksum of each file of weights.

    Raises:
        OutputError: a file cannot be written.
        ConfigError: the chat template that was asked for is none.
    """
    try:
        _write_config(plan, draft)
        donor = plan.models[plan.donor].checkpoint.folder
        leader = donor if alignment is None else plan.models[alignment.leader].checkpoint.folder
        _copy(donor, draft, BESIDE)
        _copy_code(donor, draft, "config.json")
        _copy_code(leader, draft, "tokenizer_config.json")
        _write_tokenizer(leader, draft, alignment)
        _write_template(plan, leader, draft)
    except OSError as problem:
        raise OutputError(f"{draft} cannot be completed ({problem}); make room there.") from problem
    manifest = manifest_of(plan, identities=identities, shards=shards)
    write_json(draft / MANIFEST, manifest)
    write_text(draft / "README.md", card_of(manifest))


def _write_config(plan: Plan, draft: Path) -> None:
    config = plan.models[plan.donor].checkpoint.config
    if config is not None:
        write_json(draft / "config.json", changed(config, plan.config))


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give a config with some keys changed, in the part of a model that reads text too where that has them.

    A key that only the text part has is changed there alone.

    Example:
        >>> changed({"text_config": {"vocab_size": 3}, "dtype": "float32"}, {"vocab_size": 4, "dtype": "bfloat16"})
        {'text_config': {'vocab_size': 4}, 'dtype': 'bfloat16'}
    """
    found = json.loads(json.dumps(config))
    for key, value in changes.items():
        inner = [one for part in _TEXT if isinstance(one := found.get(part), dict) and key in one]
        for place in (*inner, *([found] if key in found or not inner else [])):
            place[key] = value
    return found


def _copy(source: Path, draft: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            (draft / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, draft / name)


def _copy_code(source: Path, draft: Path, settings: str) -> None:
    """Copy the code that a model or a tokenizer brings, where its settings name it; it is never run here."""
    try:
        named = json.loads((source / settings).read_text(encoding="utf-8")).get("auto_map")
    except (OSError, ValueError, AttributeError):
        return
    # "org/model--file.Class" is code that stays where it is.
    if named and "--" not in json.dumps(named):
        _copy(
            source,
            draft,
            sorted(path.name for path in source.glob("*.py") if not (draft / path.name).exists()),
        )


def _write_tokenizer(leader: Path, draft: Path, alignment: Alignment | None) -> None:
    if alignment is None or not alignment.union:
        _copy(leader, draft, TOKENIZER)
        return
    _copy(leader, draft, TOKENIZER[1:3])
    text = json.dumps(alignment.vocabulary.data, ensure_ascii=False, indent=2)
    write_text(draft / FILE, text + "\n")


def _write_template(plan: Plan, leader: Path, draft: Path) -> None:
    asked = plan.recipe.chat_template
    if asked is None:
        _copy(leader, draft, (_TEMPLATE, "chat_template.json"))
        return
    template = _chosen(plan, asked)
    settings = draft / "tokenizer_config.json"
    if settings.is_file():
        data = json.loads(settings.read_text(encoding="utf-8"))
        data.pop("chat_template", None)
        write_json(settings, data)
    if template is not None:
        write_text(draft / _TEMPLATE, template)


def _chosen(plan: Plan, asked: str) -> str | None:
    if asked == "auto":
        # The template that most models have; of several, the one that comes first.
        found = [template_of(one.checkpoint.folder) for one in plan.models]
        present = [one for one in found if one]
        return max(present, key=present.count) if present else None
    if asked in TEMPLATES:
        return TEMPLATES[asked]
    check_template(asked)
    return asked


def template_of(folder: Path) -> str | None:
    """Read the chat template of a model's folder; None where it has none."""
    if (folder / _TEMPLATE).is_file():
        return (folder / _TEMPLATE).read_text(encoding="utf-8")
    try:
        data = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    template = data.get("chat_template")
    if isinstance(template, list):
        template = next((one.get("template") for one in template if one.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def manifest_of(plan: Plan, *, identities: Sequence[str], shards: Mapping[str, Any]) -> dict[str, Any]:
    """Say what was merged, of what, how, and by which versions.

    Args:
        plan: what was merged.
        identities: of the plan's models.
        shards: checksum of each file of weights.

    Returns:
        The content of umaf.json.
    """
    return {
        "kind": "merge",
        "recipe": written(plan.recipe),
        "parents": parents_of(plan, identities),
        "seed": plan.recipe.seed,
        "notes": list(plan.notes),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("umaf", "torch", "numpy", "safetensors")},
        },
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "shards": dict(shards),
        "tensors": {job.name: _entry(job) for job in plan.jobs},
    }


def _entry(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = {"method": job.method}
    if job.options:
        found["options"] = {key: list(v) if isinstance(v, tuple) else v for key, v in job.options.items()}
    if job.scale != 1.0:
        found["scale"] = job.scale
    if job.rows is not None:
        found["tokens"] = job.rows.count
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
