"""The routes of the page. Needs the extra `serve`; `umaf.web.run` imports it and says so where it is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from umaf.errors import OutputError, UmafError
from umaf.serve.faults import Fault
from umaf.serve.guard import App
from umaf.web import records
from umaf.web.desk import Desk
from umaf.web.forms import Build
from umaf.web.guard import guarded
from umaf.web.models import Filter, Search
from umaf.web.settings import WebSettings

Body = TypeVar("Body", bound=BaseModel)
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def make_app(settings: WebSettings, builds: Mapping[str, Build]) -> tuple[App, Desk]:
    """Make the application.

    Args:
        settings: what is shown, and limits.
        builds: how the commands that can be started make their configs.

    Returns:
        An ASGI application, and what works behind it, which has to be closed.

    Raises:
        StoreError: there is no such store.
        ConfigError: an extra is not installed.
    """
    desk = Desk(settings, builds)
    # No pages of documentation: FastAPI's load scripts from other servers.
    app = FastAPI(title="umaf", docs_url=None, redoc_url=None, openapi_url=None)
    _faults(app)
    static = _static()

    @app.get("/", response_model=None)
    @app.get("/static/{name}", response_model=None)
    def page(name: str = "index.html") -> Response:
        if name not in static:
            raise Fault(404, f"There is no file {name[:60]!r} on this page.")
        body, kind = static[name]
        return Response(body, media_type=kind, headers={"cache-control": "no-cache"})

    _store_routes(app, desk)
    _record_routes(app, desk)
    _job_routes(app, desk)
    return guarded(app, settings), desk


def _static() -> dict[str, tuple[bytes, str]]:
    """Read the page's own files once; only these can be asked for."""
    found = {}
    sheet = files("umaf.reports").joinpath("report.css")
    for file in (*files("umaf.web").joinpath("static").iterdir(), sheet):
        kind = KINDS.get(file.name.rsplit(".", 1)[-1])
        if kind is not None:
            found[file.name] = (file.read_bytes(), f"{kind}; charset=utf-8")
    return found


def _store_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/about", response_model=None)
    def about() -> JSONResponse:
        return JSONResponse(desk.about())

    @app.get("/api/map", response_model=None)
    def map(difference: bool | None = None) -> Response:
        # Written once for all who ask: a map is long.
        return Response(desk.map(difference), media_type="application/json")

    @app.get("/api/models", response_model=None)
    def models(request: Request, limit: int = 500) -> JSONResponse:
        asked = {name: value for name, value in request.query_params.items() if name != "limit" and value}
        return JSONResponse(desk.models(_filled(Filter, asked), limit=max(1, min(limit, 5000))))

    @app.get("/api/models/{key}", response_model=None)
    def model(key: str) -> JSONResponse:
        return JSONResponse(desk.model(key))

    @app.post("/api/models", response_model=None)
    async def add(request: Request) -> Any:
        values = await _json(request)
        return JSONResponse(await run_in_threadpool(desk.add, values), 201)

    @app.post("/api/search", response_model=None)
    async def search(request: Request) -> Any:
        asked = _filled(Search, await _json(request))
        return JSONResponse(await run_in_threadpool(desk.search, asked))

    @app.get("/api/compare", response_model=None)
    def compare(a: str, b: str) -> JSONResponse:
        return JSONResponse(desk.compare(a, b))


def _record_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/records", response_model=None)
    def listed() -> JSONResponse:
        return JSONResponse([one.shown() for one in desk.records.all()])

    @app.get("/records/{id}.html", response_model=None)
    def report(id: str) -> Response:
        page = desk.records.page(id)
        return Response(page, media_type="text/html", headers={"content-security-policy": records.POLICY})

    @app.get("/records/{id}.zip", response_model=None)
    def adapter(id: str) -> Response:
        return _zip(*desk.adapter(id))

    @app.get("/api/runs/{id}", response_model=None)
    def run(id: str) -> JSONResponse:
        return JSONResponse(desk.records.run(id))


def _job_routes(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/jobs", response_model=None)
    def jobs() -> JSONResponse:
        return JSONResponse(desk.jobs_shown())

    @app.post("/api/preview", response_model=None)
    async def preview(request: Request) -> Any:
        values = await _json(request)
        return JSONResponse(await run_in_threadpool(desk.preview, values))

    @app.post("/api/jobs", response_model=None)
    async def start(request: Request) -> Any:
        values = await _json(request)
        return JSONResponse(await run_in_threadpool(desk.start, values), 201)

    @app.get("/api/jobs/{id}", response_model=None)
    def job(id: str) -> JSONResponse:
        return JSONResponse(desk.job(id))

    @app.post("/api/jobs/{id}/cancel", response_model=None)
    async def cancel(id: str) -> Any:
        return JSONResponse(await run_in_threadpool(desk.cancel, id))

    @app.get("/api/jobs/{id}/result.zip", response_model=None)
    def result(id: str) -> Response:
        return _zip(*desk.result(id))


def _zip(name: str, pieces: Any) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


def _faults(app: FastAPI) -> None:
    """Answer every mistake with JSON and one sentence."""

    @app.exception_handler(Fault)
    async def at_fault(_request: Request, fault: Fault) -> JSONResponse:
        headers = {"retry-after": "1"} if fault.status == 503 else None
        return JSONResponse(fault.body(), fault.status, headers=headers)

    @app.exception_handler(UmafError)
    async def mistaken(_request: Request, problem: UmafError) -> JSONResponse:
        status = 500 if isinstance(problem, OutputError) else 400
        return JSONResponse(Fault(status, " ".join(str(problem).split())).body(), status)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, problem: HTTPException) -> JSONResponse:
        sentence = f"There is no {request.method} {request.url.path[:100]} here; the page is at /."
        return JSONResponse(Fault(problem.status_code, sentence).body(), problem.status_code)

    from fastapi.exceptions import RequestValidationError

    @app.exception_handler(RequestValidationError)
    async def unfit(_request: Request, problem: RequestValidationError) -> JSONResponse:
        error = problem.errors()[0]
        sentence = f"The field {error['loc'][-1]} cannot be used ({error['msg'].lower()}); put that right."
        return JSONResponse(Fault(400, sentence).body(), 400)

    @app.exception_handler(Exception)
    async def failed(_request: Request, _problem: Exception) -> JSONResponse:
        return JSONResponse(Fault(500, "The server failed; its log says how.", "internal").body(), 500)


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as problem:
        raise Fault(400, f"The body is not JSON ({str(problem)[:100]}).") from None


def _filled(kind: type[Body], values: Any) -> Body:
    try:
        return kind.model_validate(values)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        name = ".".join(str(part) for part in error["loc"]) or "the body"
        raise Fault(
            400, f"The field {name} cannot be used ({error['msg'].lower()}); put that right."
        ) from None
