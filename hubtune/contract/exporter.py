"""The base class of exporters, and what they are given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune.contract.plugin import OptionsT, Plugin
from hubtune.contract.task import Task

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class Graph:
    """A tuned model as a function of tensors, to be traced.

    module: takes the tensors of `inputs` by position, on the CPU in fp32, and returns a tuple of the `outputs`.
    inputs: a real batch of two rows, by name. axes: by input, the axes that vary, each with a name: `{0: "batch"}`.
    """

    module: Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, Mapping[int, str]]
    outputs: Sequence[str]


class Exporter(Plugin[OptionsT]):
    """A format in which a tuned model runs without hubtune and transformers. `hubtune export --format NAME`.

    hubtune makes the graph, saves the tokenizer or processor beside it, runs `usage` in a clean process on batches of
    other shapes, and keeps the files only if the outputs are those of the trained model.
    """

    file: ClassVar[str]
    """Name of the file that is written, such as `model.onnx`; a quantised one is called `model_int8.onnx`."""
    tolerance: ClassVar[float] = 1e-4
    """Largest difference of an output, relative to the largest output above 1."""
    can_quantize: ClassVar[bool] = False
    """True where `quantize` is implemented."""

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        """Return why a model of this configuration cannot be exported, before its weights are loaded. Default: None."""
        return None

    @abstractmethod
    def export(self, graph: Graph, path: Path) -> None:
        """Write the graph to a file, with its weights."""

    @abstractmethod
    def usage(self, file: str, inputs: Sequence[str], outputs: Sequence[str]) -> str:
        """Return Python without hubtune that loads a file and defines `run`.

        `run(inputs)` takes NumPy arrays by name and returns NumPy arrays by name. The proof runs this very text, and it is
        shown to users.
        """

    def quantize(self, path: Path, target: Path) -> None:
        """Write an exported file with int8 weights to another."""
        raise NotImplementedError
