"""Reading a repo: folder listings, facts about paths, and the files themselves."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.answers import flag, page
from hubtune.testing.hub.refusals import NoSuchEntry
from hubtune.testing.hub.routes.access import origin, readable, seen, site
from hubtune.testing.hub.routes.paths import REPO, of_files
from hubtune.testing.hub.storage import history
from hubtune.testing.hub.storage.blobs import Entry
from hubtune.testing.hub.storage.history import Commit
from hubtune.testing.hub.storage.store import Repo
from hubtune.testing.hub.tickets import Ticket


async def tree(request: Request) -> Response:
    """list_repo_tree."""
    repo, store = seen(request), site(request).store
    commit = store.at(repo, request.path_params["rev"])
    found = history.listing(commit.tree, request.path_params.get("path", ""), flag(request, "recursive"), commit.oid)
    touched = _last_touched(request, repo, commit, [path for path, _ in found]) if flag(request, "expand") else {}
    return page(request, found, site(request).page_size, lambda one: _shown(request, *one, touched.get(one[0])))


async def paths_info(request: Request) -> Response:
    """get_paths_info; paths that are not there are left out."""
    repo, store = seen(request), site(request).store
    # Sent as a form, which Starlette reads only with another package installed.
    form = parse_qs((await request.body()).decode())
    commit = store.at(repo, request.path_params["rev"])
    below: dict[str, Entry | str] = {**commit.tree, **history.folders(commit.tree)}
    found = [path for path in (one.strip("/") for one in form.get("paths", [])) if path in below]
    expand = form.get("expand", [""])[0].lower() in ("1", "true")
    touched = _last_touched(request, repo, commit, found) if expand else {}
    return JSONResponse([_shown(request, path, below[path], touched.get(path)) for path in found])


def _last_touched(request: Request, repo: Repo, commit: Commit, paths: list[str]) -> dict[str, Commit]:
    store = site(request).store
    return history.last_touched(store.log(repo, commit.oid), paths, lambda oid: store.commit(repo, oid))


def _xet_hash(request: Request, sha256: str) -> str | None:
    """Return by which hash a file can be fetched from the Xet storage; None where it cannot."""
    return site(request).store.xet.hash_of(sha256) if site(request).xet else None


def _by_xet(request: Request, repo: Repo, sha256: str, commit: str) -> dict[str, str]:
    """The headers that let a client fetch a file from the Xet storage instead."""
    name = _xet_hash(request, sha256)
    route = f"{origin(request)}/api/{repo.kind}s/{repo.id}/xet-read-token/{commit}"
    return {"X-Xet-Hash": name, "X-Xet-Refresh-Route": route} if name else {}


def _shown(request: Request, path: str, what: Entry | str, touched: Commit | None) -> dict[str, Any]:
    if isinstance(what, str):
        told: dict[str, Any] = {"type": "directory", "oid": what, "size": 0, "path": path}
    else:
        told = {"type": "file", "oid": what.oid, "size": what.size, "path": path}
        if what.sha256:
            told["lfs"] = {"oid": what.sha256, "size": what.size, "pointerSize": what.pointer_size}
            if xet_hash := _xet_hash(request, what.sha256):
                told["xetHash"] = xet_hash
    if touched:
        told["lastCommit"] = {"id": touched.oid, "title": touched.title, "date": touched.date}
    return told


async def resolve(request: Request) -> Response:
    """A file at a revision; a large one is a redirect to where its content lies."""
    repo, store = readable(request), site(request).store
    commit, path = store.at(repo, request.path_params["rev"]), request.path_params["path"]
    entry = commit.tree.get(path)
    if entry is None:
        raise NoSuchEntry(f"Entry '{path}' not found in '{repo.id}' at {commit.oid}.", commit.oid)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{entry.etag}"'}
    if entry.sha256 is None:
        return FileResponse(store.blobs(repo).path(entry), headers=headers, filename=path.rsplit("/", 1)[-1])
    name = site(request).tickets.issue("download", Ticket(repo, entry.sha256, entry.size, commit.oid))
    headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
    headers |= _by_xet(request, repo, entry.sha256, commit.oid)
    return RedirectResponse(f"{origin(request)}/storage/{name}/{quote(path)}", 302, headers)


async def download(request: Request) -> Response:
    """The content of a large file. Clients ask here with HEAD too, so it tells the commit like `resolve` does."""
    ticket = site(request).tickets.redeem("download", request.path_params["name"])
    headers = {"X-Repo-Commit": ticket.commit, "ETag": f'"{ticket.sha256}"'}
    headers |= _by_xet(request, ticket.repo, ticket.sha256, ticket.commit)
    return FileResponse(site(request).store.blobs(ticket.repo).large(ticket.sha256), headers=headers)


ROUTES = [
    Route(REPO + "/tree/{rev:hub_segment}", tree),
    Route(REPO + "/tree/{rev:hub_segment}/{path:hub_path}", tree),
    Route(REPO + "/paths-info/{rev:hub_segment}", paths_info, methods=["POST"]),
    Route("/storage/{name:hub_segment}/{path:hub_path}", download),
]
FILE_ROUTES = [Route(path, resolve) for path in of_files("/resolve/{rev:hub_segment}/{path:hub_path}")]
