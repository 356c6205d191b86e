"""What a merge method does, in words and tables: for its page in the docs and for `umaf methods NAME`."""

from __future__ import annotations

import inspect
import re

from umaf.merging.contract import Method, Option

_OTHERS = {
    "mean": "get base plus the weighted mean of the deltas",
    "sum": "get base plus the weighted sum of the deltas",
    "base": "stay as they are in the base",
}
_PROMISES = {
    "zero": "deltas of 0 give 0",
    "single": "one model with weight 1 gives its delta",
    "same": "copies of one expert give that expert",
}


def reach(method: Method) -> str:
    """Say which tensors a method merges, and what becomes of the others.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> reach(method_of("iso_c"))
        'Matrices of linear layers; embeddings, heads, norms and biases get base plus the weighted mean of the deltas.'
    """
    if not method.needs.matrices:
        return "Every tensor, embeddings, heads, norms and biases too."
    as_well = ", scaled as the matrices are" if method.others is not None else ""
    return f"Matrices of linear layers; embeddings, heads, norms and biases {_OTHERS[method.needs.otherwise]}{as_well}."


def cost(method: Method) -> str:
    """Say what running a method takes.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> cost(method_of("iso_c"))
        'One whole tensor per model at a time.'
    """
    if method.needs.scope == "tensor":
        return "One whole tensor per model at a time."
    if method.measure is None:
        return "One pass over the weights, a block of entries at a time."
    over = {"tensor": "each tensor", "model": "the whole model"}.get(method.needs.measure)
    first = over or f"each tensor or the whole model (`{method.needs.measure}` says which)"
    return f"Passes that measure {first}, then one that merges, a block of entries at a time."


def models(method: Method) -> str:
    """Say how many models a method takes, and whether it needs their base.

    Example:
        >>> from umaf.merging.registry import method_of
        >>> models(method_of("iso_c"))
        'At least 1, and their base.'
    """
    fewest, most = method.needs.models
    many = f"{fewest}" if most == fewest else f"At least {fewest}" if most is None else f"{fewest} to {most}"
    base = {
        "required": ", and their base",
        "none": "; no base",
        "optional": "; with a base their deltas are merged, without one their weights",
    }
    order = " Their order matters." if method.needs.order_matters else ""
    return f"{many}{base[method.needs.base]}.{order}"


def values(option: Option) -> str:
    """Say which values an option takes.

    Example:
        >>> values(Option("trim", "choice", "model", choices=("model", "tensor")))
        'model, tensor'
    """
    if option.kind == "choice":
        return ", ".join(option.choices)
    kind = {"number": "number", "integer": "whole number", "flag": "true, false"}[option.kind]
    inside = f"{kind} in {option.span}" if option.span else kind
    return f"{inside}, one for all models or one each" if option.per_model else inside


def promises(method: Method) -> list[str]:
    """List the promises of every method that this one does not keep, each with its reason."""
    return [f"{_PROMISES.get(name, name)}: {reason}" for name, reason in method.needs.breaks.items()]


def page(method: Method) -> str:
    """Write a method's page in Markdown."""
    words = inspect.getdoc(method.function) or ""
    body, arguments, example = _sections(words)
    facts = [
        f"- **Models:** {models(method)}",
        f"- **Tensors:** {reach(method)}",
        f"- **Cost:** {cost(method)}",
        f"- **Source:** {method.source}",
    ]
    if method.needs.random:
        facts.append("- **Random:** the same seed gives the same bits, whatever the number of workers.")
    if method.needs.equivariant:
        facts.append("- **LoRAs:** merged exactly in the space that their factors span.")
    facts += [f"- **Not kept:** {text}." for text in promises(method)]
    rows = ["| option | default | values | meaning |", "|---|---|---|---|"]
    for name, option in method.options.items():
        default = "must be given" if option.required else f"`{str(option.default).lower()}`"
        rows.append(f"| `{name}` | {default} | {values(option)} | {arguments.get(name, '')} |")
    if method.needs.base != "none":
        rows.append(
            "| `scale` | `1.0` | number | multiplies the merged delta (`lambda` in mergekit's recipes) |"
        )
    recipe = _recipe(method)
    shown = f"\n## From Python\n\n```python\n{example}\n```\n" if example else ""
    return (
        f"# {method.name}\n\n{body}\n\n" + "\n".join(facts) + "\n\n## Options\n\n" + "\n".join(rows)
        + f"\n\n## A recipe\n\n```yaml\n{recipe}\n```\n{shown}"
    )  # fmt: skip


def _recipe(method: Method) -> str:
    fewest, most = method.needs.models
    count = max(fewest, min(2, most or 2))
    lines = ["umaf: 1", f"method: {method.name}"]
    if method.needs.base == "required":
        lines.append("base: org/base")
    lines += ["models:", *(f"  - org/expert-{number + 1}" for number in range(count))]
    chosen = {name: one for name, one in method.options.items() if name != "weight"}
    settings = [f"  {name}: {_yaml(one)}" for name, one in chosen.items() if one.default is not None]
    return "\n".join(lines + (["options:", *settings] if settings else []))


def _yaml(option: Option) -> str:
    return str(option.default).lower() if option.kind == "flag" else str(option.default)


def _sections(words: str) -> tuple[str, dict[str, str], str]:
    """Split a docstring into its prose (with the source at its end), the meaning of each argument, and the example."""
    parts = re.split(r"^(Args|Returns|Raises|Example|Source):", words, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    arguments: dict[str, str] = {}
    name = ""
    for line in found.get("Args", "").splitlines():
        if begins := re.match(r" {4}(\w+): (.*)", line):
            name = begins[1]
            arguments[name] = begins[2]
        elif name and line.strip():
            arguments[name] += f" {line.strip()}"
    arguments = {name: text.replace("|", "\\|") for name, text in arguments.items()}
    source = f"\n\n{found['Source'].strip()}" if "Source" in found else ""
    example = inspect.cleandoc(found.get("Example", "").strip("\n"))
    return parts[0].strip() + source, arguments, example
