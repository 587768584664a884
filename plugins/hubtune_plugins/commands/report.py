"""`hubtune report`: the page of a finished run, written anew."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubtune import Command, Table, hookimpl


class Report(Command[Any]):
    """The page of a finished run, `report.html` in its folder, written anew from what the folder holds: scores with intervals,
    curves, the task's own figures, the worst rows, data findings, cost, settings. It needs no network, and is never published.
    """

    contract = 2
    name = "report"
    summary = "write the page of a finished run anew"

    def run(
        self,
        run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
        rows: Annotated[bool, typer.Option("--rows/--no-rows", help="Show the worst rows with their texts, or figures alone.")] = True,
    ) -> dict[str, Any]:
        from hubtune import write_report

        return {"run": run, "report": str(write_report(run, rows=rows)), "rows": rows}

    def table(self, document: dict[str, Any]) -> Table:
        return Table([], [], [f"report: {document['report']}"])


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Report]
