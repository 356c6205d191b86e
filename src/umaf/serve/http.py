"""HTTP below the routes: what is no HTTP, and who never finishes a request, as `uvicorn` sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from umaf.serve.faults import Fault
from umaf.serve.guard import Receive, Scope, Send, refuse

HEADERS = 64 * 1024
"""Bytes that a request's line and headers may have."""
PATIENCE = 20.0
"""Seconds in which a new connection has to send a request's line and headers."""


class Protocol(H11Protocol):
    """uvicorn's own protocol, with faults in OpenAI's form and an end to its patience."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # Beyond its limit uvicorn answers in plain text, so the limit is kept here.
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._served = self.app

    def handle_events(self) -> None:
        """Read what came; where too many connections are open, its requests are turned away."""
        full = self._most is not None and len(self.connections) > self._most
        self.app = crowded if full else self._served
        super().handle_events()

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._patience.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with JSON."""
        body = Fault(400, msg, "invalid_http").encoded()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _too_slow(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


async def crowded(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Turn a request away because too many connections are open."""
    await refuse(send, Fault(503, "Too many connections are open; try again later.", "busy"))
