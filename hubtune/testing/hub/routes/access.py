"""Shared by all routes: the Hub, the caller, and the repo in the path if the caller may access it."""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request

from hubtune.testing.hub.accounts import Caller
from hubtune.testing.hub.refusals import BadToken, Unacceptable
from hubtune.testing.hub.site import Site
from hubtune.testing.hub.storage.store import Kind, Repo


def site(request: Request) -> Site:
    """The Hub that serves this request."""
    return cast(Site, request.app.state.site)


def origin(request: Request) -> str:
    """The address the client used, to build addresses it can follow."""
    return str(request.base_url).rstrip("/")


def caller(request: Request) -> Caller:
    """Return who sent this request. A wrong token is refused even where none is needed, as on the Hub."""
    header = request.headers.get("authorization")
    if header is None:
        return site(request).accounts.caller(None)
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise BadToken("Invalid credentials in Authorization header")
    return site(request).accounts.caller(token)


def kind_of(request: Request) -> Kind:
    """The kind of repo the path is about; addresses of models have no prefix."""
    return cast(Kind, request.path_params.get("kind", "model"))


def seen(request: Request) -> Repo:
    """The repo, if the caller may know of it."""
    who = caller(request)
    repo = site(request).store.get(kind_of(request), request.path_params["repo"])
    who.check_seen(repo)
    return repo


def readable(request: Request) -> Repo:
    """The repo, if the caller may read its files."""
    repo = seen(request)
    caller(request).check_read(repo)
    return repo


def writable(request: Request) -> Repo:
    """The repo, if the caller may change it."""
    repo = seen(request)
    caller(request).check_write(repo.id)
    return repo


def proposable(request: Request) -> Repo:
    """The repo, if the caller may open a pull request or a discussion on it."""
    repo = seen(request)
    caller(request).check_propose(repo)
    return repo


def address(request: Request, repo: Repo) -> str:
    """The page of a repo."""
    prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
    return f"{origin(request)}/{prefix}{repo.id}"


async def body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent; nothing sent is an empty one."""
    raw = await request.body()
    try:
        data = json.loads(raw) if raw else {}
    except ValueError:
        raise Unacceptable("The body is not JSON.") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Unacceptable("The body must be a JSON object.")
    return data


def needed(data: dict[str, Any], name: str) -> str:
    """A text that the body must have."""
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise Unacceptable(f"'{name}' is needed and must be a text.")
    return value
