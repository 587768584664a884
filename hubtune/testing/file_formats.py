"""The conformance kits for data formats and exporters: subclass `FormatConformance` or `ExporterConformance`, and run pytest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hubtune.contract import DataFormat, Exporter, Graph
from hubtune.data import sources
from hubtune.data.data_splits import DataSplits
from hubtune.errors import DataError
from hubtune.runs.exports import proof
from hubtune.testing.bench import Failed, ensure, registered
from hubtune.testing.checks import Conformance

ROWS: tuple[Mapping[str, str], ...] = (
    {"text": "a sunny day", "label": "yes"}, {"text": "rain, \"fog\"; and wind", "label": "no"},
    {"text": "NA", "label": "007"}, {"text": "naïve 日本", "label": "yes"},
)
"""Rows with what readers of files get wrong: quotes, separators, texts that look like numbers or like nothing."""


class FormatConformance(Conformance):
    """Every check that a data format has to pass.

        class TestToml(FormatConformance):
            plugin = Toml

            def write(self, path, rows):
                path.write_text(...)
    """

    plugin: ClassVar[type[DataFormat[Any]]]

    @abstractmethod
    def write(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a file of the format that holds these rows."""

    def written(self, name: str = "rows", rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
        """A file with rows, named with the format's first suffix."""
        ensure(self.plugin.suffixes, "it has no suffixes.", '`suffixes`, such as (".toml",)')
        path = Path(self._place.name) / f"{name}{self.plugin.suffixes[0]}"
        self.write(path, rows)
        return path

    def loaded(self, path: Path) -> DataSplits:
        """The rows of a file, as `hubtune train --data` reads them."""
        with registered(self.plugin):
            return sources.load(path)

    def test_it_matches_its_own_files_alone(self) -> None:
        """A file with its suffix is matched; a missing file, a text file and a folder are not."""
        path, other = self.written(), Path(self._place.name) / "notes.unknown-suffix"
        other.write_text("text", encoding="utf-8")
        made = self.made()
        ensure(made.matches(path) is True, f"it does not match '{path.name}'.", "`suffixes`, `matches`")
        for wrong in (other, path.with_stem("missing"), path.parent):
            ensure(not made.matches(wrong), f"it matches '{wrong.name}'.", "`matches`")

    def test_rows_come_back_as_they_were_written(self) -> None:
        """Each cell is what the file says, in order, the same at every call."""
        path = self.written()
        for _ in range(2):
            found = [{key: str(value) for key, value in row.items()} for row in self.loaded(path).splits["train"]]
            ensure(found == list(map(dict, ROWS)), f"the rows {ROWS} became {found}.", "`read`: every cell is its text, in order")

    def test_files_of_a_folder_are_splits(self) -> None:
        """Files named train and test make two splits."""
        folder = Path(self._place.name) / "folder"
        folder.mkdir(exist_ok=True)
        for name in ("train", "test"):
            self.write(folder / f"{name}{self.plugin.suffixes[0]}", ROWS)
        found = {split: len(rows) for split, rows in self.loaded(folder).splits.items()}
        ensure(found == {"train": len(ROWS), "test": len(ROWS)}, f"a folder with train and test gave {found} rows.", "`read`")

    def test_other_rows_have_another_fingerprint(self) -> None:
        """A changed file is told from the old one, which a resumed run refuses."""
        one, other = self.loaded(self.written("one")), self.loaded(self.written("one", ROWS[:3]))
        ensure(one.fingerprint != other.fingerprint, "other rows have the same fingerprint.", "`FileData.files`: name every file that is read")

    def test_a_broken_file_is_an_error_with_a_message(self) -> None:
        """Bytes that are no such file give a DataError that names the file, and no foreign exception."""
        path = Path(self._place.name) / f"broken{self.plugin.suffixes[0]}"
        path.write_bytes(b"\x00\xff\xfe not a file of this kind \x00")
        try:
            self.loaded(path)
        except DataError as error:
            said = f"{error.where or ''} {error.message}"
            ensure(path.name in said, f"the error does not name the file: {said}", "`read`: DataError(..., where=path.name)")
        except Exception as error:  # of the plugin or a library
            raise Failed(f"a broken file gives a {type(error).__name__}: {error}\nLook at: `read`: raise hubtune.DataError") from error
        else:
            ensure(False, "a broken file is read as rows.", "`read`: raise hubtune.DataError")


def made_graph() -> Graph:
    """A graph with an embedding, a mask and a linear layer: ids and mask (batch, sequence) to logits (batch, 3)."""
    import torch

    class Function(torch.nn.Module):
        """Mean of embedded tokens, then a linear layer."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.linear = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 3)

        def forward(self, *given: Any) -> tuple[Any, ...]:
            """Return the logits."""
            ids, mask = given
            weights = mask.unsqueeze(-1).float()
            return (self.linear((self.embedding(ids) * weights).sum(1) / weights.sum(1)),)

    axes = {0: "batch", 1: "sequence"}
    return Graph(Function().eval(), made_inputs(2, 7), {"input_ids": axes, "attention_mask": axes}, ("logits",))


def made_inputs(rows: int, length: int) -> dict[str, Any]:
    """Return ids and a mask, (rows, length)."""
    import torch

    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:, length // 2 + 1:] = 0
    return {"input_ids": torch.arange(rows * length).view(rows, length) % 50, "attention_mask": mask}


class ExporterConformance(Conformance):
    """Every check that an exporter has to pass.

        class TestPlans(ExporterConformance):
            plugin = Plans
    """

    plugin: ClassVar[type[Exporter[Any]]]

    def test_other_shapes_than_the_traced_ones_have_the_same_outputs(self) -> None:
        """A written file, run by its own usage in a clean process, gives the outputs of the module, in any batch and length."""
        exporter, graph, place = self.made(), made_graph(), Path(self._place.name)
        path = place / "exported" / exporter.file
        path.parent.mkdir()
        exporter.export(graph, path)
        ensure(path.is_file(), f"there is no file '{exporter.file}'.", "`export`: write to `path`")
        batches = [made_inputs(*shape) for shape in ((1, 1), (1, 9), (5, 33))]
        expected = [{"logits": graph.module(*batch.values())[0].detach().numpy()} for batch in batches]
        inputs = [{name: value.numpy() for name, value in batch.items()} for batch in batches]
        files = [(exporter.file, exporter.tolerance)]
        if exporter.can_quantize:
            exporter.quantize(path, path.with_name("int8"))
            files.append(("int8", 0.1))
        for number, (file, tolerance) in enumerate(files):
            scratch = place / str(number)
            scratch.mkdir()
            usage = exporter.usage(file, list(graph.inputs), list(graph.outputs))
            difference, _ = proof.compare(proof.run_clean(path.parent, usage, inputs, scratch), expected, [None] * 3)
            ensure(difference <= tolerance, f"the outputs of '{file}' differ by {difference:.1e}.",
                   "`export`: `graph.axes` vary; `usage`: outputs by their names")
