"""`hubtune export`: a tuned model in a format that runs elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubtune import Callbacks, Command, Table, hookimpl


class Progress(Callbacks):
    """Print what is done to standard error, since the table is printed only at the end."""

    def on_info(self, text: str) -> None:
        typer.echo(text, err=True)

    def on_warning(self, text: str) -> None:
        typer.echo(f"warning: {text}", err=True)


class Export(Command[Any]):
    """Export a tuned model with its tokenizer or processor: to ONNX for ONNX Runtime, or with torch.export for PyTorch alone. The file
    is run in a clean process on batches of other shapes than it was traced with, and is kept only if its outputs are those of
    the trained model. Adapters are merged first.
    """

    contract = 2
    name = "export"
    summary = "export a tuned model to ONNX or torch.export, proven"

    def run(
        self,
        model: Annotated[str, typer.Argument(help="A run, a model folder, or a Hub model org/name.")],
        format: Annotated[str, typer.Option(help="The exporter: onnx, torch-export, or one of a plugin.")] = "onnx",
        out: Annotated[str | None, typer.Option(metavar="DIR", help="The folder  [default: RUN/FORMAT, or NAME-FORMAT]")] = None,
        int8: Annotated[bool, typer.Option("--int8", help="Also a file with int8 weights; its loss of score is measured.")] = False,
        data: Annotated[str | None, typer.Option(metavar="SOURCE", help="Labelled rows for that  [default: those that the run held out]")] = None,
        push: Annotated[bool, typer.Option("--push", help="Publish it beside the weights on the Hub.")] = False,
        task: Annotated[str | None, typer.Option(help="The task, for a model that hubtune did not tune.")] = None,
        trust_code: Annotated[list[str] | None, typer.Option(metavar="REPO@COMMIT", help="Run the code beside this model's weights.")] = None,
    ) -> dict[str, Any]:
        from hubtune import export

        return export(model, format=format, out=out, int8=int8, data=data, push=push, task=task, trust_code=trust_code, callbacks=Progress())

    def table(self, document: dict[str, Any]) -> Table:
        proof, int8, published = document["proof"], document["int8"], document["published"]
        rows = [[document["file"], megabytes(document["bytes"]), f"{proof['largest_difference']:.1e}"]]
        notes = [f"largest difference from the trained model: on {proof['batches']} batches of other shapes, in a clean process"]
        if int8:
            rows.append([int8["file"], megabytes(int8["bytes"]), None])
            notes.append(f"int8: {int8['text']}")
        return Table(["file", "MB", "largest difference"], rows, [*notes, f"folder: {document['out']}",
                                                                  *([f"published: {published['url']}"] if published else [])])


def megabytes(size: int) -> str:
    """Return a size in millions of bytes."""
    return f"{size / 1e6:.2f}"


@hookimpl
def hubtune_commands() -> list[type[Command[Any]]]:
    return [Export]
