"""The Hub as one ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from hubtune.testing.hub.answers import on_http_error, on_refusal
from hubtune.testing.hub.refusals import Refusal
from hubtune.testing.hub.routes import commits, files, lfs, people, refs, repos, threads, xet
from hubtune.testing.hub.site import Site


def create_app(site: Site) -> Starlette:
    """The routes, the most particular ones first: the last of them take almost any path."""
    api = [*people.ROUTES, *commits.ROUTES, *refs.ROUTES, *threads.ROUTES, *files.ROUTES, *lfs.ROUTES, *xet.ROUTES, *repos.ROUTES]
    app = Starlette(
        routes=[*api, *lfs.FILE_ROUTES, *files.FILE_ROUTES],
        exception_handlers={Refusal: on_refusal, HTTPException: on_http_error},
    )
    app.state.site = site
    return app
