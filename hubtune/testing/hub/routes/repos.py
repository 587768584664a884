"""Repos as wholes: tell about one, list many, create, delete, move, change settings."""

from __future__ import annotations

from typing import Any, cast, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.answers import flag, page
from hubtune.testing.hub.refusals import Taken, Unacceptable
from hubtune.testing.hub.routes.access import address, body, caller, kind_of, needed, seen, site, writable
from hubtune.testing.hub.routes.paths import API, REPO
from hubtune.testing.hub.storage.facts import Facts
from hubtune.testing.hub.storage.store import Gate, Kind, Repo


async def show(request: Request) -> Response:
    """model_info, dataset_info: at main or at a revision."""
    repo, store = seen(request), site(request).store
    facts = Facts(store, repo, store.at(repo, request.path_params.get("rev", "main")))
    keys = _expand(request)
    return JSONResponse(facts.expanded(keys) if keys else facts.shown(blobs=flag(request, "blobs")))


async def list_repos(request: Request) -> Response:
    """list_models, list_datasets: what the caller may see of what was searched for."""
    who, store = caller(request), site(request).store
    visible = [repo for repo in store.all(kind_of(request)) if who.may_see(repo)]
    described = [Facts(store, repo, store.at(repo, "main")) for repo in visible]
    keys = _expand(request)
    found = [(facts, facts.all()) for facts in described]
    found = _sorted(request, [one for one in found if _matches(request, one[1])])

    def shown(one: tuple[Facts, dict[str, Any]]) -> dict[str, Any]:
        if keys:
            return one[0].expanded(keys)
        return one[0].listed(flag(request, "full"), flag(request, "config"), flag(request, "cardData"))

    return page(request, found, site(request).page_size, shown)


def _matches(request: Request, told: dict[str, Any]) -> bool:
    query = request.query_params
    author, task, gated = query.get("author"), query.get("pipeline_tag"), query.get("gated")
    wanted = [tag for one in query.getlist("filter") for tag in one.split(",")]
    return (
        all(text.lower() in told["id"].lower() for text in query.getlist("search"))
        and (author is None or told.get("author") == author)
        and (task is None or told.get("pipeline_tag") == task)
        and (gated is None or bool(told["gated"]) == (gated.lower() == "true"))
        and all(tag in told["tags"] for tag in wanted)
    )


def _sorted(request: Request, found: list[tuple[Facts, dict[str, Any]]]) -> list[tuple[Facts, dict[str, Any]]]:
    key = request.query_params.get("sort", "trendingScore")
    if key not in ("downloads", "likes", "trendingScore", "createdAt", "lastModified"):
        raise Unacceptable(f"Cannot sort by '{key}'.")
    # Highest or newest first; repos that are equal stay in the order of their ids.
    return sorted(found, key=lambda one: one[1][key], reverse=True)


def _expand(request: Request) -> list[str]:
    return request.query_params.getlist("expand") + request.query_params.getlist("expand[]")


async def create(request: Request) -> Response:
    """create_repo. A client with exist_ok reads the address from the 409."""
    who, data = caller(request), await body(request)
    kind, repo_id = _kind(data), f"{data.get('organization') or who.user}/{needed(data, 'name')}"
    who.check_write(repo_id)
    store = site(request).store
    private = data.get("visibility") == "private" or data.get("private") is True
    try:
        repo = store.create(kind, repo_id, who.user, private=private)
    except Taken as error:
        url = address(request, store.get(kind, repo_id))
        return JSONResponse({"error": str(error), "url": url}, 409, {"X-Error-Message": str(error)})
    return JSONResponse({"url": address(request, repo), "name": repo_id, "id": repo_id})


async def delete(request: Request) -> Response:
    """delete_repo."""
    who, data = caller(request), await body(request)
    repo_id = f"{data.get('organization') or who.user}/{needed(data, 'name')}"
    repo = _own(request, _kind(data), repo_id)
    site(request).store.delete(repo)
    return JSONResponse({})


async def move(request: Request) -> Response:
    """move_repo: both names must be the caller's."""
    data = await body(request)
    repo, to = _own(request, _kind(data), needed(data, "fromRepo")), needed(data, "toRepo")
    caller(request).check_write(to)
    site(request).store.move(repo, to)
    return JSONResponse({})


async def settings(request: Request) -> Response:
    """update_repo_settings: visibility and gate."""
    repo, data = writable(request), await body(request)
    gated, visibility = data.get("gated", repo.gated), data.get("visibility")
    if gated not in ("auto", "manual", False) or visibility not in (None, "public", "private"):
        raise Unacceptable("'gated' is auto, manual or false; 'visibility' is public or private.")
    with site(request).store.edit(repo) as fresh:
        fresh.gated = cast(Gate, gated)
        fresh.private = fresh.private if visibility is None else visibility == "private"
    return JSONResponse({"private": fresh.private, "gated": fresh.gated})


def _own(request: Request, kind: Kind, repo_id: str) -> Repo:
    who = caller(request)
    _ = who.user
    repo = site(request).store.get(kind, repo_id)
    who.check_seen(repo)
    who.check_write(repo_id)
    return repo


def _kind(data: dict[str, Any]) -> Kind:
    kind = data.get("type") or "model"
    if kind not in get_args(Kind):
        raise Unacceptable(f"'{kind}' is not a kind of repo.")
    return cast(Kind, kind)


ROUTES = [
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route("/api/repos/move", move, methods=["POST"]),
    Route(REPO + "/settings", settings, methods=["PUT"]),
    Route(REPO + "/revision/{rev:hub_segment}", show),
    Route(API, list_repos),
    Route(REPO, show),  # last: a repo id may look like anything
]
