"""Sending and fetching large files by the Xet protocol: tokens from the Hub, then its content-addressed storage."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from hubtune.testing.hub.answers import failure
from hubtune.testing.hub.refusals import Forbidden
from hubtune.testing.hub.routes.access import origin, proposable, readable, site
from hubtune.testing.hub.routes.paths import REPO
from hubtune.testing.hub.storage import xet
from hubtune.testing.hub.storage.store import Repo
from hubtune.testing.hub.storage.xet import Term
from hubtune.testing.hub.tickets import Ticket

_VALID_S = 3600
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


async def write_token(request: Request) -> Response:
    """Access to the storage for an upload to a repo. Whoever may open a pull request may upload, as by LFS."""
    return _token(request, proposable, "xet-write")


async def read_token(request: Request) -> Response:
    """Access to the storage for a download from a repo."""
    return _token(request, readable, "xet-read")


def _token(request: Request, allowed: Callable[[Request], Repo], purpose: str) -> Response:
    if not site(request).xet:
        # Say how to reach this Hub, instead of a bare 404 from deep inside an upload.
        return failure(404, "This Hub has no Xet storage: set HF_HUB_DISABLE_XET=1 before huggingface_hub is imported.")
    token = site(request).tickets.issue(purpose, Ticket(allowed(request), "", 0))
    until, here = int(time.time()) + _VALID_S, origin(request)
    headers = {"X-Xet-Cas-Url": here, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}
    return JSONResponse({"casUrl": here, "accessToken": token, "exp": until}, headers=headers)


def _ticket(request: Request, *purposes: str) -> Ticket:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    purpose = next((one for one in purposes if token.startswith(one)), "")
    if not purpose:
        raise Forbidden("A token of the storage is needed.")
    return site(request).tickets.redeem(purpose, token)


async def chunk(request: Request) -> Response:
    """Chunks of others are not offered for deduplication."""
    _ticket(request, "xet-write")
    return failure(404, "The chunk is not known.")


async def add_xorb(request: Request) -> Response:
    """Keep a xorb."""
    _ticket(request, "xet-write")
    return JSONResponse({"was_inserted": site(request).store.xet.add_xorb(request.path_params["hash"], await request.body())})


async def add_shard(request: Request) -> Response:
    """Keep the files that a shard describes; their xorbs are there."""
    ticket, store = _ticket(request, "xet-write"), site(request).store
    for file in xet.files(await request.body()):
        store.xet.add_file(file, store.blobs(ticket.repo))
    return JSONResponse({"result": 1})


async def reconstruction(request: Request) -> Response:
    """Return which chunks a file, or a range of it, is made of, and where they are."""
    _ticket(request, "xet-read", "xet-write")
    store = site(request).store.xet
    file, asked = store.file(request.path_params["hash"]), _RANGE.match(request.headers.get("range", ""))
    begin, end = (int(asked[1]), int(asked[2] or 1 << 60)) if asked else (0, 1 << 60)
    terms, at, before = list[Term](), 0, 0
    for term in file.terms:
        if at <= end and at + term.size > begin:
            before = before if terms else begin - at
            terms.append(term)
        at += term.size
    if not terms:
        return failure(416, "The file ends before that range.")
    fetched: dict[str, list[dict[str, object]]] = {}
    for name in dict.fromkeys(term.xorb for term in terms):
        # One range for each xorb: ranges that overlap make the client panic.
        first = min(term.first for term in terms if term.xorb == name)
        last = max(term.end for term in terms if term.xorb == name)
        places = xet.chunks(store.xorb(name).read_bytes())[first:last]
        fetched[name] = [{"range": {"start": first, "end": last}, "url": f"{origin(request)}/xet/xorbs/{name}",
                          "url_range": {"start": places[0][0], "end": places[-1][1] - 1}}]
    shown = [{"hash": term.xorb, "unpacked_length": term.size, "range": {"start": term.first, "end": term.end}} for term in terms]
    return JSONResponse({"offset_into_first_range": before, "terms": shown, "fetch_info": fetched})


async def xorb(request: Request) -> Response:
    """The content of a xorb, or a range of it."""
    return FileResponse(site(request).store.xet.xorb(request.path_params["hash"]))


ROUTES = [
    Route(REPO + "/xet-write-token/{rev:hub_segment}", write_token),
    Route(REPO + "/xet-read-token/{rev:hub_segment}", read_token),
    Route("/v1/chunks/{prefix:hub_segment}/{hash:hub_segment}", chunk),
    Route("/v1/xorbs/{prefix:hub_segment}/{hash:hub_segment}", add_xorb, methods=["POST"]),
    Route("/v1/shards", add_shard, methods=["POST"]),
    Route("/v1/reconstructions/{hash:hub_segment}", reconstruction),
    Route("/xet/xorbs/{hash:hub_segment}", xorb),
]
