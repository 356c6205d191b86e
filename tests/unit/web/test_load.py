"""The load benchmark sees what goes wrong."""

from __future__ import annotations

import asyncio

from benchmarks.index import figures
from benchmarks.web_load import Told, drive, fill, lost, numbers
from umaf.cli.web import builds
from umaf.index import open_store
from umaf.web.run import served
from umaf.web.settings import WebSettings


def test_a_few_clients_get_what_they_ask_for_and_a_lost_write_is_seen(tmp_path):
    fill(tmp_path / "store", 20)
    with served(
        WebSettings(store=str(tmp_path / "store"), work=tmp_path / "jobs", port=0), builds()
    ) as address:
        told = asyncio.run(drive(address, clients=6, seconds=1.5))
    assert not told.errors and told.written and len(told.seconds) >= 4
    store = open_store(tmp_path / "store")
    assert lost(store, told.written) == []
    removed = next(iter(told.written))
    store.remove([removed])
    assert lost(store, told.written) == [told.written[removed]]


def test_errors_are_counted_and_become_figures():
    told = Told(seconds={"map": [0.1, 0.3]}, written={"a": "b"})
    told.errors["map: ReadTimeout"] += 2
    found = {**numbers(told, 2.0), "lost": 1}
    assert found["requests"] == 4 and found["errors"] == 2 and found["per_second"] == 1.0
    made = figures({"web": found})
    assert made["web.errors"].value == 2 and made["web.errors"].aim == "0"
    assert made["web.lost_writes"].value == 1


def test_a_server_that_is_not_there_is_an_error(tmp_path):
    told = Told()

    async def ask():
        import httpx

        from benchmarks.web_load import _client

        async with httpx.AsyncClient(base_url="http://127.0.0.1:9", timeout=1) as http:
            import time

            await _client(http, 0, ["a", "b"], time.monotonic() + 0.05, told)

    asyncio.run(ask())
    assert told.errors.total() > 0 and not told.written
