"""`umaf web`: a page over a store of fingerprints and folders of records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from umaf.cli.merge import MergeConfig
from umaf.cli.options import ConfigOption, JsonOption, build, settle
from umaf.cli.token_file import read_token
from umaf.cli.transfer import TransferConfig
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.web.forms import Build
    from umaf.web.settings import WebSettings

TOKEN = "UMAF_WEB_TOKEN"


class WebConfig(BaseModel):
    """What `umaf web` does."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    store: str | None = None
    records: tuple[Path, ...] = ()
    out: Path = Path("web-jobs")
    host: str = "127.0.0.1"
    port: int = Field(default=8322, ge=0, le=65535)
    token: Path | None = None
    max_body: int = Field(default=1 << 20, ge=1024)
    max_waiting: int = Field(default=8, ge=1)


def web(
    ctx: typer.Context,
    store: Annotated[
        str | None, typer.Option(metavar="DIR", help="A store of umaf index: a folder or an address.")
    ] = None,
    records: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="A folder with records, searched through; give several."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where jobs started on the page write.")] = Path(
        "web-jobs"
    ),
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than this need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8322,
    token: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Holds the token; or set {TOKEN}.")
    ] = None,
    max_body: Annotated[int, typer.Option(min=1024, help="Largest request, in bytes.")] = 1 << 20,
    max_waiting: Annotated[int, typer.Option(min=1, help="Jobs that may wait.")] = 8,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show a store and records on a page, and start transfers and merges there, until interrupted."""
    settings = settings_of(settle(WebConfig, ctx))
    from umaf.web.run import serve

    console = Console()

    def ready(address: str) -> None:
        said = f'{{"address": "{address}"}}' if as_json else f"The page is at {address}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)

    serve(settings, builds(), ready=ready)


def builds() -> dict[str, Build]:
    """Give the commands that the page starts, each by the config that the command itself makes."""

    def of(name: str, kind: type[BaseModel]) -> Build:
        def made(values: Mapping[str, Any]) -> BaseModel:
            return build(kind, values, name=name)

        return made

    return {"transfer": of("transfer", TransferConfig), "merge": of("merge", MergeConfig)}


def settings_of(config: WebConfig) -> WebSettings:
    """Turn the command's options into the page's settings.

    Raises:
        ConfigError: the address needs a token, the token cannot be used, or a folder is not there.
    """
    from umaf.web.settings import WebSettings

    for folder in config.records:
        if not folder.expanduser().is_dir():
            raise ConfigError(f"The folder of records {folder} is not there; name one that is.")
    shared = config.model_dump(exclude={"token", "out"})
    try:
        return WebSettings(**shared, work=config.out, token=read_token(config.token, TOKEN))
    except ValidationError as problem:
        reason = problem.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"umaf web: {reason[:1].lower()}{reason[1:].rstrip('.')}.") from None
