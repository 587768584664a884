"""A run that is trained: what resuming it does, and how its model reads rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.cli import commands
from hubtune.errors import DataError, RecipeError, ResumeError
from hubtune.runs import run


@pytest.mark.parametrize(("rank", "published"), [("0", ["me/model"]), ("1", [])])
def test_the_first_of_several_processes_publishes_a_trained_run(
    rank: str, published: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(__file__).parent / "version_0_1/full", tmp_path / "run")
    record = json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))
    record["recipe"]["publish"]["repo"] = "me/model"
    (tmp_path / "run/run.json").write_text(json.dumps(record), encoding="utf-8")
    pushed: list[str] = []

    def publish(self: Any, repo: str, **settings: Any) -> None:
        pushed.append(repo)

    monkeypatch.setattr(run.Run, "publish", publish)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = run.resume(tmp_path / "run")
    assert pushed == published
    if rank == "1":
        with pytest.raises(ResumeError, match="process 1 of 2 has no run"):
            found.metrics  # noqa: B018


def test_rows_to_predict_and_evaluate_are_read_as_the_user_sets_it(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`data.encoding`, and columns; a column that is set and not there is an error, not looked for again."""
    rows = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
    trained = hubtune.train("text-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                            set={"train.max_steps": 1, "train.verify": False})
    seen: list[str] = []
    monkeypatch.setattr(hubtune.Run, "_predict_rows", lambda self, rows, *more: seen.extend(rows["text"]) or [])
    path = tmp_path / "rows.csv"
    path.write_bytes("text,other,label\nžluťoučký kůň,seven,yes\n".encode("cp1250"))
    trained.predict(path, columns={"encoding": "cp1250"})
    assert commands.main(["predict", str(trained.folder), "--data", str(path), "--set", "data.encoding=cp1250"]) == 0
    assert seen == ["žluťoučký kůň"] * 2
    trained.predict(path, columns={"encoding": "cp1250", "text": "other"})
    assert seen.pop() == "seven"
    with pytest.raises(RecipeError, match="'cp99' is no encoding"):
        trained.predict(path, columns={"encoding": "cp99"})
    for call in (trained.predict, trained.evaluate):
        with pytest.raises(DataError, match="there is no column 'noway'"):
            call(path, columns={"encoding": "cp1250", "text": "noway"})
    assert commands.main(["predict", str(trained.folder), "--data", str(path), "--set", "train.epochs=1"]) == 1
    assert "predict takes --set data.ROLE=COLUMN and data.encoding=NAME only, not train.*" in capsys.readouterr().err
