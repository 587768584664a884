"""ONNX, for ONNX Runtime: written by PyTorch's exporter on `torch.export` (dynamo)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hubtune import Exporter, Graph, hookimpl

INLINE = 1_500_000_000
"""Bytes of weights up to which they lie in the file itself; protobuf ends at 2 GB."""


class Onnx(Exporter[Any]):
    """One file for ONNX Runtime, with axes that vary; with int8 weights on request."""

    contract = 2
    name = "onnx"
    summary = "ONNX, for ONNX Runtime"
    requires = ("onnx", "onnxscript", "onnxruntime")
    extra = "hubtune[onnx]"
    file = "model.onnx"
    can_quantize = True

    def export(self, graph: Graph, path: Path) -> None:
        import torch

        size = sum(weight.numel() * weight.element_size() for weight in graph.module.parameters())
        shapes: Any = (tuple(dict(graph.axes[name]) for name in graph.inputs),)  # one parameter: *tensors
        with quiet(), torch.no_grad():
            torch.onnx.export(
                graph.module, tuple(graph.inputs.values()), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False,
                input_names=list(graph.inputs), output_names=list(graph.outputs), external_data=size > INLINE)

    def quantize(self, path: Path, target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with quiet():
            quantize_dynamic(str(path), str(target), weight_type=QuantType.QInt8)

    def usage(self, file: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
        return (f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])\n\n\n'
                "def run(inputs):\n"
                "    names = [output.name for output in session.get_outputs()]\n"
                "    return dict(zip(names, session.run(names, inputs)))\n")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the libraries print about their own progress from the terminal; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@hookimpl
def hubtune_exporters() -> list[type[Exporter[Any]]]:
    return [Onnx]
