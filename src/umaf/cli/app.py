"""The table of commands, and a group that imports a command only when it is run."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from umaf import __version__
from umaf.errors import ConfigError

# name: (module that holds a function or a Typer of that name, help); the help page keeps this order.
COMMANDS: dict[str, tuple[str, str]] = {
    "quickstart": ("umaf.cli.quickstart", "See a capability move between architectures, in three minutes."),
    "fingerprint": ("umaf.cli.fingerprint", "Turn a model's activations into a fingerprint."),
    "compare": ("umaf.cli.compare", "Print how similar models or fingerprints are."),
    "scale": ("umaf.cli.scale", "Scale a fingerprint to the size of another model."),
    "fuse": ("umaf.cli.fuse", "Fuse fingerprints of several capabilities into one."),
    "transfer": ("umaf.cli.transfer", "Move capabilities of source models into a LoRA for a target."),
    "train": ("umaf.cli.train", "Train the extractor, the interpolator, the gate, or a generator."),
    "evaluate": ("umaf.cli.evaluate", "Score a model, bare or with an adapter, on tasks."),
    "report": ("umaf.cli.report", "Make one page of records, drawings and how to do it again."),
    "index": ("umaf.cli.index", "Keep fingerprints of many models, and find models by what they do."),
    "monitor": ("umaf.cli.monitor", "Show the numbers of a running or finished job."),
    "adapt": ("umaf.cli.adapt", "Answer requests, each with the mixture of experts that it needs."),
    "chat": ("umaf.cli.chat", "Talk to a model that changes its experts with every message."),
    "serve": ("umaf.cli.serve", "Serve an adaptive model over HTTP, as OpenAI's clients speak it."),
    "web": ("umaf.cli.web", "Show a store and records on a page, and start jobs there."),
    "compress": ("umaf.cli.compress", "Pack experts of one base into a store that gives each of them back."),
    "restore": (
        "umaf.cli.restore",
        "Write an expert of a store, or a mixture of its experts, as a checkpoint.",
    ),
    "merge": ("umaf.cli.merge", "Merge checkpoints and adapters by a recipe."),
    "methods": ("umaf.cli.methods", "List the merge methods, or print what one does."),
    "card": ("umaf.cli.card", "Print the model card of a merge."),
    "diff": ("umaf.cli.diff", "Show what changed between two checkpoints, and where."),
    "extract-lora": ("umaf.cli.extract_lora", "Turn what an expert changed in its base into a LoRA."),
    "expert": (
        "umaf.cli.expert",
        "Train, list, show and export experts: tiny vectors that adapt a base.",
    ),
    "zoo": ("umaf.cli.zoo", "List or build the small models that ship with umaf, and their experts."),
    "doctor": ("umaf.cli.doctor", "Show versions, devices, and what is installed and found."),
}


class LazyGroup(TyperGroup):
    """A group whose help page needs no command's module."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Swap the stub that the help page shows for the command itself."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, (load(name) if name is not None and stub is not None else stub), rest


def load(name: str) -> Any:
    """Import a command: the function or the Typer group that its module holds under the command's name.

    Raises:
        ConfigError: this installation has no such command.
    """
    module, text = COMMANDS[name]
    if find_spec(module) is None:
        raise ConfigError(
            f"The command {name!r} was asked for, but this installation of umaf {__version__} does not have it; "
            "update umaf."
        )
    found = getattr(import_module(module), name.replace("-", "_"))
    if isinstance(found, typer.Typer):
        app = found
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(name)(found)
    loaded = get_command(app)
    loaded.name = name
    loaded.help = loaded.help or text
    return loaded


def command() -> Any:
    """Build the whole command line; imports no command."""
    app = typer.Typer(
        cls=LazyGroup,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(umaf)
    return get_command(app)


def umaf(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda asked: _version(asked), help="Show the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a mistake; goes anywhere.")
    ] = False,
) -> None:
    """Move capabilities between language models of different architecture, size and tokenizer."""


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit
