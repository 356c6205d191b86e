"""Other people's programs run from their files, and small models in the forms that they want."""

from __future__ import annotations

import ast
import contextlib
import io
import typing
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

State = dict[str, torch.Tensor]


def definitions(path: Path, *, stubs: dict[str, Any] | None = None) -> SimpleNamespace:
    """Run the functions and classes of a file, classes without bases that are not defined, and nothing else of it."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    own = {node.name for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            node.bases = [one for one in node.bases if isinstance(one, ast.Name) and one.id in own]
            node.decorator_list, node.keywords = [], []
            node.body = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.ClassDef)] or [
                ast.Pass()
            ]
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
            for one in (*node.args.args, *node.args.kwonlyargs):
                one.annotation = None
    ast.fix_missing_locations(tree)
    import copy
    from collections import defaultdict

    space: dict[str, Any] = {
        **vars(typing),
        "torch": torch,
        "nn": torch.nn,
        "tqdm": lambda one, **_: one,
        "OrderedDict": OrderedDict,
        "defaultdict": defaultdict,
        "copy": copy,
        "deepcopy": copy.deepcopy,
        **(stubs or {}),
    }
    exec(compile(tree, str(path), "exec"), space)
    return SimpleNamespace(**space)


@contextlib.contextmanager
def on_this_machine() -> Any:
    """Let `.cuda()` be where tensors are, and keep what programs print."""
    kept = torch.Tensor.cuda, torch.cuda.empty_cache, torch.cuda.memory_allocated
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.cuda.empty_cache = lambda: None
    torch.cuda.memory_allocated = lambda *_: 0
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.Tensor.cuda, torch.cuda.empty_cache, torch.cuda.memory_allocated = kept  # type: ignore[method-assign]


def flat(states: list[State]) -> torch.Tensor:
    """Put the tensors of each state one after another by name, `[state, entry]`."""
    return torch.stack([torch.cat([state[name].reshape(-1) for name in sorted(state)]) for state in states])


def unflat(row: torch.Tensor, like: State) -> State:
    """Cut a row into tensors."""
    parts = row.split([like[name].numel() for name in sorted(like)])
    return {name: part.reshape(like[name].shape) for name, part in zip(sorted(like), parts, strict=True)}


class Named:
    """What programs ask of a model: its parameters."""

    def __init__(self, state: State) -> None:
        self.state = state

    def named_parameters(self) -> Any:
        """Give names and tensors."""
        return list(self.state.items())

    def state_dict(self, **_: Any) -> Any:
        """Give them as a mapping."""
        return OrderedDict(self.state)

    def cpu(self) -> Named:
        """Stay here."""
        return self

    def load_state_dict(self, state: State) -> None:
        """Take other tensors."""
        self.state = dict(state)


def as_module(state: State) -> torch.nn.Module:
    """Make a module whose parameters have these names: linear layers, a table, and leaves with one vector."""
    root = torch.nn.Module()
    for name, one in state.items():
        *path, kind = name.split(".")
        place = root
        for part in path[:-1]:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        if not hasattr(place, path[-1]):
            if one.ndim == 1:
                leaf: torch.nn.Module = torch.nn.Module()
            elif "embed" in name:
                leaf = torch.nn.Embedding(*one.shape)
            else:
                leaf = torch.nn.Linear(one.shape[1], one.shape[0], bias=f"{'.'.join(path)}.bias" in state)
            place.add_module(path[-1], leaf)
        setattr(getattr(place, path[-1]), kind, torch.nn.Parameter(one.double()))
    return root


class Silent:
    def info(self, *_: object) -> None:
        """Say nothing."""
