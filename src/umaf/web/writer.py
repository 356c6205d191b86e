"""The one thread that writes to the store: entries that wait together become one commit."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from contextlib import suppress

from umaf.errors import UmafError
from umaf.index import Entry, Store
from umaf.serve.faults import Fault

BATCH, WAITING, SECONDS = 256, 1024, 60.0
TIDY = 50
"""Commits after which small pieces are joined."""


class Writer:
    """Writes entries in the order they come; whoever waits is answered once theirs is in the store.

    Commits of many processes take turns, and each costs as much as reading a whole search; a hundred clients that
    write at once share a few of them.

    Args:
        store: opened for this thread alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: queue.Queue[tuple[Entry, Future[None]] | None] = queue.Queue(maxsize=WAITING)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="umaf web writer")
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Write one entry, and return when it is committed.

        Raises:
            Fault: too many wait, or the server is closing.
            StoreError: the store cannot be written.
        """
        if self._closed.is_set():
            raise Fault(503, "The server is closing; nothing was written.", "closing")
        done: Future[None] = Future()
        try:
            self._waiting.put_nowait((entry, done))
        except queue.Full:
            raise Fault(503, "Too many writes wait; nothing was written, try again later.", "busy") from None
        try:
            done.result(timeout=SECONDS)
        except TimeoutError:
            raise Fault(
                504, "The store did not take the entry in time; look whether it is there.", "timeout"
            ) from None

    def close(self) -> None:
        """Write what waits, and end."""
        self._closed.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(timeout=SECONDS)

    def _work(self) -> None:
        commits = 0
        while True:
            taken = [self._waiting.get()]
            while len(taken) < BATCH:
                try:
                    taken.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            work = [one for one in taken if one is not None]
            self._write(work)
            commits += 1
            if commits % TIDY == 0:
                with suppress(UmafError):
                    self._store.tidy()
            if self._closed.is_set() and self._waiting.empty():
                return

    def _write(self, work: list[tuple[Entry, Future[None]]]) -> None:
        try:
            self._store.put([entry for entry, _ in work])
        except Exception as problem:  # whoever waits hears of it; the thread goes on
            for _, done in work:
                done.set_exception(problem)
            return
        for _, done in work:
            done.set_result(None)
