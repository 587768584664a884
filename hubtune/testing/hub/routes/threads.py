"""Discussions and pull requests over HTTP."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.answers import flag, number
from hubtune.testing.hub.refusals import Forbidden
from hubtune.testing.hub.routes.access import body, caller, needed, proposable, seen, site, writable
from hubtune.testing.hub.routes.paths import REPO
from hubtune.testing.hub.storage.discussions import Discussion, Discussions, commit_event
from hubtune.testing.hub.storage.store import MAIN, Repo

_PAGE = 50


async def list_threads(request: Request) -> Response:
    """get_repo_discussions: paged by number of page, not by Link."""
    repo, query = seen(request), request.query_params
    found = [
        one
        for one in Discussions(site(request).store, repo).all()
        if _wanted(one, query.get("type"), query.get("status"))
    ]
    if author := query.get("author"):
        found = [one for one in found if one.author == author]
    start = number(request, "p", 0) * _PAGE
    shown = [_summary(repo, one) for one in found[start : start + _PAGE]]
    return JSONResponse({"discussions": shown, "count": len(found), "start": start})


def _wanted(thread: Discussion, kind: str | None, status: str | None) -> bool:
    of_kind = kind in (None, "all") or thread.is_pull_request == (kind == "pull_request")
    is_closed = thread.status in ("closed", "merged")
    return of_kind and (status in (None, "all") or is_closed == (status == "closed"))


async def create(request: Request) -> Response:
    """create_discussion; a pull request made this way is a draft, as it has no commits yet."""
    repo, data, who = proposable(request), await body(request), caller(request)
    threads, title, text = (
        Discussions(site(request).store, repo),
        needed(data, "title"),
        str(data.get("description") or ""),
    )
    if data.get("pullRequest"):
        made = threads.open(title, who.user, text, status="draft", base=MAIN, start=repo.refs[MAIN])
    else:
        made = threads.open(title, who.user, text)
    return JSONResponse({"num": made.num, "pullRequest": made.is_pull_request})


async def details(request: Request) -> Response:
    """get_discussion_details, with the diff if asked for."""
    repo = seen(request)
    threads = Discussions(site(request).store, repo)
    thread = threads.get(request.path_params["num"])
    events, told = thread.events, _summary(repo, thread)
    if thread.is_pull_request:
        events = sorted([*events, *map(commit_event, threads.commits(thread))], key=lambda one: str(one["createdAt"]))
        told["changes"] = {"base": thread.base, "mergeCommitId": thread.merged_as}
        told["filesWithConflicts"] = threads.conflicts(thread)
        if flag(request, "diff"):
            told["diff"] = threads.diff(thread)
    return JSONResponse({**told, "events": events})


def _summary(repo: Repo, thread: Discussion) -> dict[str, Any]:
    told = {"num": thread.num, "title": thread.title, "author": {"name": thread.author}, "status": thread.status}
    about = {"createdAt": thread.created, "isPullRequest": thread.is_pull_request}
    return {**told, **about, "repo": {"name": repo.id, "type": repo.kind}}


async def comment(request: Request) -> Response:
    """comment_discussion."""
    repo, data = proposable(request), await body(request)
    text, num = needed(data, "comment"), request.path_params["num"]
    event = Discussions(site(request).store, repo).comment(num, caller(request).user, text)
    return JSONResponse({"newMessage": event})


async def rename(request: Request) -> Response:
    """rename_discussion."""
    repo, data = _governed(request), await body(request)
    event = Discussions(site(request).store, repo).rename(
        request.path_params["num"], caller(request).user, needed(data, "title")
    )
    return JSONResponse({"newTitle": event})


async def status(request: Request) -> Response:
    """change_discussion_status."""
    repo, data = _governed(request), await body(request)
    event = Discussions(site(request).store, repo).set_status(
        request.path_params["num"], caller(request).user, needed(data, "status"), data.get("comment")
    )
    return JSONResponse({"newStatus": event})


async def merge(request: Request) -> Response:
    """merge_pull_request: for those who may write to the repo."""
    repo, data = writable(request), await body(request)
    made = Discussions(site(request).store, repo).merge(
        request.path_params["num"], caller(request).user, data.get("comment")
    )
    return JSONResponse({"mergeCommitId": made.oid})


def _governed(request: Request) -> Repo:
    """The repo, if the caller opened the thread or may write to the repo."""
    repo, who = proposable(request), caller(request)
    if Discussions(site(request).store, repo).get(request.path_params["num"]).author != who.user:
        try:
            who.check_write(repo.id)
        except Forbidden:
            raise Forbidden("Only its author and those who may write to the repo can change a discussion.") from None
    return repo


_THREADS = REPO + "/discussions"
_ONE = _THREADS + "/{num:int}"
ROUTES = [
    Route(_THREADS, list_threads),
    Route(_THREADS, create, methods=["POST"]),
    Route(_ONE, details),
    Route(_ONE + "/comment", comment, methods=["POST"]),
    Route(_ONE + "/title", rename, methods=["POST"]),
    Route(_ONE + "/status", status, methods=["POST"]),
    Route(_ONE + "/merge", merge, methods=["POST"]),
]
