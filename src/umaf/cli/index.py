"""`umaf index`: a store of fingerprints that can be searched, grouped and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from umaf.cli.index_search import (
    FingerprintOption,
    MetricOption,
    ModelOption,
    PerBaseOption,
    ReaderOption,
    TaskOption,
    by_capability,
    by_texts,
    check_fits,
    read_task,
)
from umaf.cli.index_tables import show_built, show_clusters, show_found, show_models
from umaf.cli.opening import PickleOption, RemoteOption
from umaf.cli.options import DeviceOption, DtypeOption, JsonOption, read_config
from umaf.errors import ConfigError

if TYPE_CHECKING:
    from umaf.index import Candidate, Space, Store

index = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Keep fingerprints of many models, and find models by what they do.",
)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="A folder, or an address such as s3://…")]
Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODELS...",
        help="Models, folders of models, .txt or .jsonl lists, or hub:QUERY.",
        show_default=False,
    ),
]
WhereOption = Annotated[
    str | None,
    typer.Option(metavar="SQL", help="On the card: \"architecture = 'llama' AND parameters < 2e6\"."),
]
BaseOption = Annotated[
    str | None, typer.Option(metavar="MODEL", help="The base of models that do not name theirs.")
]
EngineOption = Annotated[str, typer.Option(help="local, or ray for the workers of a Ray cluster.")]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many.")]
ProbesOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Probe texts of a new store; the default ones otherwise.")
]


@index.command("build")
def build(
    store: StoreArgument,
    models: Sources = None,
    probes: ProbesOption = None,
    extractor: Annotated[
        str | None, typer.Option(help="answers, pca or trained, or one of them with :PLACE.")
    ] = None,
    normalisation: Annotated[str | None, typer.Option(help="Of the activations.")] = None,
    base: BaseOption = None,
    engine: EngineOption = "local",
    limit: LimitOption = 100,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Make a store, or go on with one, and add a collection of models; those that are in it are left alone."""
    from umaf.index import Opening, collect, make_store

    candidates = collect(models or [], base=base, limit=limit)
    opened = make_store(store, _space(store, probes, extractor, normalisation))
    opening = Opening(device, dtype, trust_remote_code, allow_pickle)
    _add(opened, candidates, engine=engine, opening=opening, as_json=as_json)


@index.command("add")
def add(
    store: StoreArgument,
    models: Sources = None,
    base: BaseOption = None,
    outputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A model by its outputs alone: JSON {name, outputs, scores}."),
    ] = None,
    engine: EngineOption = "local",
    limit: LimitOption = 100,
    allow_pickle: PickleOption = False,
    trust_remote_code: RemoteOption = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "float32",
    as_json: JsonOption = False,
) -> None:
    """Add models to a store that is there, or a black box by what it answers to the store's probes."""
    from umaf.index import Built, Opening, collect, open_store

    if bool(models) == (outputs is not None):
        what = "both" if models else "neither"
        raise ConfigError(f"umaf index add takes models or --outputs, and got {what}; give one of them.")
    opened = open_store(store)
    if outputs is not None:
        name = _add_outputs(opened, outputs)
        _report(opened, Built(added=(name,)), as_json)
        return
    candidates = collect(models or [], base=base, limit=limit)
    opening = Opening(device, dtype, trust_remote_code, allow_pickle)
    _add(opened, candidates, engine=engine, opening=opening, as_json=as_json)


