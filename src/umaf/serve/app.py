"""The routes of the endpoint. Needs the extra `serve`; `umaf.serve.run` imports it and says so where it is missing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.chat import Request as Asked
from umaf.dispatch.chat import conversation
from umaf.dispatch.decision import OTHER
from umaf.dispatch.decode import Drawing
from umaf.errors import UmafError
from umaf.serve.answers import Answer, Form, event
from umaf.serve.bodies import Chat, Common, Completion, read_body
from umaf.serve.faults import Fault, fault_of
from umaf.serve.guard import App, guarded
from umaf.serve.settings import ServeSettings
from umaf.serve.worker import Begun, Event, Job, Worker, Written

Body = TypeVar("Body", bound=Common)
LOOK = 0.25
"""Seconds between two looks at whether the client of a reply that is not streamed is still there."""


def make_app(adaptive: AdaptiveModel, settings: ServeSettings, worker: Worker) -> App:
    """Make the application.

    Args:
        adaptive: names experts and tokenises; only the worker writes with it.
        settings: limits, name and token.
        worker: writes the replies.

    Returns:
        An ASGI application.
    """
    # No pages of documentation: FastAPI's load scripts from other servers.
    app = FastAPI(title="umaf", docs_url=None, redoc_url=None, openapi_url=None)
    service = _Service(adaptive, settings, worker)

    @app.exception_handler(Fault)
    async def at_fault(_request: Request, fault: Fault) -> JSONResponse:
        return JSONResponse(fault.body(), fault.status, headers=fault.headers())

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, problem: HTTPException) -> JSONResponse:
        known = "/v1/models, /v1/chat/completions and /v1/completions"
        fault = Fault(
            problem.status_code, f"There is no {request.method} {request.url.path[:100]}; there are {known}."
        )
        return JSONResponse(fault.body(), fault.status)

    @app.exception_handler(Exception)
    async def failed(_request: Request, _problem: Exception) -> JSONResponse:
        return JSONResponse(Fault(500, "The server failed; its log says how.", "internal").body(), 500)

    app.add_api_route("/v1/models", service.models, methods=["GET"], response_model=None)
    app.add_api_route("/v1/models/{name:path}", service.model, methods=["GET"], response_model=None)
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/completions", service.complete, methods=["POST"], response_model=None)
    return guarded(app, settings)


class _Service:
    """The routes, with what they share."""

    def __init__(self, adaptive: AdaptiveModel, settings: ServeSettings, worker: Worker) -> None:
        self._adaptive, self._settings, self._worker = adaptive, settings, worker
        self._base = adaptive.shelf.model
        self._since = int(time.time())

    async def models(self) -> dict[str, Any]:
        """List the adaptive model, every expert alone, and the base."""
        return {"object": "list", "data": [self._card(name) for name in self._names()]}

    async def model(self, name: str) -> dict[str, Any]:
        """Describe one of them."""
        if name not in self._names():
            raise Fault(
                404, f"There is no model {name[:100]!r}; /v1/models lists them.", "model_not_found", "model"
            )
        return self._card(name)

    async def chat(self, request: Request) -> Any:
        """Answer a conversation."""
        body = await _read(Chat, request)
        messages = [message.plain() for message in body.messages]
        try:
            asks = [conversation(self._base, messages, cue=self._settings.cue)]
        except UmafError as problem:
            raise fault_of(problem) from problem
        return await self._answer(request, body, asks, Form("chat", body.model))

    async def complete(self, request: Request) -> Any:
        """Continue prompts."""
        body = await _read(Completion, request)
        if not body.prompts or not all(body.prompts):
            raise Fault(400, "A prompt is empty; give at least one character.", param="prompt")
        return await self._answer(
            request, body, [Asked(one, one) for one in body.prompts], Form("text", body.model)
        )

    def _names(self) -> list[str]:
        return [
            self._settings.name,
            *(f"{self._settings.name}/{name}" for name in (*self._adaptive.shelf.names, "base")),
        ]

    def _card(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "umaf"}

    def _experts(self, body: Common) -> str | Mapping[str, float] | None:
        """Find the choice of experts: the field, else the end of the model's name, else the dispatcher's."""
        if body.model not in self._names():
            known = ", ".join(self._names())
            raise Fault(
                404, f"There is no model {body.model[:100]!r}; there are {known}.", "model_not_found", "model"
            )
        if body.experts is not None:
            return body.experts
        alone = body.model.removeprefix(self._settings.name).removeprefix("/")
        return {"": None, "base": OTHER}.get(alone, alone)

    def _drawings(self, body: Common, asks: list[Asked]) -> list[list[Drawing]]:
        """Say how the copies of every prompt are drawn."""
        limit, most = self._settings.max_new_tokens, self._settings.max_waiting
        if body.longest is not None and body.longest > limit:
            raise Fault(
                400,
                f"{body.longest} tokens were asked for, but replies here have {limit} at most.",
                param="max_tokens",
            )
        if len(asks) * body.n > most:
            raise Fault(
                400, f"{len(asks) * body.n} replies were asked for, but one request may ask for {most}."
            )
        return [[body.drawing(body.longest or limit, copy) for copy in range(body.n)] for _ in asks]

    async def _answer(self, request: Request, body: Common, asks: list[Asked], form: Form) -> Any:
        """Let the worker write, and give what it writes, as a whole or as a stream."""
        experts = self._experts(body)
        drawings, fit = self._drawings(body, asks), body.longest is None
        told: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        loop, until = asyncio.get_running_loop(), time.monotonic() + self._settings.seconds
        jobs: list[Job] = []
        for ask, copies in zip(asks, drawings, strict=True):
            for drawing in copies:
                jobs.append(Job(ask, drawing, experts, _teller(loop, told, len(jobs)), until, fit=fit))
        self._worker.submit(jobs)
        events = _events(told, jobs)
        if body.stream:
            counted = body.stream_options is not None and body.stream_options.include_usage
            first = await _first(events, jobs)
            return StreamingResponse(
                _stream(form, jobs, first, events, counted), media_type="text/event-stream"
            )
        answers = [Answer(index) for index in range(len(jobs))]
        async for index, happened in _while_there(events, request, jobs):
            if isinstance(happened, Fault):
                _leave(jobs)
                raise happened
            _take(answers[index], happened)
        return JSONResponse(form.whole(answers))


async def _read(kind: type[Body], request: Request) -> Body:
    try:
        data = json.loads(await request.body())
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Fault(400, "The body holds half of a character (a lone surrogate), which is no text.") from None
    except (ValueError, RecursionError) as problem:
        raise Fault(400, f"The body is not JSON ({str(problem)[:100]}).") from None
    return read_body(kind, data)


def _teller(loop: asyncio.AbstractEventLoop, told: asyncio.Queue[tuple[int, Event]], index: int):
    """Carry events of the worker's thread into the loop's queue."""

    def tell(happened: Event) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(told.put_nowait, (index, happened))

    return tell


def _leave(jobs: list[Job]) -> None:
    for job in jobs:
        job.gone.set()


def _take(answer: Answer, happened: Begun | Written) -> None:
    if isinstance(happened, Begun):
        answer.begun = happened
    else:
        answer.text += happened.text
        answer.last = happened


async def _events(
    told: asyncio.Queue[tuple[int, Event]], jobs: list[Job]
) -> AsyncIterator[tuple[int, Event]]:
    """Give events until every job has ended."""
    ended: set[int] = set()
    while len(ended) < len(jobs):
        index, happened = await told.get()
        if isinstance(happened, Fault) or (isinstance(happened, Written) and happened.finish is not None):
            ended.add(index)
        yield index, happened


async def _while_there(
    events: AsyncIterator[tuple[int, Event]], request: Request, jobs: list[Job]
) -> AsyncIterator[tuple[int, Event]]:
    """Give events while the client is there; stop the writing when it has gone away."""
    pending: asyncio.Future[tuple[int, Event]] = asyncio.ensure_future(anext(events))
    looked, ended = time.monotonic(), False
    try:
        while True:
            done, _ = await asyncio.wait([pending], timeout=LOOK)
            if time.monotonic() - looked >= LOOK:
                looked = time.monotonic()
                if await request.is_disconnected():
                    raise Fault(408, "The client left before its reply was written.")
            if not done:
                continue
            try:
                yield pending.result()
            except StopAsyncIteration:
                ended = True
                return
            pending = asyncio.ensure_future(anext(events))
    finally:
        if not ended:
            pending.cancel()
            _leave(jobs)


async def _first(events: AsyncIterator[tuple[int, Event]], jobs: list[Job]) -> tuple[int, Event]:
    """Wait for the first event, so that a fault before any text has its own status."""
    try:
        first = await anext(events)
    except asyncio.CancelledError:
        _leave(jobs)
        raise
    if isinstance(first[1], Fault):
        _leave(jobs)
        raise first[1]
    return first


async def _stream(
    form: Form,
    jobs: list[Job],
    first: tuple[int, Event],
    events: AsyncIterator[tuple[int, Event]],
    counted: bool,
) -> AsyncIterator[bytes]:
    """Write events as chunks; a fault in the middle is a chunk of its own and ends the stream."""
    answers = [Answer(index) for index in range(len(jobs))]
    try:
        async for index, happened in _with(first, events):
            if isinstance(happened, Fault):
                yield event(happened.body())
                return
            answer = answers[index]
            _take(answer, happened)
            if isinstance(happened, Begun):
                yield event(form.chunk(answer, None, first=True))
                continue
            if happened.text:
                yield event(form.chunk(answer, happened.text))
            if happened.finish is not None:
                yield event(form.chunk(answer, None))
        if counted:
            yield event(form.last_chunk(answers))
        yield event("[DONE]")
    finally:
        # Also reached when the client goes away and the server closes this generator.
        _leave(jobs)


async def _with(
    first: tuple[int, Event], events: AsyncIterator[tuple[int, Event]]
) -> AsyncIterator[tuple[int, Event]]:
    yield first
    async for one in events:
        yield one
