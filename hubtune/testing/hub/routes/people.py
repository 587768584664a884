"""Routes: whoami, permissions, and validation of a README."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.routes.access import body, caller, readable, site, writable
from hubtune.testing.hub.routes.paths import REPO
from hubtune.testing.hub.storage import card


async def whoami(request: Request) -> Response:
    """The user, the organisations and the token's role."""
    return JSONResponse(site(request).accounts.whoami(caller(request)))


async def auth_check(request: Request) -> Response:
    """Return whether the caller may read the repo's files."""
    readable(request)
    return JSONResponse({})


async def write_check(request: Request) -> Response:
    """Return whether the caller may write to the repo."""
    writable(request)
    return JSONResponse({})


async def validate_yaml(request: Request) -> Response:
    """Return what is wrong with the front matter of a README."""
    caller(request)
    data = await body(request)
    errors, warnings = card.problems(str(data.get("content", "")), str(data.get("repoType", "model")))
    told = {"errors": [{"message": one} for one in errors], "warnings": [{"message": one} for one in warnings]}
    return JSONResponse(told, 400 if errors else 200)


ROUTES = [
    Route("/api/whoami-v2", whoami),
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route(REPO + "/auth-check", auth_check),
    Route(REPO + "/auth-check/write", write_check),
]
