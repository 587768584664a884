"""`hubtune serve`: an HTTP endpoint of a tuned model, and a page to try it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from hubtune import Command, Table, hookimpl


class Serve(Command[Any]):
    """Serve a tuned model: POST /predict answers rows as `hubtune predict --json` does, / is a page to try it, /docs says the
    rest. Requests that wait are predicted together. Ctrl-C stops it, after the requests under way are answered.

    It listens on this machine alone and has no passwords: put a proxy with both before it, then name the proxy's host with
    --allow-host.
    """

    contract = 2
    name = "serve"
    summary = "serve a tuned model by HTTP, with a page to try it"
    requires = ("starlette", "uvicorn")
    extra = "hubtune[serve]"

    def run(
        self,
        model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hub model org/name.")],
        host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: a free one.")] = 8000,
        allow_host: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Another name that it is asked by; can be repeated.")] = None,
        max_batch: Annotated[int, typer.Option(min=1, help="Rows that are predicted together.")] = 64,
        max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.")] = 256,
        max_queue: Annotated[int, typer.Option(min=1, help="Rows that wait; more are refused with 503.")] = 1024,
        max_body: Annotated[int, typer.Option(min=1, metavar="MIB", help="Size of a request.")] = 16,
        timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Until a request is answered with 504.")] = 60.0,
        space: Annotated[str | None, typer.Option(metavar="DIR", help="Do not serve: write a Gradio Space for the published model.")] = None,
        push: Annotated[str | None, typer.Option(metavar="SPACE", help="With --space: publish it, private, under this name.")] = None,
        task: Annotated[str | None, typer.Option(help="The task, for a model that hubtune did not tune.")] = None,
        trust_code: Annotated[list[str] | None, typer.Option(metavar="REPO@COMMIT", help="Run the code beside this model's weights.")] = None,
    ) -> dict[str, Any]:
        from hubtune import RecipeError, load
        from hubtune_plugins.serving.limits import Limits
        from hubtune_plugins.serving.server import serve

        if push and not space:
            raise RecipeError("--push publishes a Space, and none is written.", hint="Add: --space DIR")
        limits = dataclasses.replace(Limits(), batch=max_batch, rows=max_rows, queue=max_queue, body=max_body * 2**20, seconds=timeout)
        loaded = load(model, task=task, trust_code=trust_code)
        if space:
            return written(loaded, space, push)
        endpoint = serve(loaded, host, port, allow_host or (), limits, lambda text: typer.echo(text, err=True))
        return {"model": loaded.name, "task": loaded.task.name, "answered": endpoint.answered, "refused": endpoint.refused,
                "batches": endpoint.batcher.batches}

    def table(self, document: dict[str, Any]) -> Table:
        if "space" in document:
            return Table([], [], [f"space: {document['space']} ({', '.join(document['files'])})",
                                  *([f"published: {document['url']}"] if document["url"] else [])])
        return Table([], [], [f"{document['answered']:,} requests answered in {document['batches']:,} batches, {document['refused']:,} refused"])


def written(model: Any, folder: str, repo: str | None) -> dict[str, Any]:
    """Write a Space for a published model, and publish it where it has a name."""
    from pathlib import Path

    from hubtune import publish_space
    from hubtune_plugins.serving import space

    files = space.write(model, Path(folder))
    return {"space": folder, "files": files, "url": publish_space(folder, repo) if repo else None}


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Serve]
