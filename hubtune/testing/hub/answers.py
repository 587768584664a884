"""Answers in the Hub's shapes: pages with a Link header, and refusals as status, X-Error-Code and X-Error-Message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hubtune.testing.hub import refusals

T = TypeVar("T")

# Clients on plain http tell errors apart by the code alone, so whatever means "not found" must carry one.
_STATUS: dict[type[refusals.Refusal], tuple[int, str]] = {
    refusals.BadToken: (401, ""),
    refusals.Forbidden: (403, ""),
    refusals.Gated: (403, "GatedRepo"),
    refusals.NoSuchRepo: (404, "RepoNotFound"),
    refusals.NoSuchRevision: (404, "RevisionNotFound"),
    refusals.NoSuchEntry: (404, "EntryNotFound"),
    refusals.NoSuchDiscussion: (404, ""),
    refusals.Taken: (409, ""),
    refusals.Conflict: (409, ""),
    refusals.StaleParent: (412, ""),
    refusals.Unacceptable: (400, ""),
}


async def on_refusal(request: Request, error: Exception) -> Response:
    """Return what the client gets when something is refused."""
    assert isinstance(error, refusals.Refusal)
    headers = {}
    if isinstance(error, refusals.Anonymous):
        # The Hub says 401 without a code here, and on https a client takes that for "no such repo".
        status, code = 401, "RepoNotFound" if request.path_params.get("repo") else ""
    else:
        status, code = _STATUS[type(error)]
    if isinstance(error, refusals.NoSuchRepo | refusals.Gated) and "authorization" not in request.headers:
        status = 401
    if isinstance(error, refusals.NoSuchEntry) and error.commit:
        headers["X-Repo-Commit"] = error.commit
    return failure(status, str(error), code, headers)


async def on_http_error(request: Request, error: Exception) -> Response:
    """An unknown path or method, in the same shape as every other failure."""
    assert isinstance(error, HTTPException)
    return failure(error.status_code, f"{error.detail}: {request.method} {request.url.path}")


def failure(status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as the client reads it."""
    # A header holds one line of latin-1.
    line = " ".join(message.split()).encode("latin-1", "replace").decode("latin-1")
    told = {"X-Error-Message": line, **({"X-Error-Code": code} if code else {}), **(headers or {})}
    return JSONResponse({"error": message}, status, told)


def page(request: Request, items: Sequence[T], size: int, show: Callable[[T], Any]) -> JSONResponse:
    """One page of a list; when more follows, a Link header says where."""
    asked = number(request, "limit", size)
    start, size = number(request, "cursor", 0), max(1, min(asked, size))
    shown = [show(item) for item in items[start : start + size]]
    headers = {}
    if start + size < len(items):
        following = URL(str(request.url)).include_query_params(cursor=start + size)
        headers["Link"] = f'<{following}>; rel="next"'
    return JSONResponse(shown, headers=headers)


def number(request: Request, name: str, default: int) -> int:
    """A query parameter that must be a number."""
    text = request.query_params.get(name, str(default))
    if not text.isdigit():
        raise refusals.Unacceptable(f"'{name}' must be a number, not '{text}'.")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """A query parameter that is yes or no, in any of the spellings clients use."""
    return request.query_params.get(name, "").lower() in ("1", "true")
