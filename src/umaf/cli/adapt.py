"""`umaf adapt`: answer requests, each with the mixture of experts that it needs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
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
    from umaf.dispatch.adaptive import AdaptiveModel, Reply
    from umaf.dispatch.decode import Drawing


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
    reward: RewardOption = None,
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
    """Answer requests, each with the mixture it needs: many in one batch, a single one as it is written."""
    settings = settle(AdaptConfig, ctx)
    with stages(quiet=as_json) as say:
        asking = prepared(settings, say)
        replies = None if len(asking.texts) == 1 and not as_json else asking.answer(say)
    if as_json:
        rows = [{"request": text, **vars(one)} for text, one in zip(asking.texts, replies or (), strict=True)]
        print(json.dumps(rows, indent=2))
        return
    console = Console()
    for reply in [asking.write(_print)] if replies is None else replies:
        if replies is not None:
            console.print(escape(reply.text), highlight=False, soft_wrap=True)
        if settings.explain:
            seconds = f"first pass {reply.first_pass:.2f} s, second {reply.second_pass:.2f} s"
            console.print(f"  [dim]{escape(reply.why)}; {seconds}[/dim]", highlight=False, soft_wrap=True)


def _print(piece: str | None) -> None:
    print("" if piece is None else piece, end="\n" if piece is None else "", flush=True)


@dataclass(frozen=True)
class Asking:
    """What is asked, of whom, and how replies are drawn.

    Attributes:
        adaptive: answers.
        texts: the requests.
        drawings: one per request.
        cue: the word before the answer.
        wanted: experts by name, in place of the dispatcher.
    """

    adaptive: AdaptiveModel
    texts: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    cue: str | None
    wanted: dict[str, float] | None

    def answer(self, say: Callable[[str], None]) -> list[Reply]:
        """Answer all requests in one batch."""
        say(f"answer {len(self.texts)}")
        return self.adaptive.generate(
            self.texts, cue=self.cue, drawing=self.drawings, experts=self.wanted, told=say
        )

    def write(self, show: Callable[[str | None], None]) -> Reply:
        """Answer the one request, showing every piece as it is written, and None at the end."""
        from umaf.dispatch.adaptive import Reply
        from umaf.dispatch.chat import asked

        request, begun = asked(self.adaptive.shelf.model, self.texts[0], self.cue), time.perf_counter()
        decision = self.adaptive.decide([request], experts=self.wanted)
        decided, text, last = time.perf_counter(), "", None
        for last in self.adaptive.stream([request], decision, drawings=self.drawings):
            text += last.text
            if last.text:
                show(last.text)
        show(None)
        done, tokens = time.perf_counter(), 0 if last is None else last.tokens
        finish = (last.finish if last else None) or "stop"
        why = decision.explain(0)
        return Reply(text.strip(), decision.shares(0), why, tokens, finish, decided - begun, done - decided)


def prepared(settings: AdaptConfig, say: Callable[[str], None]) -> Asking:
    """Open the model and its shelf, and gather what is asked."""
    from umaf.dispatch.decode import Drawing

    texts = [*settings.requests, *(read_lines(settings.file) if settings.file else ())]
    if not texts:
        raise ConfigError("umaf adapt: nothing was asked; type requests, or name a --file of them.")
    by: Literal["none"] | str = "none" if settings.use else settings.by
    adaptive = open_adaptive(
        settings.model_copy(update={"by": by}), say, longest=min(settings.max_new_tokens, 16)
    )
    drawings = tuple(
        Drawing(settings.max_new_tokens, settings.temperature, settings.top_p, (), settings.seed + row)
        for row in range(len(texts))
    )
    wanted = weights_of(settings.use) if settings.use else None
    return Asking(adaptive, tuple(texts), drawings, settings.cue, wanted)
