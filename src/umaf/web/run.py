"""Start the page: in the foreground for the command, in a thread for a program or a test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from umaf.errors import ConfigError
from umaf.serve.run import bounded, in_thread, listening, origin
from umaf.web.forms import Build
from umaf.web.settings import WebSettings

CONNECTIONS = 512


def serve(
    settings: WebSettings,
    builds: Mapping[str, Build],
    *,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve the page until interrupted.

    Args:
        settings: where, for whom, and what.
        builds: how the commands that can be started make their configs.
        ready: called with the address once it is taken.

    Raises:
        ConfigError: an extra is not installed, or the address cannot be listened on.
        StoreError: there is no such store.
    """
    with _server(settings, builds) as (server, taken):
        ready(address(settings, taken.getsockname()[1]))
        server.run(sockets=[taken])


@contextmanager
def served(settings: WebSettings, builds: Mapping[str, Build]) -> Iterator[str]:
    """Serve the page in a thread while the block runs.

    Yields:
        Its address, such as "http://127.0.0.1:8322/".

    Raises:
        ConfigError: as `serve`.
    """
    with _server(settings, builds) as (server, taken), in_thread(server, taken):
        yield address(settings, taken.getsockname()[1])


def address(settings: WebSettings, port: int) -> str:
    """Give the address that a browser opens.

    Example:
        >>> address(WebSettings(host="::1"), 8322)
        'http://[::1]:8322/'
    """
    return f"{origin(settings.host, port)}/"


@contextmanager
def _server(settings: WebSettings, builds: Mapping[str, Build]) -> Iterator[tuple[Any, socket.socket]]:
    try:
        import_module("uvicorn")
        make_app = import_module("umaf.web.app").make_app
    except ImportError as problem:
        raise ConfigError(
            f"The page was asked for, but {problem.name} is not installed; "
            'pip install "umaf[serve,index,report]".'
        ) from problem
    with listening(settings.host, settings.port) as taken:
        app, desk = make_app(settings, builds)
        try:
            yield bounded(app, connections=CONNECTIONS), taken
        finally:
            desk.close()
