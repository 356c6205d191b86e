"""Before a route sees a request: token, host, form and size, for every path alike."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from umaf.serve.faults import Fault
from umaf.serve.settings import ServeSettings, is_own

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def guarded(app: App, settings: ServeSettings) -> App:
    """Put the checks in front of an application.

    Without a token, the Host header has to name this machine: a page of another site can make a browser send requests
    to 127.0.0.1 under a name of its own, and is refused here. Bodies have to be JSON, which such a page cannot send
    without being asked first.

    Args:
        app: gets what passes, with the body read whole.
        settings: limits and token.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        try:
            headers = {key.lower(): value for key, value in scope["headers"]}
            _check(scope, headers, settings)
            body = await whole_body(headers, receive, limit=settings.max_body, seconds=settings.seconds)
        except Fault as fault:
            await refuse(send, fault)
            return
        await app(scope, replayed(body, receive), send)

    return checked


def replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already as if it came now, whole; then what comes after it."""
    given = False

    async def replay() -> Event:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _check(scope: Scope, headers: dict[bytes, bytes], settings: ServeSettings) -> None:
    if settings.token is not None:
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + settings.token.encode()):
            raise Fault(
                401,
                "The token is missing or wrong; send it as `Authorization: Bearer ...`.",
                "invalid_api_key",
            )
    else:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if not is_own(name):
            raise Fault(
                403, f"The host {host[:100]!r} is not this machine; use 127.0.0.1, or serve with a token."
            )
    if scope["method"] == "POST":
        kind = headers.get(b"content-type", b"").decode("latin-1").split(";")[0].strip().lower()
        if kind != "application/json":
            raise Fault(415, "The body has to be JSON; send `Content-Type: application/json`.")


async def whole_body(headers: dict[bytes, bytes], receive: Receive, *, limit: int, seconds: float) -> bytes:
    """Read a body, no larger and no slower than allowed.

    Args:
        headers: of the request, in lower case.
        receive: gives its pieces.
        limit: bytes.
        seconds: until it has to be whole.

    Raises:
        Fault: it is larger or slower, or its client left.
    """
    too_large = Fault(413, f"The request is larger than {limit} bytes; send a shorter one.")
    said = headers.get(b"content-length", b"0")
    if said.isdigit() and int(said) > limit:
        raise too_large
    try:
        return await asyncio.wait_for(_whole(receive, limit, too_large), seconds)
    except (TimeoutError, asyncio.TimeoutError):
        raise Fault(408, f"The request was not whole within {seconds:g} s; send it again.") from None


async def _whole(receive: Receive, limit: int, too_large: Fault) -> bytes:
    found = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Fault(408, "The client left before its request was whole.")
        found += event.get("body", b"")
        if len(found) > limit:
            raise too_large
        if not event.get("more_body", False):
            return bytes(found)


async def refuse(send: Send, fault: Fault) -> None:
    """Answer with a fault, and close the connection, since the rest of its request was not read."""
    body = fault.encoded()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in fault.headers().items()]
    await send(
        {
            "type": "http.response.start",
            "status": fault.status,
            "headers": [*headers, (b"connection", b"close")],
        }
    )
    await send({"type": "http.response.body", "body": body})
