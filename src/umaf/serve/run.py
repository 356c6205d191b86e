"""Start the endpoint: in the foreground for the command, in a thread for a program or a test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from umaf.dispatch.adaptive import AdaptiveModel
from umaf.errors import ConfigError
from umaf.serve.settings import ServeSettings
from umaf.serve.worker import Worker


def serve(
    adaptive: AdaptiveModel, settings: ServeSettings, *, ready: Callable[[str], None] = lambda address: None
) -> None:
    """Serve until interrupted.

    Args:
        adaptive: what answers.
        settings: where, for whom, and how much.
        ready: called with the address once it is taken.

    Raises:
        ConfigError: the extra is not installed, or the address cannot be listened on.
    """
    with _server(adaptive, settings) as (server, taken):
        ready(address(settings, taken.getsockname()[1]))
        server.run(sockets=[taken])


@contextmanager
def served(adaptive: AdaptiveModel, settings: ServeSettings) -> Iterator[str]:
    """Serve in a thread while the block runs.

    Yields:
        The address for clients, such as "http://127.0.0.1:8321/v1".

    Raises:
        ConfigError: as `serve`.
    """
    with _server(adaptive, settings) as (server, taken), in_thread(server, taken):
        yield address(settings, taken.getsockname()[1])


def address(settings: ServeSettings, port: int) -> str:
    """Give the address that clients are pointed at.

    Example:
        >>> address(ServeSettings(host="::1"), 8321)
        'http://[::1]:8321/v1'
    """
    return f"{origin(settings.host, port)}/v1"


def origin(host: str, port: int) -> str:
    """Write host and port as the beginning of an address.

    Example:
        >>> origin("::1", 80)
        'http://[::1]:80'
    """
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def in_thread(server: Any, taken: socket.socket) -> Iterator[None]:
    """Let a server of uvicorn answer at a taken address while the block runs."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def bounded(app: Any, *, connections: int) -> Any:
    """Make a server of uvicorn that bounds headers and connections, and says so in OpenAI's form.

    Raises:
        ImportError: uvicorn is not installed.
    """
    uvicorn: Any = import_module("uvicorn")
    http: Any = import_module("umaf.serve.http")
    config = uvicorn.Config(
        app,
        http=http.Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=http.HEADERS,
        limit_concurrency=connections,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


@contextmanager
def _server(adaptive: AdaptiveModel, settings: ServeSettings) -> Iterator[tuple[Any, socket.socket]]:
    """Make the server, its socket and its worker, and end what it began."""
    try:
        import_module("uvicorn")
        make_app = import_module("umaf.serve.app").make_app
    except ImportError as problem:
        raise ConfigError(
            f'Serving was asked for, but {problem.name} is not installed; pip install "umaf[serve]".'
        ) from problem
    with listening(settings.host, settings.port) as taken:
        worker = Worker(adaptive, batch=settings.batch, waiting=settings.max_waiting)
        try:
            app = make_app(adaptive, settings, worker)
            yield bounded(app, connections=4 * settings.max_waiting + 64), taken
        finally:
            worker.close()


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Take an address while the block runs; port 0 takes a free one.

    Raises:
        ConfigError: it cannot be listened on.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as problem:
        found.close()
        raise ConfigError(
            f"The address {host}:{port} cannot be listened on ({problem.strerror or problem}); name "
            "another --host or --port."
        ) from problem
    with found:
        yield found
