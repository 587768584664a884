"""Branches, tags and the list of commits."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.answers import flag, page
from hubtune.testing.hub.refusals import Forbidden, NoSuchRevision, Taken, Unacceptable
from hubtune.testing.hub.routes.access import body, needed, seen, site, writable
from hubtune.testing.hub.routes.paths import REPO
from hubtune.testing.hub.storage.history import Commit
from hubtune.testing.hub.storage.store import MAIN, Repo

_LISTS = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}


async def refs(request: Request) -> Response:
    """list_repo_refs."""
    told: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for ref, target in seen(request).refs.items():
        prefix = next(one for one in _LISTS if ref.startswith(one))
        # Pull requests are named by their full ref, branches and tags without the prefix.
        name = ref if prefix == "refs/pr/" else ref.removeprefix(prefix)
        told[_LISTS[prefix]].append({"name": name, "ref": ref, "targetCommit": target})
    if not flag(request, "include_prs"):
        del told["pullRequests"]
    return JSONResponse(told)


async def commits(request: Request) -> Response:
    """list_repo_commits, newest first."""
    repo, store = seen(request), site(request).store
    log = store.log(repo, store.resolve(repo, request.path_params["rev"]))
    formatted = "formatted" in request.query_params.getlist("expand[]")
    return page(request, log, site(request).page_size, lambda one: _shown(one, formatted))


def _shown(commit: Commit, formatted: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
    told["authors"] = [{"user": commit.author}]
    return told | ({"formatted": {"title": commit.title, "message": commit.message}} if formatted else {})


async def create_branch(request: Request) -> Response:
    """create_branch, from main or from another revision."""
    repo, data = writable(request), await body(request)
    name, start = _name(request.path_params["name"]), str(data.get("startingPoint") or "main")
    return _add(request, repo, f"refs/heads/{name}", start)


async def delete_branch(request: Request) -> Response:
    """delete_branch; main stays."""
    ref = f"refs/heads/{request.path_params['name']}"
    if ref == MAIN:
        raise Forbidden("The branch 'main' cannot be deleted.")
    return _drop(request, writable(request), ref)


async def create_tag(request: Request) -> Response:
    """create_tag on a revision."""
    repo, data = writable(request), await body(request)
    return _add(request, repo, f"refs/tags/{_name(needed(data, 'tag'))}", request.path_params["name"])


async def delete_tag(request: Request) -> Response:
    """delete_tag."""
    return _drop(request, writable(request), f"refs/tags/{request.path_params['name']}")


def _add(request: Request, repo: Repo, ref: str, start: str) -> Response:
    store = site(request).store
    with store.edit(repo) as fresh:
        if ref in fresh.refs:
            raise Taken(f"Reference '{ref}' exists already.")
        fresh.refs[ref] = store.resolve(fresh, start)
    return JSONResponse({})


def _drop(request: Request, repo: Repo, ref: str) -> Response:
    with site(request).store.edit(repo) as fresh:
        if fresh.refs.pop(ref, None) is None:
            raise NoSuchRevision(f"Reference '{ref}' does not exist.")
    return JSONResponse({})


def _name(name: str) -> str:
    if name.startswith("refs/") or any(part in ("", ".", "..") for part in name.split("/")) or " " in name:
        raise Unacceptable(f"Invalid reference for a branch or tag: {name}")
    return name


ROUTES = [
    Route(REPO + "/refs", refs),
    Route(REPO + "/commits/{rev:hub_segment}", commits),
    Route(REPO + "/branch/{name:hub_segment}", create_branch, methods=["POST"]),
    Route(REPO + "/branch/{name:hub_segment}", delete_branch, methods=["DELETE"]),
    Route(REPO + "/tag/{name:hub_segment}", create_tag, methods=["POST"]),
    Route(REPO + "/tag/{name:hub_segment}", delete_tag, methods=["DELETE"]),
]
