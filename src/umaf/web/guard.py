"""Before a route sees a request: who asks, from which page, and how much; after it, what a browser may do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from html import escape
from urllib.parse import parse_qs, urlsplit

from umaf.serve.faults import Fault
from umaf.serve.guard import App, Event, Receive, Scope, Send, refuse, replayed, whole_body
from umaf.serve.settings import is_own
from umaf.web.settings import WebSettings

COOKIE = "umaf"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Of every answer that does not bring a stricter one: nothing is loaded from anywhere else, and no page frames it."""
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
PAUSE = 0.3
"""Seconds that a wrong token costs."""


def guarded(app: App, settings: WebSettings) -> App:
    """Put the checks in front of an application.

    A page of another site can make a browser send requests here. Without a token the Host header has to name this
    machine, which ends DNS rebinding; with one, the cookie is sent for this site alone. Whatever changes something
    has to come from a page of this very address (Origin) and to be JSON, which no other page can send unasked.

    Args:
        app: gets what passes, with the body read whole.
        settings: limits and token.
    """
    # The cookie proves that the token was typed, and is worth nothing after a restart.
    key = secrets.token_bytes(32)
    proof = (
        "" if settings.token is None else hmac.new(key, settings.token.encode(), hashlib.sha256).hexdigest()
    )

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        send = _with_headers(send)
        try:
            check_origin(scope["method"], headers, own=settings.token is None)
            if settings.token is not None and scope["path"] == "/login":
                await _login(scope, headers, receive, send, settings=settings, proof=proof)
                return
            if settings.token is not None and not _known(headers, settings.token, proof):
                await _refused(scope, headers, send)
                return
            check_form(scope["method"], headers)
            body = await whole_body(headers, receive, limit=settings.max_body, seconds=settings.seconds)
        except Fault as fault:
            await refuse(send, fault)
            return
        await app(scope, replayed(body, receive), send)

    return checked


def check_origin(method: str, headers: dict[bytes, bytes], *, own: bool) -> None:
    """Refuse what a page of another site made a browser send.

    Args:
        method: of the request.
        headers: in lower case.
        own: whether only this machine's own names are served.

    Raises:
        Fault: another host, or another origin.

    Example:
        >>> check_origin("POST", {b"host": b"127.0.0.1:8322", b"origin": b"http://127.0.0.1:8322"}, own=True)
        >>> check_origin("GET", {b"host": b"evil.example"}, own=True)
        Traceback (most recent call last):
        ...
        umaf.serve.faults.Fault: The host 'evil.example' is not this machine; use 127.0.0.1, or give umaf web a token.
    """
    host = headers.get(b"host", b"").decode("latin-1")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if own and not is_own(name):
        raise Fault(
            403, f"The host {host[:100]!r} is not this machine; use 127.0.0.1, or give umaf web a token."
        )
    if method in ("GET", "HEAD"):
        return
    origin = headers.get(b"origin", b"").decode("latin-1")
    site = headers.get(b"sec-fetch-site", b"none").decode("latin-1")
    if (origin and urlsplit(origin).netloc != host) or site not in ("none", "same-origin"):
        raise Fault(403, f"The request came from {origin[:100] or 'another site'}; send it from this page.")


def check_form(method: str, headers: dict[bytes, bytes]) -> None:
    """Refuse what changes something and is no JSON.

    Raises:
        Fault: another method, or another kind of body.
    """
    if method in ("GET", "HEAD"):
        return
    kind = headers.get(b"content-type", b"").decode("latin-1").split(";")[0].strip().lower()
    if method == "POST" and kind != "application/json":
        raise Fault(415, "The body has to be JSON; send `Content-Type: application/json`.")


def _known(headers: dict[bytes, bytes], token: str, proof: str) -> bool:
    given = headers.get(b"authorization", b"")
    if given:
        return hmac.compare_digest(given, b"Bearer " + token.encode())
    cookies = (one.strip().partition(b"=") for one in headers.get(b"cookie", b"").split(b";"))
    return any(
        name == COOKIE.encode() and hmac.compare_digest(value, proof.encode()) for name, _, value in cookies
    )


async def _refused(scope: Scope, headers: dict[bytes, bytes], send: Send) -> None:
    """Ask people for the token, and tell programs how to send it."""
    if scope["path"] == "/" and b"text/html" in headers.get(b"accept", b""):
        await _page(send, 401, "")
        return
    if headers.get(b"authorization"):
        await asyncio.sleep(PAUSE)
    sentence = (
        "The token is missing or wrong; open the page and type it, or send it as `Authorization: Bearer ...`."
    )
    raise Fault(401, sentence, "invalid_token")


async def _login(
    scope: Scope,
    headers: dict[bytes, bytes],
    receive: Receive,
    send: Send,
    *,
    settings: WebSettings,
    proof: str,
) -> None:
    if scope["method"] != "POST":
        await _page(send, 200, "")
        return
    form = parse_qs(
        (await whole_body(headers, receive, limit=4096, seconds=settings.seconds)).decode("latin-1")
    )
    given = form.get("token", [""])[0]
    if not hmac.compare_digest(given.encode(), (settings.token or "").encode()):
        await asyncio.sleep(PAUSE)
        await _page(send, 401, "This is not the token; it is what umaf web was started with.")
        return
    cookie = f"{COOKIE}={proof}; Path=/; HttpOnly; SameSite=Strict"
    await _answer(send, 303, b"", (b"location", b"/"), (b"set-cookie", cookie.encode()))


async def _page(send: Send, status: int, said: str) -> None:
    note = f'<p role="alert">{escape(said)}</p>' if said else ""
    page = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>umaf</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<main><h1>umaf</h1>{note}<form method="post" action="/login"><label>Token '
        '<input type="password" name="token" autocomplete="current-password" autofocus required></label> '
        "<button>Open</button></form></main></html>"
    )
    await _answer(send, status, page.encode(), (b"content-type", b"text/html; charset=utf-8"))


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def sent(event: Event) -> None:
        if event["type"] == "http.response.start":
            given = [(name.lower(), value) for name, value in event.get("headers", [])]
            names = {name for name, _ in given}
            more = (
                [] if b"content-security-policy" in names else [(b"content-security-policy", POLICY.encode())]
            )
            if b"cache-control" not in names:
                more.append((b"cache-control", b"no-store"))
            event = {**event, "headers": [*given, *more, *ALWAYS]}
        await send(event)

    return sent
