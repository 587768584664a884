"""`hubtune export`: proven, or nothing is left; int8 scored; published beside the weights that it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hubtune_plugins.exporters.torch_export import TorchExport

import hubtune
from hubtune.cli import commands
from hubtune.errors import Conflict, ModelError, ProofError, RecipeError
from hubtune.hub.origin import locate
from hubtune.runs.exports import graph
from hubtune.runs.proofs import verify


@pytest.fixture(scope="module")
def run(tiny_model: Callable[..., Path], reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> hubtune.Run:
    return hubtune.train("text-classification", model=tiny_model("bert"), data=reviews, strategy="lora",
                         out=tmp_path_factory.mktemp("exports") / "run", set={"train.max_steps": 2, "train.verify": False})


@pytest.fixture(scope="module")
def exported(run: hubtune.Run) -> dict[str, Any]:
    return hubtune.export(run.folder, format="torch-export")


def test_the_file_is_proven_on_other_shapes_and_described(run: hubtune.Run, exported: dict[str, Any]) -> None:
    folder = run.folder / "torch-export"
    assert exported["out"] == str(folder)
    written = json.loads((folder / "export.json").read_text())
    assert written == {key: value for key, value in exported.items() if key not in ("out", "published")}
    assert {path.name for path in folder.iterdir()} >= {"model.pt2", "tokenizer.json", "config.json", "README.md"}
    assert exported["inputs"]["input_ids"] == {"dtype": "int64", "shape": ["batch", "sequence"]}
    assert exported["labels"] == ["negative", "neutral", "positive"]
    shapes = [one["input_ids"] for one in exported["proof"]["shapes"]]
    assert [rows for rows, _ in shapes] == [1, 3, 1, 5]
    assert len({length for _, length in shapes}) == 4
    assert exported["proof"]["largest_difference"] <= 1e-5


def test_the_page_s_code_gives_the_logits_of_the_trained_model(
    run: hubtune.Run, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (run.folder / "torch-export" / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(run.folder / "torch-export")
    space: dict[str, Any] = {}
    exec(code, space)
    logits = space["run"]({name: space["inputs"][name] for name in space["INPUTS"]})["logits"][0]
    (wanted,) = run.predict(["What a lovely day"])
    found = np.exp(logits) / np.exp(logits).sum()
    assert dict(zip(exported["labels"], found.tolist(), strict=True)) == pytest.approx(wanted["probabilities"], abs=1e-5)


@pytest.mark.parametrize("wrong", ["outputs", "code"])
def test_a_file_that_differs_leaves_nothing_and_the_earlier_one_stays(
    wrong: str, run: hubtune.Run, exported: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = TorchExport.usage
    change = (".numpy()", ".numpy() + 1e-3") if wrong == "outputs" else ("import torch", "import transformers")
    monkeypatch.setattr(TorchExport, "usage", lambda self, *given: usage(self, *given).replace(*change))
    monkeypatch.setattr(TorchExport, "export", lambda self, made, path: path.write_bytes(
        (run.folder / "torch-export" / "model.pt2").read_bytes()))
    before = (run.folder / "torch-export" / "export.json").read_text()
    with pytest.raises(ProofError, match="Nothing was kept"):
        hubtune.export(run.folder, format="torch-export", out=tmp_path / "new" if wrong == "outputs" else None)
    assert list(tmp_path.iterdir()) == []
    assert (run.folder / "torch-export" / "export.json").read_text() == before
    assert not list(run.folder.glob("*.partial"))


def test_what_cannot_be_exported_is_refused_before_weights_are_loaded(run: hubtune.Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="no folder of an earlier export"):
        hubtune.export(run.folder, format="torch-export", out=tmp_path)
    with pytest.raises(RecipeError, match="has no int8"):
        hubtune.export(run.folder, format="torch-export", int8=True)
    with pytest.raises(RecipeError, match="not published"):
        hubtune.export(run.folder, format="torch-export", push=True)
    with pytest.raises(hubtune.UnknownPlugin, match="no exporter named 'onx'"):
        hubtune.export(run.folder, format="onx")
    task = hubtune.load(run.folder).task
    task.model = "AutoModelForSeq2SeqLM"  # type: ignore[misc]
    with pytest.raises(ModelError, match="are not exported"):
        graph.refuse(task)
    assert commands.main(["export", str(tmp_path / "missing")]) == 1


def test_it_is_published_on_the_commit_that_was_exported_and_goes_with_its_weights(logged_in: Any, tmp_path: Path) -> None:
    from hubtune import hub

    def names() -> set[str]:
        return set(locate("me/exported").files) - {".gitattributes"}

    first = logged_in.add_model("me/exported", {"config.json": b"{}", "onnx/old.onnx": b"old", "notes.md": b"mine"})
    for name in ("export.json", "model.onnx", "preprocessor_config.json"):
        path = tmp_path / "new" / "onnx" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    result = hub.push_beside(tmp_path / "new", "me/exported", first)
    assert result.parent == first
    beside = {"onnx/export.json", "onnx/model.onnx", "onnx/preprocessor_config.json"}
    assert names() == {"config.json", "notes.md", *beside}
    with pytest.raises(Conflict, match="made from"):
        hub.push_beside(tmp_path / "new", "me/exported", first)
    assert verify.changed(tmp_path, locate("me/exported"), {"files": {}, "results": {}}) == []
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text('{"a": 1}')
    hub.push(tmp_path / "weights", "me/exported", message="new weights")
    assert names() == {"config.json", "notes.md"}


def test_int8_is_scored_on_the_rows_that_the_run_held_out(run: hubtune.Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="they come with: pip install 'hubtune[onnx]'")
    assert commands.main(["export", str(run.folder), "--int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    record = run.record
    split = "test" if "test" in record["metrics"] else "validation"
    assert found["proof"]["largest_difference"] <= 1e-5
    assert found["int8"]["before"] == pytest.approx(record["metrics"][split]["accuracy"], abs=1e-9)
    assert found["int8"]["rows"] == record["rows"][split] if "rows" in record else True
    assert found["int8"]["bytes"] < found["bytes"]
