"""Which models and files may be named on the page: nothing outside the folders it was started with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from umaf.errors import ConfigError
from umaf.models.locate import locate


class Places:
    """What a form may name.

    Args:
        roots: resolved folders.
        known: gives the places of the store's models, which its owner put there.
    """

    def __init__(self, roots: Sequence[Path], known: Callable[[], set[str]]) -> None:
        self._roots, self._known = tuple(roots), known

    def check_model(self, name: str) -> str:
        """Refuse a folder that lies elsewhere; hub ids, the zoo and the store's own models pass.

        Args:
            name: as a form names a model, "model+lora" included.

        Returns:
            The name.

        Raises:
            ConfigError: it leads to a folder that this page may not read.
            ModelError: it leads to nothing.

        Example:
            >>> Places([], set).check_model("org/model")
            'org/model'
            >>> Places([], set).check_model("/etc")
            Traceback (most recent call last):
            ...
            umaf.errors.ConfigError: The folder /etc lies outside the folders of this page; name a model of the store, \
a hub id, zoo:NAME, or a folder inside them.
        """
        for part in name.split("+"):
            self._check(part.strip())
        return name

    def _check(self, name: str) -> None:
        if not name:
            raise ConfigError("A model was asked for without a name; name one.")
        if name in self._known():
            return
        looks = name.startswith((".", "~", "/", "\\")) or ".." in name or Path(name).is_absolute()
        exists = Path(name).expanduser().exists() or Path(name.partition("@")[0]).expanduser().exists()
        if not looks and not exists:
            locate(name)  # a name that the zoo does not have is said at once
            return
        if not any(Path(name).expanduser().resolve().is_relative_to(root) for root in self._roots):
            raise ConfigError(
                f"The folder {name} lies outside the folders of this page; name a model of the store, a hub id, "
                "zoo:NAME, or a folder inside them."
            )
        locate(name)
