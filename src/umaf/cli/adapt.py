"""`umaf adapt`: answer requests, each with the mixture of experts that it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape

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
    read_lines,
    weights_of,
)
from umaf.cli.opening import PickleOption, RemoteOption, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.dispatch.adaptive import Reply


class AdaptConfig(AdaptiveConfig):
    """What `umaf adapt` does."""

    requests: tuple[str, ...] = ()
    file: Path | None = None
    use: tuple[str, ...] = ()
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    explain: bool = False


def adapt(
    ctx: typer.Context,
    model: ModelArgument = None,
    requests: Annotated[list[str] | None, typer.Argument(help="What is asked.")] = None,
    expert: ExpertOption = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Requests, one a line, besides those typed.")
    ] = None,
    by: ByOption = "prompt",
    use: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=WEIGHT]", help="Experts for every request, in place of --by."),
    ] = None,
    examples: ExamplesOption = None,
    classifier: ClassifierOption = None,
    shots: ShotsOption = None,
    cue: CueOption = None,
    reward: RewardOption = "exact",
    run_code: RunCodeOption = False,
    per: PerOption = "model",
    search: SearchOption = "cross-entropy",
    iterations: IterationsOption = 50,
    mixed: MixedOption = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this share.")] = 1.0,
    explain: Annotated[bool, typer.Option("--explain", help="Say which experts replied, and why.")] = False,
    cache: CacheOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Answer requests, each with the mixture of experts that it needs; all of them in one batch."""
    settings = settle(AdaptConfig, ctx)
    with stages(quiet=as_json) as say:
        texts, replies = answer(settings, say)
    if as_json:
        print(
            json.dumps(
                [{"request": text, **vars(one)} for text, one in zip(texts, replies, strict=True)], indent=2
            )
        )
        return
    console = Console()
    for reply in replies:
        console.print(escape(reply.text), highlight=False, soft_wrap=True)
        if settings.explain:
            seconds = f"first pass {reply.first_pass:.2f} s, second {reply.second_pass:.2f} s"
            console.print(f"  [dim]{escape(reply.why)}; {seconds}[/dim]", highlight=False, soft_wrap=True)


def answer(settings: AdaptConfig, say) -> tuple[list[str], list[Reply]]:
    """Do what the command does, without printing."""
    from umaf.dispatch.decode import Drawing

    texts = [*settings.requests, *(read_lines(settings.file) if settings.file else ())]
    if not texts:
        raise ConfigError("umaf adapt: nothing was asked; type requests, or name a --file of them.")
    by: Literal["none"] | str = "none" if settings.use else settings.by
    adaptive = open_adaptive(
        settings.model_copy(update={"by": by}), say, longest=min(settings.max_new_tokens, 16)
    )
    say(f"answer {len(texts)}")
    drawings = [
        Drawing(settings.max_new_tokens, settings.temperature, settings.top_p, (), settings.seed + row)
        for row in range(len(texts))
    ]
    wanted = weights_of(settings.use) if settings.use else None
    replies = adaptive.generate(texts, cue=settings.cue, drawing=drawings, experts=wanted, told=say)
    return texts, replies
