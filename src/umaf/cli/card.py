"""`umaf card`: the model card of a merged folder, written from what its manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def card(
    folder: Annotated[Path, typer.Argument(help="A folder that umaf merge made.")],
    write: Annotated[bool, typer.Option("--write", help="Replace the folder's README.md by it.")] = False,
    check: Annotated[
        bool, typer.Option("--verify", help="Check the weights against their checksums instead.")
    ] = False,
) -> None:
    """Print the model card of a merge: its parents, their licences, and the recipe."""
    from umaf.files import write_text
    from umaf.merging.writing.card import card_of, read_manifest, verify

    if check:
        count = verify(folder)
        print(f"{count} file{'s' * (count != 1)} as made.")
        return
    text = card_of(read_manifest(folder))
    if write:
        write_text(folder / "README.md", text)
    else:
        print(text, end="")
