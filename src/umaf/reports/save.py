"""Figures to files, and into a page."""

from __future__ import annotations

import io
import re
import secrets
import warnings
from pathlib import Path

from matplotlib.figure import Figure

from umaf.errors import OutputError
from umaf.files import write_text
from umaf.reports.theme import BLUE, DARK, INK, LINE, MUTED, SURFACE, theme

NAMES = {INK: "--ink", MUTED: "--muted", LINE: "--line", SURFACE: "--surface", BLUE: "--blue"}
"""The page's CSS variable for each colour that dark mode changes."""


def save_figure(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG (200 dots per inch) and as SVG that follows the reader's dark mode.

    Args:
        figure: what to write.
        folder: where; made if it is not there.
        name: the files' name, without an ending.

    Returns:
        The two paths, PNG first.

    Raises:
        OutputError: the folder cannot be made or written to.

    Example:
        >>> import tempfile
        >>> png, svg = save_figure(Figure(), tempfile.mkdtemp(), "empty")
        >>> svg.name
        'empty.svg'
    """
    png, svg = Path(folder) / f"{name}.png", Path(folder) / f"{name}.svg"
    picture = _draw(figure, "png")
    # Text first: it makes the folder.
    write_text(svg, _with_dark_mode(_draw(figure, "svg").decode("utf-8")))
    part = png.with_name(f".{png.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(picture)
        part.replace(png)
    except OSError as problem:
        raise OutputError(
            f"The figure {png} cannot be written ({problem.strerror}); name a place you may write to."
        ) from problem
    finally:
        part.unlink(missing_ok=True)
    return png, svg


def inline_svg(figure: Figure, *, prefix: str) -> str:
    """Draw a figure as an SVG element for a page, in the page's own colours.

    Ink, lines and surface become the page's CSS variables, so that the drawing follows its dark
    mode; ids get a prefix, so that several drawings live on one page.

    Args:
        figure: what to draw.
        prefix: different for each figure of a page.

    Returns:
        An `<svg>` element, without its XML header; text in it is escaped.

    Example:
        >>> inline_svg(Figure(), prefix="a")[:4]
        '<svg'
    """
    drawing = _draw(figure, "svg").decode("utf-8")
    drawing = drawing[drawing.index("<svg") :].rstrip()
    drawing = re.sub(r"<metadata>.*?</metadata>\s*", "", drawing, count=1, flags=re.DOTALL)
    # The first path is the figure's own background; the page has one already.
    drawing = re.sub(r'<g id="patch_1">.*?</g>\s*', "", drawing, count=1, flags=re.DOTALL)
    drawing = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', drawing)
    drawing = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", drawing)
    # Names of namespaces look like addresses; in HTML they are not needed.
    drawing = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", drawing).replace("xlink:href=", "href=")
    for colour, variable in NAMES.items():
        drawing = drawing.replace(colour, f"var({variable})")
    return drawing.replace("'DejaVu Sans'", "inherit").replace("DejaVu Sans", "inherit")


def _draw(figure: Figure, kind: str) -> bytes:
    """Render; no date goes into the file, so that the same figure gives the same bytes."""
    page = io.BytesIO()
    with theme(), warnings.catch_warnings():
        # A name in a script the font lacks is drawn as boxes in the PNG; the SVG keeps its text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(page, format=kind, dpi=200, facecolor=SURFACE, metadata=metadata)
    return page.getvalue()


def _with_dark_mode(drawing: str) -> str:
    """Add a style that viewers with CSS apply in dark mode; the others show the light drawing."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    head = drawing.index(">", drawing.index("<svg")) + 1
    return drawing[:head] + style + drawing[head:]
