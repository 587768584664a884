"""Uploading large files by the LFS protocol: ask where, send in one or in many parts, have it verified."""

from __future__ import annotations

import hashlib
import re
import shutil
from math import ceil
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.refusals import NoSuchEntry, Unacceptable
from hubtune.testing.hub.routes.access import body, origin, proposable, site
from hubtune.testing.hub.routes.paths import of_files
from hubtune.testing.hub.storage.store import Repo
from hubtune.testing.hub.tickets import Ticket

_SHA256 = re.compile(r"[0-9a-f]{64}")


async def batch(request: Request) -> Response:
    """Return where to send each object; those the repo holds already need not be sent."""
    # Whoever may open a pull request may upload: what counts is the commit that will use it.
    repo, data = proposable(request), await body(request)
    if data.get("operation") != "upload":
        raise Unacceptable("Only uploads: files are downloaded from their resolve address.")
    told, parts = [], False
    for one in data.get("objects", []):
        sha256, size = str(one.get("oid")), int(one.get("size", -1))
        shown: dict[str, Any] = {"oid": sha256, "size": size}
        if not _SHA256.fullmatch(sha256) or size < 0:
            shown["error"] = {"code": 422, "message": "An object has a sha256 and a size."}
        elif site(request).store.large_entry(repo, sha256) is None:
            shown["actions"] = _actions(request, Ticket(repo, sha256, size))
            parts = parts or "header" in shown["actions"]["upload"]
        told.append(shown)
    return JSONResponse({"transfer": "multipart" if parts else "basic", "objects": told})


def _actions(request: Request, ticket: Ticket) -> dict[str, Any]:
    name, limit = site(request).tickets.issue("upload", ticket), site(request).multipart_above
    here = f"{origin(request)}/storage/{name}"
    verify = {"href": f"{str(request.url).removesuffix('/batch')}/verify"}
    if ticket.size <= limit:
        return {"upload": {"href": here}, "verify": verify}
    count = ceil(ticket.size / limit)
    header = {"chunk_size": str(limit)} | {f"{part:05}": f"{here}/{part}" for part in range(1, count + 1)}
    return {"upload": {"href": here, "header": header}, "verify": verify}


async def put(request: Request) -> Response:
    """A whole object. Content of another hash is refused and not kept."""
    ticket = site(request).tickets.redeem("upload", request.path_params["name"])
    blobs = site(request).store.blobs(ticket.repo)
    with blobs.upload() as incoming:
        async for chunk in request.stream():
            incoming.write(chunk)
        blobs.keep(incoming, ticket.sha256, ticket.size)
    return Response(headers={"ETag": f'"{ticket.sha256}"'})


async def put_part(request: Request) -> Response:
    """One part of an object; sent again, it replaces what was sent before."""
    ticket = site(request).tickets.redeem("upload", request.path_params["name"])
    content = await request.body()
    folder = _parts(request, ticket.repo, request.path_params["name"])
    folder.mkdir(exist_ok=True)
    (folder / f"{request.path_params['part']:05}").write_bytes(content)
    return Response(headers={"ETag": f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'})


async def complete(request: Request) -> Response:
    """Put the parts together. Asked again after it was done, it is still done."""
    name, data = request.path_params["name"], await body(request)
    ticket = site(request).tickets.redeem("upload", name)
    blobs, folder = site(request).store.blobs(ticket.repo), _parts(request, ticket.repo, name)
    if site(request).store.large_entry(ticket.repo, ticket.sha256) is None:
        with blobs.upload() as incoming:
            for part in data.get("parts", []):
                incoming.write(_part(folder, int(part["partNumber"])))
            blobs.keep(incoming, ticket.sha256, ticket.size)
    shutil.rmtree(folder, ignore_errors=True)
    return JSONResponse({"success": True})


async def verify(request: Request) -> Response:
    """Return whether an object has arrived whole."""
    repo, data = proposable(request), await body(request)
    entry = site(request).store.large_entry(repo, str(data.get("oid")))
    if entry is None or entry.size != data.get("size"):
        raise NoSuchEntry(f"No object {data.get('oid')} of {data.get('size')} bytes was uploaded to '{repo.id}'.")
    return JSONResponse({})


def _parts(request: Request, repo: Repo, name: str) -> Path:
    return site(request).store.blobs(repo).incoming / f"{name}.parts"


def _part(folder: Path, number: int) -> bytes:
    try:
        return (folder / f"{number:05}").read_bytes()
    except FileNotFoundError:
        raise Unacceptable(f"Part {number} was never sent.") from None


ROUTES = [
    Route("/storage/{name:hub_segment}", put, methods=["PUT"]),
    Route("/storage/{name:hub_segment}", complete, methods=["POST"]),
    Route("/storage/{name:hub_segment}/{part:int}", put_part, methods=["PUT"]),
]
FILE_ROUTES = [
    Route(path, endpoint, methods=["POST"])
    for tail, endpoint in (("batch", batch), ("verify", verify))
    for path in of_files(f".git/info/lfs/objects/{tail}")
]
