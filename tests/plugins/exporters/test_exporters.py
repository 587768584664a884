"""The exporters: other shapes than the traced ones, in a clean process."""

from __future__ import annotations

import pytest
from hubtune_plugins.exporters.onnx import Onnx
from hubtune_plugins.exporters.torch_export import TorchExport

from hubtune.testing import ExporterConformance


class TestTorchExport(ExporterConformance):
    plugin = TorchExport


@pytest.fixture
def onnx() -> None:
    for name in Onnx.requires:
        pytest.importorskip(name, reason="they come with: pip install 'hubtune[onnx]'")


@pytest.mark.usefixtures("onnx")
class TestOnnx(ExporterConformance):
    plugin = Onnx
