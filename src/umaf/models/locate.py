"""Where a model's name leads: a zoo name, a folder, or an id on the hub; and what can be wrong there."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from safetensors import SafetensorError

from umaf.errors import ModelError, did_you_mean

ZOO = (
    Path(__file__).resolve().parents[3] / "zoo" / "models",  # a checkout
    Path(__file__).resolve().parents[1] / "zoo_models",  # an installed wheel
)


def zoo_names() -> list[str]:
    """Names of the models that ship with umaf.

    Example:
        >>> all("/" not in name for name in zoo_names())
        True
    """
    return sorted({path.parent.name for folder in ZOO for path in folder.glob("*/config.json")})


def locate(name: str | Path) -> str:
    """Turns what the user typed into a folder or a hub id, without opening anything.

    Args:
        name: ``zoo:<name>``, a folder, or a hub id such as ``org/model``.

    Returns:
        An existing folder's path, or the hub id unchanged.

    Raises:
        ModelError: the zoo has no such model, or the name is a path to nothing.

    Example:
        >>> locate("org/model")
        'org/model'
    """
    text = str(name)
    if text.startswith("zoo:"):
        short, names = text[4:], zoo_names()
        if short not in names:
            known = (
                f"it has {', '.join(names)}" if names else "it is empty here; build it with umaf zoo build"
            )
            raise ModelError(f'The zoo has no model "{short}"; {known}.{did_you_mean(short, names)}')
        return next(str(folder / short) for folder in ZOO if (folder / short / "config.json").is_file())
    folder = Path(text).expanduser()
    if folder.is_dir():
        return str(folder)
    looks_like_path = isinstance(name, Path) or text.startswith((".", "~", "/")) or text.count("/") > 1
    if folder.exists() or looks_like_path:
        raise ModelError(f'The model "{text}" was asked for, but there is no such folder; check the path.')
    return text


def adapter_base(place: str) -> str | None:
    """The base of an adapter folder; None when the place is not one.

    Args:
        place: what :func:`locate` gave.

    Returns:
        The base's folder or hub id as the adapter names it.

    Raises:
        ModelError: the adapter does not name its base.
    """
    config, own = Path(place) / "adapter_config.json", Path(place) / "config.json"
    if not config.is_file() or own.is_file():
        return None
    base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise ModelError(f'The adapter "{place}" does not name its base; pass the base as the model instead.')
    beside = Path(place) / base
    return str(beside) if beside.is_dir() else str(base)


def check_folder(place: str, *, allow_pickle: bool) -> None:
    """Looks at a local folder's files before anything is loaded; hub ids pass.

    Raises:
        ModelError: the configuration or the weights are missing, or the weights are pickles only.
    """
    folder = Path(place)
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        raise ModelError(f'The folder "{place}" has no config.json, so it is not a model; check the path.')
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if not pickles:
        raise ModelError(
            f'The model "{place}" has a config.json but no weights (*.safetensors); copy them there.'
        )
    if not allow_pickle:
        raise _pickle_only(place, pickles[0])


def _pickle_only(place: str, found: str) -> ModelError:
    return ModelError(
        f'The model "{place}" has only pickled weights ({found}), and a pickle can run code when it is read; '
        "convert it to safetensors, or pass --allow-pickle if you trust where it comes from."
    )


def explain(place: str, error: Exception) -> ModelError:
    """Says in one sentence why a model could not be opened.

    Args:
        place: the folder or hub id.
        error: what a library raised.

    Returns:
        The error to raise in its place.

    Example:
        >>> "corrupt" in str(explain("m", SafetensorError("header")))
        True
    """
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    first = " ".join(str(error).split())[:200].rstrip(".")
    if any(isinstance(link, SafetensorError) for link in chain):
        return ModelError(
            f'The weights of "{place}" are corrupt or cut short ({first}); download or copy them again.'
        )
    if any(isinstance(link, GatedRepoError) for link in chain) or "gated repo" in first:
        return ModelError(
            f'The model "{place}" is gated on the hub; accept its terms on its page and log in with `hf auth login`.'
        )
    if Path(place).is_dir():
        return ModelError(f'The model "{place}" could not be opened ({first}); check its files.')
    if (
        any(isinstance(link, RepositoryNotFoundError) for link in chain)
        or "not a valid model identifier" in first
    ):
        return ModelError(
            f'The model "{place}" is neither a folder here nor a model on the hub; check the spelling.'
        )
    if "safetensors" in first:
        return _pickle_only(place, first)
    offline = any(isinstance(link, (HfHubHTTPError, ConnectionError, FileNotFoundError)) for link in chain)
    if offline or "connect" in first or "offline" in first.lower():
        return ModelError(
            f'The model "{place}" is not a folder here and the hub cannot be reached; '
            "download it once with a connection, or pass a folder."
        )
    return ModelError(f'The model "{place}" could not be opened ({first}).')
