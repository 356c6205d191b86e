"""What `umaf adapt`, `umaf chat` and `umaf serve` share: their options, and the adaptive model made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import Field

from umaf.cli.opening import ModelConfig, opener
from umaf.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from umaf.dispatch.adaptive import AdaptiveModel
    from umaf.dispatch.dispatchers import Material
    from umaf.dispatch.shelf import Shelved
    from umaf.experts.expert import Expert
    from umaf.tasks.task import Example

ModelArgument = Annotated[str | None, typer.Argument(help="The base: a hub id, a folder, or zoo:NAME.")]
ExpertOption = Annotated[
    list[str] | None,
    typer.Option(metavar="DIR", help="An expert's folder, or a LoRA's from PEFT; once for each."),
]
ByOption = Annotated[
    str, typer.Option(metavar="NAME", help="Who chooses: prompt, classifier, probe, few-shot, or none.")
]
ExamplesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE", help="Texts for an expert, or for other, one a line (probe, classifier, prompt)."
    ),
]
ClassifierOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="An expert that sorts requests; trained from --examples if missing."),
]
ShotsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Examples with answers, JSON lines of text and answer (few-shot)."),
]
CueOption = Annotated[
    str | None, typer.Option(metavar="WORD", help="The word before a reply, for models of tasks.")
]
RewardOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Search for answers that this judges well, not for what makes the shots' answers likely.",
    ),
]
RunCodeOption = Annotated[
    bool, typer.Option("--run-code", help="Allow the reward code to run what the model writes.")
]
PerOption = Annotated[
    Literal["model", "layer"], typer.Option(help="One weight per expert, or one per layer (few-shot).")
]
SearchOption = Annotated[
    Literal["cross-entropy", "cma"], typer.Option(help="How weights are searched for (few-shot).")
]
IterationsOption = Annotated[int, typer.Option(min=1, help="Iterations of that search.")]
MixedOption = Annotated[
    bool, typer.Option("--mixed", help="Weigh experts by their share of belief, not the likeliest alone.")
]
CacheOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keeps the base's singular directions, which take long to find."),
]


class AdaptiveConfig(ModelConfig):
    """The options of every command that answers with experts."""

    model: str
    expert: tuple[str, ...] = Field(min_length=1)
    by: str = "prompt"
    examples: tuple[str, ...] = ()
    classifier: Path | None = None
    shots: Path | None = None
    cue: str | None = None
    reward: str | None = None
    run_code: bool = False
    per: Literal["model", "layer"] = "model"
    search: Literal["cross-entropy", "cma"] = "cross-entropy"
    iterations: int = Field(default=50, ge=1)
    mixed: bool = False
    cache: Path | None = None


def open_adaptive(
    settings: AdaptiveConfig, say: Callable[[str], None], *, longest: int = 16
) -> AdaptiveModel:
    """Open the base with its shelf, and make the dispatcher.

    Args:
        settings: the command's.
        say: called with a few words when a stage begins.
        longest: tokens of an answer to a shot.
    """
    from umaf.dispatch.adaptive import AdaptiveModel, shelf_from
    from umaf.dispatch.dispatchers import DISPATCHERS, make_dispatcher

    if settings.by != "none":
        DISPATCHERS.get(settings.by)  # a wrong name is said before a large model is opened
    say(f"open {settings.model}")
    model = opener(settings)(settings.model)
    say("singular directions")
    shelf = shelf_from(model, settings.expert, cache=settings.cache)
    if settings.by == "none":
        return AdaptiveModel(shelf)
    material = _material(settings, shelf, say, longest)
    say(f"dispatch by {settings.by}")
    return AdaptiveModel(shelf, make_dispatcher(settings.by, shelf, material))


def _material(settings: AdaptiveConfig, shelf: Shelved, say: Callable[[str], None], longest: int) -> Material:
    from umaf.dispatch.decision import OTHER
    from umaf.dispatch.dispatchers import Material
    from umaf.search import Cma, CrossEntropy

    examples = {name: read_lines(path) for name, path in map(named_file, settings.examples)}
    odd = [name for name in examples if name not in (*shelf.names, OTHER)]
    if odd:
        raise ConfigError(
            f'--examples was given texts for "{odd[0]}", but the shelf has {", ".join(shelf.names)}; {OTHER} is for '
            f"texts of none of them.{did_you_mean(odd[0], (*shelf.names, OTHER))}"
        )
    cross = CrossEntropy(iterations=settings.iterations, seed=settings.seed)
    cma = Cma(iterations=settings.iterations, seed=settings.seed)
    return Material(
        examples=examples,
        classifier=_classifier(settings, shelf, examples, say) if settings.by == "classifier" else None,
        shots=() if settings.shots is None else read_shots(settings.shots),
        cue=settings.cue,
        fitness="likelihood" if settings.reward is None else "reward",
        reward=settings.reward or "exact",
        run_code=settings.run_code,
        max_new_tokens=longest,
        per=settings.per,
        search=cma if settings.search == "cma" else cross,
        mixed=settings.mixed,
        said=lambda done, of: say(f"search, {done} of {of}") if done % 10 == 0 else None,
    )


def _classifier(
    settings: AdaptiveConfig, shelf: Shelved, examples: dict[str, tuple[str, ...]], say: Callable[[str], None]
) -> Expert | None:
    from umaf.dispatch.classifier import train_classifier
    from umaf.experts.expert import load_expert

    if settings.classifier is None:
        return None
    if not settings.classifier.exists() and examples:
        say(f"train {settings.classifier}")
        train_classifier(shelf, examples, settings.classifier, tell=lambda _: None)
    return load_expert(settings.classifier)


def named_file(text: str) -> tuple[str, Path]:
    """Read NAME=FILE.

    Example:
        >>> named_file("sums=sums.txt")[0]
        'sums'
    """
    name, sign, path = text.partition("=")
    if not sign or not name or not path:
        raise ConfigError(f"--examples was given {text!r}; write NAME=FILE, such as sums=sums.txt.")
    return name, Path(path)


def read_lines(path: Path) -> tuple[str, ...]:
    """Read the lines of a file that are not empty."""
    return tuple(line for line in _read(path).splitlines() if line.strip())


def read_shots(path: Path) -> tuple[Example, ...]:
    """Read examples from JSON lines with `text`, `answer` and, for code, `tests`.

    Raises:
        ConfigError: the file cannot be read, or a line is something else.
    """
    from umaf.tasks.task import Example

    found = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            shot = Example(str(one["text"]), str(one["answer"]), tuple(map(str, one.get("tests", ()))))
            "".join((shot.text, shot.answer, *shot.tests)).encode()  # JSON can write half a character
            found.append(shot)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ConfigError(
                f'Line {number} of {path} is no shot; write {{"text": "...", "answer": "..."}} on every line.'
            ) from problem
    return tuple(found)


def weights_of(texts: tuple[str, ...]) -> dict[str, float]:
    """Read --use: NAME for the expert alone, NAME=WEIGHT for a part of a mixture.

    Example:
        >>> weights_of(("sums", "lists=0.5"))
        {'sums': 1.0, 'lists': 0.5}
    """
    found = {}
    for text in texts:
        name, sign, weight = text.partition("=")
        try:
            found[name] = float(weight) if sign else 1.0
        except ValueError as problem:
            raise ConfigError(
                f"--use was given {text!r}; write NAME or NAME=WEIGHT, such as sums=0.5."
            ) from problem
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read ({reason}); name a text file.") from problem
