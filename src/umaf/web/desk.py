"""What the routes ask: the store, the records and the jobs of one page, opened and closed together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from umaf import __version__
from umaf.errors import ConfigError, UmafError
from umaf.extraction import SIMILARITIES
from umaf.index import Store, open_store, outputs_entry
from umaf.merging.registry import METHODS, method_of
from umaf.models.locate import zoo_names
from umaf.serve.faults import Fault
from umaf.web import models
from umaf.web.forms import Build, order
from umaf.web.jobs import OVER, Job, Jobs
from umaf.web.map import Map
from umaf.web.models import Filter, Search
from umaf.web.places import Places
from umaf.web.records import Records, run_of
from umaf.web.settings import WebSettings
from umaf.web.words import line_of
from umaf.web.writer import Writer
from umaf.web.zips import zipped


class Desk:
    """Everything behind a page.

    Args:
        settings: what is shown, and limits.
        builds: how the commands that can be started make their configs.

    Raises:
        StoreError: there is no such store.
    """

    def __init__(self, settings: WebSettings, builds: Mapping[str, Build]) -> None:
        self._settings, self._builds = settings, builds
        self._store = None if settings.store is None else open_store(settings.store)
        # The writer has its own: a table is not made for one thread's writes amid another's reads.
        self._writer = None if settings.store is None else Writer(open_store(settings.store))
        self._map = None if self._store is None else Map(self._store)
        self._methods: list[dict[str, Any]] | None = None
        self.records = Records(settings.roots)
        self.jobs = Jobs(settings.work.expanduser().resolve(), waiting=settings.max_waiting)
        self._places = Places(settings.roots, self._known)

    def close(self) -> None:
        """Write what waits, and end the running job."""
        self.jobs.close()
        if self._writer is not None:
            self._writer.close()

    @property
    def store(self) -> Store:
        """Give the store.

        Raises:
            Fault: the page was started without one.
        """
        if self._store is None:
            raise Fault(
                404, "This page has no store of fingerprints; start umaf web with --store.", "no_store"
            )
        return self._store

    def about(self) -> dict[str, Any]:
        """Say what there is, for the page to build its forms from."""
        from umaf.reports import theme

        if self._methods is None:
            self._methods = [_facts(name) for name in METHODS.names()]
        return {
            "version": __version__,
            "store": None
            if self._store is None
            else {"place": self._store.place, "entries": len(self._store)},
            "roots": [path.name or str(path) for path in self._settings.roots],
            "commands": list(self._builds),
            "metrics": SIMILARITIES.names(),
            "methods": self._methods,
            "zoo": [f"zoo:{name}" for name in zoo_names()],
            "palette": list(theme.PALETTE),
            "dark": theme.DARK,
        }

    def map(self, difference: bool | None) -> bytes:
        """Give the map as JSON; without a wish, of the kind of fingerprint that there is more of."""
        drawn = self._map or Map(self.store)
        if difference is not None:
            return drawn.drawn(difference=difference).text
        found = drawn.drawn(difference=True)
        return (found if found.whole >= found.other else drawn.drawn(difference=False)).text

    def models(self, asked: Filter, *, limit: int) -> dict[str, Any]:
        """List models, and what a filter can choose from."""
        rows = models.listed(self.store, asked, limit=limit)
        return {"models": rows, "values": models.known_values(rows), "entries": self.store.outline().count}

    def model(self, key: str) -> dict[str, Any]:
        """Give a card."""
        return models.card(models.entry_at(self.store, key))

    def search(self, asked: Search) -> dict[str, Any]:
        """Search."""
        return models.searched(self.store, asked)

    def compare(self, first: str, second: str) -> dict[str, Any]:
        """Compare two models."""
        return models.compared(self.store, first, second)

    def add(self, values: Any) -> dict[str, Any]:
        """Add a model that is known by its outputs on the store's probes.

        Raises:
            Fault: it is no such model.
            UmafError: the outputs do not fit, or the store cannot be written.
        """
        store = self.store
        try:
            name, outputs = str(values["name"])[:300], torch.tensor(values["outputs"], dtype=torch.float32)
            scores = {str(task): float(value) for task, value in values.get("scores", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise Fault(
                400,
                f'The model cannot be read ({str(problem)[:100]}); send {{"name": …, "outputs": [[…], …]}}, one row of '
                "scores for each probe of the store.",
            ) from None
        entry = outputs_entry(store.space, name, outputs, scores=scores)
        if self._writer is None:
            raise Fault(
                404, "This page has no store of fingerprints; start umaf web with --store.", "no_store"
            )
        self._writer.put(entry)
        return {"key": entry.key, "model": entry.model}

    def adapter(self, id: str) -> tuple[str, Iterator[bytes]]:
        """Give the folder of an adapter's record as a zip."""
        seen = self.records.get(id)
        if seen.kind != "adapter":
            raise Fault(404, f"{seen.name} is no adapter; only adapters are given as a zip.")
        return _plain(seen.name), zipped(seen.path.parent, most=self._settings.max_download)

    def preview(self, values: Any) -> dict[str, Any]:
        """Say which command a form stands for, or what is wrong with it."""
        command, form = _asked(values)
        try:
            # The folder of a job is made when it is started; on the page it has a name that says so.
            made = order(command, form, Path("JOB"), places=self._places, builds=self._builds)
        except UmafError as problem:
            return {"command": None, "files": {}, "error": " ".join(str(problem).split())}
        return {"command": line_of(made.words), "files": dict(made.files), "error": None}

    def start(self, values: Any) -> dict[str, Any]:
        """Let a job wait for its turn."""
        command, form = _asked(values)
        job = self.jobs.submit(
            lambda folder: order(command, form, folder, places=self._places, builds=self._builds)
        )
        return self._shown(job)

    def jobs_shown(self) -> list[dict[str, Any]]:
        """List jobs, and runs of other places beside them."""
        return [self._shown(job) for job in self.jobs.all()]

    def job(self, id: str) -> dict[str, Any]:
        """Give a job with its numbers and what it printed."""
        job = self.jobs.get(id)
        try:
            run = run_of(self.jobs.folder / job.id / "run")
        except ConfigError:
            run = None
        return {**self._shown(job), "log": self.jobs.log(id), "run": run}

    def cancel(self, id: str) -> dict[str, Any]:
        """End a job."""
        return self._shown(self.jobs.cancel(id))

    def result(self, id: str) -> tuple[str, Iterator[bytes]]:
        """Give what a job wrote as a zip."""
        job = self.jobs.get(id)
        if job.state != "done":
            raise Fault(
                404, f"The job {job.id} is {job.state}; there is something to download once it is done."
            )
        folder = self.jobs.folder / job.id / job.out
        return _plain(f"{job.command}-{job.id}"), zipped(folder, most=self._settings.max_download)

    def _shown(self, job: Job) -> dict[str, Any]:
        folder = str(self.jobs.folder)
        line = line_of(job.words).replace(folder, self.jobs.folder.name)
        found = {name: value for name, value in asdict(job).items() if name != "words"}
        return {**found, "line": line, "over": job.state in OVER}

    def _known(self) -> set[str]:
        if self._store is None:
            return set()
        return {row["place"] for row in self._store.rows(columns=["place"]) if row["place"]}


def _facts(name: str) -> dict[str, Any]:
    method = method_of(name)
    options = [
        {
            "name": one.name,
            "default": one.default if isinstance(one.default, bool | int | float | str) else None,
        }
        for one in method.options.values()
    ]
    return {"name": name, "summary": method.summary, "base": method.needs.base, "options": options}


def _asked(values: Any) -> tuple[str, Any]:
    if not isinstance(values, dict) or set(values) != {"command", "form"}:
        raise Fault(400, 'The body has to be {"command": …, "form": {…}}, and is not; send such a one.')
    return str(values["command"]), values["form"]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80] or "adapter"
