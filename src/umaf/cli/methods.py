"""`umaf methods`: the merge methods, and what each does to which tensors."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from umaf.cli.options import JsonOption

if TYPE_CHECKING:
    from umaf.merging.contract import Method


def methods(
    name: Annotated[str | None, typer.Argument(help="A method; all when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the merge methods, or print what one of them does."""
    from umaf.merging import describe
    from umaf.merging.registry import METHODS, method_of

    if name is not None:
        method = method_of(name)
        if as_json:
            print(json.dumps(facts(method), indent=2))
        else:
            Console().print(Markdown(describe.page(method)))
        return
    found = [facts(method_of(one)) for one in METHODS.names()]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table("method", "models", "what it does", title="`umaf methods NAME` tells more of one")
    for one in found:
        table.add_row(one["name"], _models(one), escape(one["summary"]))
    Console().print(table)


def facts(method: Method) -> dict[str, Any]:
    """Describe a method as JSON holds it."""
    from umaf.merging import describe

    needs = method.needs
    return {
        "name": method.name,
        "summary": method.summary,
        "source": method.source,
        "models": list(needs.models),
        "base": needs.base,
        "scope": needs.scope,
        "measures": needs.measure if method.measure is not None else None,
        "tensors": describe.reach(method),
        "matrices": needs.matrices,
        "otherwise": needs.otherwise if needs.matrices else None,
        "order_matters": needs.order_matters,
        "random": needs.random,
        "equivariant": needs.equivariant,
        "breaks": dict(needs.breaks),
        "options": {
            option.name: {
                "kind": option.kind,
                "default": option.default,
                "required": option.required,
                "per_model": option.per_model,
                "range": str(option.span) if option.span else None,
                "choices": list(option.choices),
            }
            for option in method.options.values()
        },
        "text": inspect.getdoc(method.function),
    }


def _models(one: dict[str, Any]) -> str:
    fewest, most = one["models"]
    many = f"{fewest}" if fewest == most else f"{fewest} to {most}" if most else f"{fewest} or more"
    return many + {"required": " and a base", "optional": ", base or not", "none": ""}[one["base"]]
