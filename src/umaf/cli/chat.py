"""`umaf chat`: talk to a model that changes its experts with every message."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

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
    weights_of,
)
from umaf.cli.opening import PickleOption, RemoteOption, stages
from umaf.cli.options import ConfigOption, DeviceOption, DtypeOption, JsonOption, SeedOption, settle
from umaf.errors import ProbeError, UmafError

if TYPE_CHECKING:
    from umaf.dispatch.adaptive import AdaptiveModel
    from umaf.dispatch.chat import Request

HELP = "/use NAME[=WEIGHT] ... fixes experts, /use alone lets the dispatcher choose, /forget starts anew, /end leaves"


class ChatConfig(AdaptiveConfig):
    """What `umaf chat` does."""

    system: str | None = None
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    explain: bool = False


def chat(
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
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="Said before the first message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
    explain: Annotated[bool, typer.Option("--explain", help="Say which experts reply, and why.")] = False,
    cache: CacheOption = None,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Talk to a model that changes its experts with every message; a line is a message, /help says more."""
    settings = settle(ChatConfig, ctx)
    with stages(quiet=as_json) as say:
        adaptive = open_adaptive(settings, say)
    talk = Talk(settings, adaptive)
    console = Console(stderr=True, quiet=as_json)
    prompted = console.is_terminal and sys.stdin.isatty()
    for line in _lines(console, prompted):
        if not line.strip():
            continue
        try:
            if line.startswith("/"):
                if not talk.command(line, console):
                    return
                continue
            talk.say(line, console, as_json=as_json)
        except UmafError as mistake:
            # A message that cannot be answered does not end the conversation.
            print(f"umaf: {' '.join(str(mistake).split())}", file=sys.stderr)


def _lines(console: Console, prompted: bool) -> Iterable[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are not UTF-8 are told as a mistake of their message, and do not end the conversation.
        sys.stdin.reconfigure(errors="surrogateescape")
    while True:
        if prompted:
            console.print("[bold]> [/bold]", end="")
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


class Talk:
    """A conversation: what was said, and which experts were asked for."""

    def __init__(self, settings: ChatConfig, adaptive: AdaptiveModel) -> None:
        self._settings, self._adaptive = settings, adaptive
        self._begin = [{"role": "system", "content": settings.system}] if settings.system else []
        self.messages: list[dict[str, str]] = list(self._begin)
        self.use: dict[str, float] | None = None
        self._turn = 0

    def command(self, line: str, console: Console) -> bool:
        """Do what a line that begins with a slash says; False ends the conversation."""
        word, *rest = line.split()
        if word == "/end":
            return False
        if word == "/forget":
            self.messages = list(self._begin)
        elif word == "/use":
            wanted = weights_of(tuple(rest)) if rest else None
            if wanted is not None:
                self._adaptive.decide([""], experts=wanted)  # a wrong name is said now
            self.use = wanted
        else:
            console.print(escape(HELP))
        return True

    def say(self, text: str, console: Console, *, as_json: bool) -> None:
        """Answer a message, writing the reply as it comes."""
        from umaf.dispatch.decode import Drawing

        asked = [*self.messages, {"role": "user", "content": text}]
        request, kept, dropped = self._fitting(asked)
        decision = self._adaptive.decide([request], experts=self.use)
        if dropped:
            console.print(f"[dim]{dropped} earlier messages no longer fit the window and are left out[/dim]")
        if self._settings.explain:
            console.print(f"[dim]{escape(decision.explain(0))}[/dim]", highlight=False, soft_wrap=True)
        self._turn += 1
        seed = self._settings.seed + self._turn
        stops = ("\n",) if request.lines else ()
        drawing = Drawing(self._settings.max_new_tokens, self._settings.temperature, 1.0, stops, seed)
        reply = ""
        for piece in self._adaptive.stream([request], decision, drawings=[drawing]):
            reply += piece.text
            if not as_json:
                print(piece.text, end="", flush=True)
        self.messages = [*kept, {"role": "assistant", "content": reply.strip()}]
        shown = {"reply": reply.strip(), "experts": decision.shares(0), "why": decision.explain(0)}
        print(json.dumps(shown) if as_json else "", flush=True)

    def _fitting(self, messages: list[dict[str, str]]) -> tuple[Request, list[dict[str, str]], int]:
        """Leave out the oldest messages that do not fit; the system's words and the last message stay."""
        from umaf.dispatch.chat import conversation
        from umaf.dispatch.decode import Drawing, sizes_of

        model, first, dropped = self._adaptive.shelf.model, len(self._begin), 0
        while True:
            request = conversation(model, messages, cue=self._settings.cue)
            try:
                sizes_of(model, [request.prompt], [Drawing(self._settings.max_new_tokens)])
                return request, messages, dropped
            except ProbeError:
                if len(messages) <= first + 1:
                    raise
                # A message and its reply leave together.
                step = min(2, len(messages) - first - 1)
                messages, dropped = [*messages[:first], *messages[first + step :]], dropped + step
