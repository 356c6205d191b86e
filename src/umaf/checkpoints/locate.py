"""Where a checkpoint's name leads: to files that are there, or to a hub."""

from __future__ import annotations

from pathlib import Path

from umaf.errors import CheckpointError, ModelError

# Code that a model brings is passed on with it, and never run here.
_WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py", "README.md", "LICENSE*"]
_PICKLES = ["pytorch_model*.bin"]
# Other forms of the same weights, which many repositories hold beside those that are asked for.
_UNWANTED = ["*/*", "consolidated*", "*.fp16*", "*.fp32*", "*.bf16*"]


def locate(name: str, *, allow_pickle: bool = False, revision: str | None = None) -> Path:
    """Find a checkpoint's folder or file; for a hub id, fetch it.

    Args:
        name: "zoo:NAME", a path, or a hub id.
        allow_pickle: fetch .bin files where there is nothing else.
        revision: branch, tag or commit of a hub id.

    Raises:
        CheckpointError: nothing is there, or the hub does not give it.
    """
    if name.startswith("zoo:"):
        # Imported late: it brings transformers, which no other checkpoint needs.
        from umaf.models.locate import locate as in_zoo

        try:
            return Path(in_zoo(name))
        except ModelError as problem:
            raise CheckpointError(str(problem)) from problem
    place = Path(name).expanduser()
    if place.exists():
        return place
    if (
        name.startswith((".", "~", "/"))
        or name.count("/") != 1
        or name.endswith((".safetensors", ".bin", ".pt"))
    ):
        raise CheckpointError(
            f"The model {name} was asked for, but there is no such folder or file; check the path."
        )
    if place.parent.is_dir():
        # A mistyped path must not be told to a hub.
        raise CheckpointError(
            f"The model {name} was asked for, and the folder {place.parent} has no {place.name}; check the path, or "
            f"fetch a model of that name with `hf download {name}` and name the folder it gives."
        )
    found = _fetch(name, _WANTED, revision)
    if allow_pickle and not any(found.glob("*.safetensors")):
        found = _fetch(name, _WANTED + _PICKLES, revision)
    return found


def _fetch(name: str, wanted: list[str], revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED)
        )
    except GatedRepoError as problem:
        raise CheckpointError(
            f"{name} is gated; ask for access on its page, and log in with `hf auth login`."
        ) from problem
    except RevisionNotFoundError as problem:
        raise CheckpointError(
            f"{name} has no revision {revision!r}; check its branches and tags."
        ) from problem
    except RepositoryNotFoundError as problem:
        raise CheckpointError(
            f"{name} is no folder here and no model on the hub; check its name."
        ) from problem
    except (OSError, ValueError) as problem:
        raise CheckpointError(
            f"{name} is no folder here, and the hub cannot be asked for it ({type(problem).__name__}); check the path, "
            "or the connection."
        ) from problem
