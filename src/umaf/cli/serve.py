"""`umaf serve`: an adaptive model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field, ValidationError
from rich.console import Console

from umaf.cli.adapting import (
    AdaptiveConfig,
    ByOption,
    CacheOption,
    ClassifierOption,
    CueOption,
    ExamplesOption,
    ExpertOption,
    IterationsOption,
    MixedOption,
    ModelArgument,
    PerOption,
    RewardOption,
    RunCodeOption,
    SearchOption,
    ShotsOption,
    open_adaptive,
)
from umaf.cli.opening import PickleOption, RemoteOption, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.cli.token_file import read_token
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.serve.settings import ServeSettings

TOKEN = "UMAF_SERVE_TOKEN"


class ServeConfig(AdaptiveConfig):
    """What `umaf serve` does."""

    name: str = "umaf"
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    token_file: Path | None = None
    max_new_tokens: int = Field(default=256, ge=1)
    max_body: int = Field(default=1 << 20, ge=1024)
    max_waiting: int = Field(default=64, ge=1)
    batch: int = Field(default=16, ge=1)
    seconds: float = Field(default=120.0, gt=0)


def serve(
    ctx: typer.Context,
    model: ModelArgument = None,
    expert: ExpertOption = None,
    by: ByOption = "prompt",
    examples: ExamplesOption = None,
    classifier: ClassifierOption = None,
    shots: ShotsOption = None,
    cue: CueOption = None,
    reward: RewardOption = None,
    run_code: RunCodeOption = False,
    per: PerOption = "model",
    search: SearchOption = "cross-entropy",
    iterations: IterationsOption = 50,
    mixed: MixedOption = False,
    name: Annotated[str, typer.Option(help="What the model is called in requests.")] = "umaf",
    host: Annotated[
        str, typer.Option(help="The address to listen on; others than this need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8321,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Holds the token; or set {TOKEN}.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 256,
    max_body: Annotated[int, typer.Option(min=1024, help="Largest request, in bytes.")] = 1 << 20,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Replies written at once.")] = 16,
    seconds: Annotated[float, typer.Option(help="How long a request may take.")] = 120.0,
    cache: CacheOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Serve an adaptive model over HTTP, as OpenAI's clients speak it, until interrupted."""
    settings = settle(ServeConfig, ctx)
    served = settings_of(settings)  # a missing token is said before a large model is opened
    with stages(quiet=as_json) as say:
        adaptive = open_adaptive(settings, say)
    from umaf.serve.run import serve as run

    console = Console()

    def ready(address: str) -> None:
        names = ", ".join(adaptive.shelf.names)
        said = (
            f'{{"address": "{address}"}}'
            if as_json
            else f"{address} answers as {settings.name}, with {names}"
        )
        console.print(said, markup=False, highlight=False, soft_wrap=True)

    run(adaptive, served, ready=ready)


def settings_of(config: ServeConfig) -> ServeSettings:
    """Turn the command's options into the server's settings.

    Raises:
        ConfigError: the address needs a token, or the token cannot be used.
    """
    from umaf.serve.settings import ServeSettings

    shared = {name: getattr(config, name) for name in ServeSettings.model_fields if hasattr(config, name)}
    try:
        return ServeSettings(**shared, token=read_token(config.token_file, TOKEN))
    except ValidationError as problem:
        reason = problem.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"umaf serve: {reason[:1].lower()}{reason[1:].rstrip('.')}.") from None
