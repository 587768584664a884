"""The application: predictions, a page to try them, health, and the description of all this."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hubtune import Column, HubtuneError, Model, Prediction
from hubtune_plugins.serving import description, words
from hubtune_plugins.serving.batcher import Batcher
from hubtune_plugins.serving.guard import SAFE, Guard
from hubtune_plugins.serving.limits import Limits, Refusal
from hubtune_plugins.serving.rows import RowReader

PAGE = Path(__file__).with_name("page")
KINDS = {"page.html": "text/html; charset=utf-8", "page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}


class Endpoint:
    """A served model. It is asked by the thread of `batcher` alone."""

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        self.name = Path(model.name).name if Path(model.name).exists() else model.name
        """The model as clients see it: of a folder its name alone, since its path is nobody's business."""
        _, self.base = model.load_weights()  # `model.task` is the one for this model afterwards
        self.reader = RowReader(model.task, model.model_record.get("columns", {}), limits)
        self.batcher = Batcher(model.predict_rows, limits)
        self.started = time.monotonic()
        self.answered = self.refused = 0

    @property
    def weighs(self) -> bool:
        """True where words can be weighed: texts are classified into labels."""
        texts = [column for column in self.reader.columns.values() if column.needed == "always"]
        return self.model.task.pipeline_tag == "text-classification" and len(texts) == 1 and texts[0].kind == "text"

    @property
    def shown(self) -> list[Column]:
        """The columns that the page has fields for: those that are needed, and those that training had."""
        trained = self.model.model_record.get("columns")
        return [column for column in self.reader.columns.values()
                if column.needed == "always" or column.role == self.reader.input or not trained or column.role in trained]

    async def predict(self, request: Request) -> Response:
        """`POST /predict`: as `hubtune predict --json`."""
        found = await self.wait(self.reader.read(*await self.body(request)))
        return self.answer({"model": self.name, "task": self.model.task.name,
                            "predictions": [{"row": number, **one} for number, one in enumerate(found)]})

    async def explain(self, request: Request) -> Response:
        """`POST /explain`: which words of a text mattered."""
        if not self.weighs:
            raise Refusal(404, f"words are not weighed for '{self.model.task.name}'.", "Only for text classification.")
        rows = self.reader.read(*await self.body(request))
        if len(rows) != 1:
            raise Refusal(422, f"there are {len(rows)} rows, not one.", "Send one text at a time.")
        role = self.reader.needed[0]
        found = await self.wait(words.variants(rows[0], role, self.limits))
        if not found[0].get("probabilities"):
            raise Refusal(404, "this model gives no probabilities.", "Only for text classification.")
        return self.answer(words.weights(rows[0], role, found))

    async def body(self, request: Request) -> tuple[bytes, str]:
        """Read the body of a request and its kind, within the limits of size and time."""
        limit, parts, size = self.limits.body, [], 0
        too_large = Refusal(413, f"the body has more than {limit:,} bytes.", "Send fewer or smaller rows.", {"Connection": "close"})
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limit:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self.limits.body_seconds:g} seconds.", None,
                          {"Connection": "close"}) from None
        return b"".join(parts), request.headers.get("content-type", "")

    async def wait(self, rows: Any) -> list[Prediction]:
        """Wait for the predictions of rows.

        Raises:
            Refusal: 504, they did not come in time; 422, the task or the model refuses the rows.
        """
        result = self.batcher.submit(rows)
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await asyncio.wrap_future(result)
        except TimeoutError:
            result.cancel()
            raise Refusal(504, f"no answer within {self.limits.seconds:g} seconds.", "Send fewer rows, or ask again later.") from None
        except HubtuneError as error:
            raise Refusal(422, error.message, error.hint) from error

    def answer(self, document: Any) -> Response:
        """Count and send an answer; numbers that are not finite become null, as `hubtune predict --json` prints them."""
        self.answered += 1
        return document_response(document)

    async def health(self, request: Request) -> Response:
        """`GET /healthz`: 200 while rows are taken."""
        is_up = self.batcher.is_open and self.batcher.thread.is_alive()
        return document_response({
            "status": "ok" if is_up else "stopping", "model": self.name, "task": self.model.task.name,
            "waiting_rows": self.batcher.rows, "answered": self.answered, "refused": self.refused,
            "seconds": round(time.monotonic() - self.started, 1)}, 200 if is_up else 503)

    async def info(self, request: Request) -> Response:
        """`GET /info`: what the page has to know."""
        labels = getattr(self.base.config, "id2label", None) or {}
        return document_response({
            "model": self.name, "task": self.model.task.name, "summary": self.model.task.summary,
            "columns": [{"role": column.role, "kind": column.kind, "needed": column.needed} for column in self.shown],
            "input": self.reader.input, "labels": [str(labels[key]) for key in sorted(labels)][:200], "weighs": self.weighs,
            "limits": {"rows": self.limits.rows, "body": self.limits.body, "characters": self.limits.characters}})

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`."""
        return document_response(description.openapi(self.model, self.name, self.reader, self.weighs))

    async def docs(self, request: Request) -> Response:
        """`GET /docs`: the same for people."""
        return Response(description.page(self.model, self.name, self.reader, self.weighs, str(request.base_url)), headers=SAFE,
                        media_type="text/html; charset=utf-8")

    async def page(self, request: Request) -> Response:
        """`GET /`: the page to try the model, and its files."""
        name = request.url.path.lstrip("/") or "page.html"
        return Response((PAGE / name).read_bytes(), headers=SAFE, media_type=KINDS[name])

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer an error as JSON; what is not foreseen is in the server's log alone."""
        self.refused += 1
        if isinstance(error, HTTPException):
            error = Refusal(error.status_code, f"{request.method} {request.url.path[:200]}: {error.detail}.", "See /docs", error.headers or {})
        if isinstance(error, ClientDisconnect):
            return Response(status_code=400)
        if not isinstance(error, Refusal):
            error = Refusal(500, "the server failed on these rows.", "Its log has the error.")
        return document_response(error.as_json(), error.status, dict(error.headers))


def document_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    text = json.dumps(finite(document), ensure_ascii=False, default=str)
    return Response(text, status, headers={**SAFE, "Cache-Control": "no-store", **(headers or {})}, media_type="application/json")


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def application(endpoint: Endpoint, hosts: Collection[str]) -> Starlette:
    """Return the ASGI application. hosts: names by which it may be asked."""
    routes = [Route("/predict", endpoint.predict, methods=["POST"]), Route("/explain", endpoint.explain, methods=["POST"]),
              Route("/healthz", endpoint.health), Route("/info", endpoint.info), Route("/openapi.json", endpoint.openapi),
              Route("/docs", endpoint.docs), *(Route(path, endpoint.page) for path in ("/", "/page.css", "/page.js"))]
    return Starlette(routes=routes, middleware=[Middleware(Guard, hosts=hosts)], exception_handlers={
        Refusal: endpoint.refuse, HTTPException: endpoint.refuse, ClientDisconnect: endpoint.refuse, Exception: endpoint.refuse})
