"""`torch.export`: a file that PyTorch alone runs, without transformers and the model's code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubtune import Exporter, Graph, hookimpl


class TorchExport(Exporter[Any]):
    """A program of `torch.export`, which AOTInductor and ExecuTorch compile further."""

    contract = 2
    name = "torch-export"
    summary = "torch.export, for PyTorch without the model's code"
    file = "model.pt2"

    def export(self, graph: Graph, path: Path) -> None:
        import torch

        vary = torch.export.Dim.DYNAMIC
        shapes: Any = (tuple(dict.fromkeys(graph.axes[name], vary) for name in graph.inputs),)  # one parameter: *tensors
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph.module, tuple(graph.inputs.values()), dynamic_shapes=shapes, strict=False)
            torch.export.save(program, path)

    def usage(self, file: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
        return (f'import torch\n\nprogram = torch.export.load("{file}").module()\nINPUTS = {list(inputs)}\nOUTPUTS = {list(outputs)}\n\n\n'
                "def run(inputs):\n"
                "    with torch.no_grad():\n"
                "        found = program(*(torch.from_numpy(inputs[name]) for name in INPUTS))\n"
                "    return {name: value.numpy() for name, value in zip(OUTPUTS, found)}\n")


@hookimpl
def hubtune_exporters() -> list[type[Exporter[Any]]]:
    return [TorchExport]
