"""Writing a repo: what must be uploaded how, and the commit itself, on a branch or as a pull request."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.answers import flag
from hubtune.testing.hub.refusals import Forbidden, NoSuchRevision, Unacceptable
from hubtune.testing.hub.routes.access import address, body, caller, needed, proposable, seen, site
from hubtune.testing.hub.routes.paths import REPO
from hubtune.testing.hub.storage import card
from hubtune.testing.hub.storage.blobs import Entry, is_large
from hubtune.testing.hub.storage.discussions import Discussions, propose
from hubtune.testing.hub.storage.history import Change, Commit, Delete, Write
from hubtune.testing.hub.storage.ignored import is_ignored
from hubtune.testing.hub.storage.store import Repo, Store


async def preupload(request: Request) -> Response:
    """For each file: how to send it, whether .gitignore keeps it out, and what lies at its path now."""
    repo, data, store = _target(request), await body(request), site(request).store
    tree, blobs = store.at(repo, request.path_params["rev"]).tree, store.blobs(repo)
    gitignore = data.get("gitIgnore")
    if gitignore is None and ".gitignore" in tree:
        gitignore = blobs.path(tree[".gitignore"]).read_text("utf-8", errors="replace")
    told = []
    for file in data.get("files", []):
        path, sample = needed(file, "path"), _decoded(file.get("sample", ""))
        mode = "lfs" if is_large(path, int(file.get("size", 0)), sample) else "regular"
        now = tree[path].etag if path in tree else None
        told.append({"path": path, "uploadMode": mode, "shouldIgnore": is_ignored(path, gitignore or ""), "oid": now})
    return JSONResponse({"files": told})


async def commit(request: Request) -> Response:
    """create_commit: everything in the body becomes one commit, or nothing does."""
    repo, raw, store = _target(request), await request.body(), site(request).store
    header, changes = _read(store, repo, raw)
    title, text, parent = needed(header, "summary"), str(header.get("description") or ""), header.get("parentCommit")
    author, ref = caller(request).user, _branch(repo, request.path_params["rev"])
    here = address(request, repo)
    if not flag(request, "create_pr"):
        made = store.add(repo, ref, changes, title, author, text, parent)
        return JSONResponse(_told(here, made))
    start = _full(store, repo, parent) if parent else repo.refs[ref]
    # The files must go in before the pull request is seen: a refused commit leaves no empty one behind.
    store.check(repo, start, changes)
    thread = propose(store, repo, title, author, text, ref, start)
    made = store.add(repo, thread.ref, changes, title, author, text)
    return JSONResponse({**_told(here, made), "pullRequestUrl": f"{here}/discussions/{thread.num}"})


def _told(here: str, made: Commit) -> dict[str, Any]:
    return {"success": True, "commitOid": made.oid, "commitUrl": f"{here}/commit/{made.oid}"}


def _target(request: Request) -> Repo:
    """The repo, if the caller may put a commit where the path says."""
    repo, who, rev = seen(request), caller(request), request.path_params["rev"]
    if flag(request, "create_pr"):
        return proposable(request)
    if rev.startswith("refs/pr/") and rev in repo.refs:
        thread = Discussions(site(request).store, repo).get(int(rev.rsplit("/", 1)[1]))
        if thread.author == who.user:
            return proposable(request)
    try:
        who.check_write(repo.id)
    except Forbidden as error:
        raise Forbidden(f"{error} Pass `create_pr=1` as a query parameter to create a Pull Request.") from None
    return repo


def _branch(repo: Repo, rev: str) -> str:
    for ref in (rev, f"refs/heads/{rev}"):
        if ref in repo.refs and not ref.startswith("refs/tags/"):
            return ref
    if f"refs/tags/{rev}" in repo.refs:
        raise Unacceptable(f"'{rev}' is a tag: commits go to branches and pull requests.")
    raise NoSuchRevision(f"Invalid rev id: {rev}")


def _full(store: Store, repo: Repo, start: str) -> str:
    known = [one.oid for one in store.log(repo, repo.refs["refs/heads/main"]) if one.oid.startswith(start)]
    return known[0] if len(known) == 1 and len(start) >= 7 else store.resolve(repo, start)


def _read(store: Store, repo: Repo, raw: bytes) -> tuple[dict[str, Any], list[Change]]:
    try:
        lines = [json.loads(line) for line in raw.splitlines() if line.strip()]
        parts = [(str(line["key"]), dict(line["value"])) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise Unacceptable("The body of a commit is one JSON object with 'key' and 'value' per line.") from None
    if not parts or parts[0][0] != "header":
        raise Unacceptable("A commit starts with its header.")
    return parts[0][1], [_change(store, repo, key, value) for key, value in parts[1:]]


def _change(store: Store, repo: Repo, key: str, value: dict[str, Any]) -> Change:
    path = needed(value, "path")
    if key in ("deletedFile", "deletedFolder"):
        return Delete(path.rstrip("/"), folder=key == "deletedFolder")
    if key == "file":
        text = str(value.get("content", ""))
        content = _decoded(text) if value.get("encoding") == "base64" else text.encode()
        if path == "README.md" and (errors := card.problems(content.decode(errors="replace"), repo.kind)[0]):
            raise Unacceptable("Invalid metadata in README.md: " + "; ".join(errors))
        return Write(path, store.blobs(repo).put(content))
    if key == "lfsFile":
        return Write(path, _uploaded(store, repo, path, needed(value, "oid")))
    raise Unacceptable(f"A commit cannot hold '{key}'.")


def _uploaded(store: Store, repo: Repo, path: str, sha256: str) -> Entry:
    entry = store.large_entry(repo, sha256)
    if entry is None:
        raise Unacceptable(f"The content of '{path}' (sha256 {sha256}) was never uploaded to '{repo.id}'.")
    return entry


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unacceptable("The content is not base64.") from None


ROUTES = [
    Route(REPO + "/preupload/{rev:hub_segment}", preupload, methods=["POST"]),
    Route(REPO + "/commit/{rev:hub_segment}", commit, methods=["POST"]),
]
