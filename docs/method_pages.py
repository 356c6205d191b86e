"""A page of the docs for every merge method, from its docstring and from what it needs."""

from __future__ import annotations

from mkdocs.structure.files import File

from umaf.merging.describe import models, page
from umaf.merging.registry import METHODS, method_of


def on_config(config):
    """Add the pages to the navigation."""
    pages = ["methods/index.md", *(f"methods/{name}.md" for name in METHODS.names())]
    config.nav.insert(-1, {"Merge methods": pages})
    return config


def on_files(files, config):
    """Write the pages."""
    listed = ["# Merge methods\n", "| method | in a line | models |", "|---|---|---|"]
    for name in METHODS.names():
        method = method_of(name)
        listed.append(f"| [{name}]({name}.md) | {method.summary} | {models(method)} |")
        files.append(File.generated(config, f"methods/{name}.md", content=page(method)))
    files.append(File.generated(config, "methods/index.md", content="\n".join(listed)))
    return files
