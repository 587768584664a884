"""The commands that verify and reproduce a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hubtune.cli.plugin_commands import AsJson, Debug, PluginFiles, TrustCode, screen, show_json


def verify(
    model: Annotated[str, typer.Argument(
        help="A run, a model folder, or a Hub model org/name[@revision].")],
    trust_code: TrustCode = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Verify that a model is what its training saved."""
    import hubtune

    found = hubtune.verify(model, trust_code=trust_code, callbacks=screen())
    if as_json:
        show_json(found)
        return
    from hubtune.cli import console

    at = f" at {found['commit']}" if found["commit"] else ""
    console.out(f"{found['model']}{at}: it is what its training saved.")
    console.out(f"files:    {found['files']}, {files_line(found)}")
    console.out(f"answers:  {answers_line(found['proof'])}")
    console.out("That says nothing of how good its answers are.")


def files_line(found: dict[str, Any]) -> str:
    """Say what the files were compared with."""
    if not found["sealed"]:
        return "with no seal to compare them with: an earlier version of hubtune trained it"
    left = found["left_out"]
    return "as sealed when training ended" + (f"; not of it: {', '.join(left)}" if left else "")


def answers_line(proof: dict[str, Any]) -> str:
    """Say which answers of the model were compared."""
    said = []
    if "examples" in proof:
        said.append(f"the trained model's outputs on {proof['examples']} examples "
                    f"(largest difference {proof['largest_difference']:.1e})")
    if proof["asked"]:
        said.append(f"its answers to {proof['asked']['rows']} rows, asked as users ask "
                    f"(largest difference {proof['asked']['largest_difference']:.1e})")
    return " and ".join(said) or "none were recorded; it loads in a clean process"


def reproduce(
    model: Annotated[str, typer.Argument(
        help="A run, a model folder, or a Hub model org/name[@revision].")],
    data: Annotated[str | None, typer.Option(help="Where its data is, if the record cannot say.")] = None,
    out: Annotated[str | None, typer.Option(help="The new run's folder  [default: as for train]")] = None,
    trust_code: TrustCode = None,
    plugin: PluginFiles = None, as_json: AsJson = False, debug: Debug = False,
) -> None:
    """Train a model again from its record, and compare."""
    import hubtune

    found = hubtune.reproduce(model, data=data, out=out, trust_code=trust_code, callbacks=screen())
    if as_json:
        show_json(found)
    else:
        from hubtune.cli import console

        differences = [["version", name, one, other] for name, (one, other) in found["versions"].items()]
        differences += [["weights", name, one[:16], other[:16]] for name, (one, other) in found["weights"].items()]
        differences += [["metric", name, one, other] for name, (one, other) in found["metrics"].items()]
        if differences:
            console.table(["", "differs", "recorded", "now"], differences)
        same = "the same weights, bit for bit, and the same scores"
        console.out(f"{found['run']}: {same if found['equal'] else 'not the same'}")
    if not found["equal"]:
        raise typer.Exit(1)