@index.command("search")
def search(
    store: StoreArgument,
    model: ModelOption = None,
    fingerprint: FingerprintOption = None,
    task: TaskOption = None,
    text: Annotated[list[str] | None, typer.Option(help="A text of the task; give several.")] = None,
    words: Annotated[str | None, typer.Option(help="In names and model cards.")] = None,
    base: BaseOption = None,
    where: WhereOption = None,
    metric: MetricOption = "cosine",
    per_base: PerBaseOption = False,
    route: Annotated[
        str | None,
        typer.Option(
            help="Of a task: words, answers, or expert (trains the reader); the best when not given."
        ),
    ] = None,
    tries: Annotated[
        int,
        typer.Option("--try", min=0, metavar="K", help="Of a task: run the first K models on its texts."),
    ] = 0,
    reader: ReaderOption = None,
    shots: Annotated[int, typer.Option(min=2, help="Texts of a task that is given by name.")] = 32,
    limit: LimitOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Find models: by a model, by a fingerprint, or by a handful of texts that show a task."""
    from umaf.index import Asked, open_store

    given = {"--model": model, "--fingerprint": fingerprint, "--task": task, "--text": text, "--words": words}
    named = [name for name, value in given.items() if value]
    if len(named) != 1:
        raise ConfigError(
            f"umaf index search needs one of {', '.join(given)}, and got {', '.join(named) or 'none'}; give one."
        )
    check_fits(
        named[0],
        base=base,
        metric=metric != "cosine",
        per_base=per_base,
        route=route,
        try_=tries,
        reader=reader,
    )
    opened, asked = open_store(store), Asked(where, limit, metric, per_base=per_base)
    if words:
        from umaf.index.words import by_words

        found = by_words(opened, words, asked)
    elif model or fingerprint:
        found = by_capability(opened, model, fingerprint, base, asked)
    else:
        query = read_task(task, text or [], shots)
        found = by_texts(opened, query, asked, route=route, reader=reader, tries=tries)
    if as_json:
        print(json.dumps(_plain(found), indent=2))
    else:
        show_found(found, Console())


@index.command("remove")
def remove(
    store: StoreArgument,
    models: Annotated[list[str] | None, typer.Argument(metavar="MODELS...", help="Names or keys.")] = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove models by name or key, or all that a condition names."""
    from umaf.errors import StoreError
    from umaf.index import open_store, stored

    if bool(models) == (where is not None):
        raise ConfigError(
            "umaf index remove takes models or --where, one of them; say what is to be removed."
        )
    opened = open_store(store)
    if where is not None:
        keys = [row["key"] for row in opened.rows(where, columns=["key"])]
    else:
        entries = {name: stored(opened, name) for name in models or []}
        missing = [name for name, entry in entries.items() if entry is None]
        if missing:
            raise StoreError(
                f"The store {store} holds no {', '.join(missing)}; `umaf index list {store}` shows what it holds."
            )
        keys = [entry.key for entry in entries.values() if entry is not None]
    count = opened.remove(keys)
    if as_json:
        print(json.dumps({"removed": count, "entries": len(opened)}, indent=2))
    else:
        print(f"{count} removed, {len(opened)} left")


@index.command("list")
def list_models(
    store: StoreArgument, where: WhereOption = None, limit: LimitOption = 1000, as_json: JsonOption = False
) -> None:
    """List the models of a store."""
    from umaf.index import open_store

    opened = open_store(store)
    rows = sorted(opened.rows(where, limit=limit), key=lambda row: (row["model"], row["key"]))
    rows = [{**row, "scores": json.loads(row["scores"] or "{}")} for row in rows]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        show_models(rows, len(opened), Console())


@index.command("cluster")
def cluster(
    store: StoreArgument,
    where: WhereOption = None,
    most: Annotated[int, typer.Option(min=1, help="Most clusters that are tried.")] = 32,
    same: Annotated[float, typer.Option(min=0.5, max=1.0, help="Cosine of near-duplicates.")] = 0.995,
    as_json: JsonOption = False,
) -> None:
    """Group models without choosing how many groups; name likely bases and near-duplicates."""
    from umaf.index import clusters, likely_bases, near_duplicates, open_store

    opened = open_store(store)
    keys, vectors = opened.vectors(where)
    found = clusters(vectors, most=most)
    names = {row["key"]: row for row in opened.rows(columns=["key", "model", "base", "architecture"])}
    members = [
        {**names[key], "cluster": label} for key, label in sorted(zip(keys, found.labels, strict=True))
    ]
    pairs, hints = near_duplicates(opened, threshold=same, where=where), likely_bases(opened)
    if as_json:
        data = {"members": members, "pairs": pairs, "hints": hints}
        facts = {"count": found.count, "silhouette": found.silhouette, "tried": list(found.tried)}
        print(json.dumps({**facts, **_plain(data)}, indent=2))
    else:
        show_clusters(found, members, pairs, hints, console=Console())


@index.command("export")
def export(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .jsonl or .safetensors file, or a folder.")],
    where: WhereOption = None,
    probes: Annotated[
        bool, typer.Option("--probes", help="Write the store's probe texts (.jsonl) instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write fingerprints and cards to files, or the probes that a black box has to answer."""
    from umaf.files import refuse_existing, write_text
    from umaf.index import export as write
    from umaf.index import open_store

    opened = open_store(store)
    if probes:
        refuse_existing(out)
        lines = [json.dumps({"text": text}) for text in opened.space.texts]
        write_text(out, "\n".join(lines) + "\n")
        count = len(lines)
    else:
        count = write(opened, out, where=where)
    if as_json:
        print(json.dumps({"written": count, "file": str(out)}, indent=2))
    else:
        Console().print(f"{count} written to {escape(str(out))}", soft_wrap=True, highlight=False)


@index.command("verify")
def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Read everything in a store and check it; exits with 1 where something is wrong."""
    from umaf.index import open_store
    from umaf.index import verify as check

    found = check(open_store(store))
    if as_json:
        print(json.dumps({"entries": found.entries, "faults": list(found.faults)}, indent=2))
    else:
        for fault in found.faults:
            Console().print(escape(fault), soft_wrap=True, highlight=False)
        print(f"{found.entries} entries, {len(found.faults)} faults")
    raise typer.Exit(1 if found.faults else 0)


def _space(place: str, probes: Path | None, extractor: str | None, normalisation: str | None) -> Space:
    """Give the store's own settings where there is one, else those of a new one."""
    from umaf.activations import read_probes
    from umaf.errors import StoreError
    from umaf.index import make_space, open_store

    texts = None if probes is None else read_probes(probes).texts
    try:
        kept = open_store(place).space
    except StoreError:
        return make_space(texts, extractor=extractor or "answers", normalisation=normalisation or "centred")
    return make_space(
        kept.texts if texts is None else texts,
        extractor=extractor or kept.asked,
        normalisation=normalisation or kept.normalisation,
    )


def _add(store: Store, candidates: list[Candidate], *, as_json: bool, **how: Any) -> None:
    from umaf.index import add, arrange

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
        bar = progress.add_task("fingerprint", total=len(candidates))

        def done(name: str) -> None:
            progress.update(bar, advance=1, description=escape(name))

        found = add(store, candidates, done=done, **how)
    if found.added:
        arrange(store)
    _report(store, found, as_json)
    if found.failed:
        raise typer.Exit(1)


def _report(store: Store, found: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**_plain(found), "entries": len(store)}, indent=2))
    else:
        show_built(found, len(store), Console())


def _add_outputs(store: Store, file: Path) -> str:
    import torch

    from umaf.index import add_outputs

    content = read_config(file)
    try:
        name, outputs = str(content["name"]), torch.tensor(content["outputs"], dtype=torch.float32)
        scores = {str(task): float(value) for task, value in content.get("scores", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ConfigError(
            f'The outputs in {file} cannot be read ({problem}); write {{"name": …, "outputs": [[…], …]}}, one row of '
            "scores for each probe of the store."
        ) from problem
    return add_outputs(store, name, outputs, scores=scores).model


def _plain(found: Any) -> Any:
    from dataclasses import asdict, is_dataclass

    if is_dataclass(found) and not isinstance(found, type):
        return _plain(asdict(found))
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    return [_plain(one) for one in found] if isinstance(found, list | tuple) else found
