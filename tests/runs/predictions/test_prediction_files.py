"""Files of predictions: every format, columns that are kept, standard input, and calls that are killed and gone on with."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import hubtune
from hubtune.cli import commands
from hubtune.errors import BusyError, DataError, RecipeError, ResumeError
from hubtune.runs import run_lock
from hubtune.runs.predictions import parts, records, windows, writers

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-1+cmd", "@SUM(A1)", "\t=1", " =1", "\uff1dcmd()"]
PLAIN = ["-1", "+1.5", "-2e5", "ham", "a=b", "me@here"]
TEXTS = [f"{'good' if n % 2 else 'bad'} thing {n} " + "word " * (n % 7) for n in range(21)]


@pytest.fixture(scope="module")
def run(tiny_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tuned model with the labels yes and no."""
    rows = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
    return hubtune.train("text-classification", model=tiny_model("bert"), data=rows, out=tmp_path_factory.mktemp("tuned") / "run",
                         set={"train.max_steps": 1, "train.verify": False})


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows in 3 windows."""
    monkeypatch.setattr(windows, "WINDOW", 8)
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text", "label"), *((f"i{n}", text, "yes") for n, text in enumerate(TEXTS))])
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, in the types of its format."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".xlsx":
        openpyxl = pytest.importorskip("openpyxl")
        header, *rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
        return [dict(zip(header, row, strict=True)) for row in rows]
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    if ".csv" in path.name:
        return list(csv.DictReader(text.splitlines()))
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet", ".xlsx"])
def test_every_format_holds_the_predictions_in_order(run: Any, data: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    done = run.predict_file(data, out, keep=["id", "label"], probabilities=True)
    assert done == {"out": str(out), "rows": 21, "resumed": 0, "escaped": 0}
    expected, found = run.predict(data), read(out)
    assert [row["id"] for row in found] == [f"i{n}" for n in range(21)]
    assert [row["predicted_label"] for row in found] == [answer["label"] for answer in expected]
    for row, answer in zip(found, expected, strict=True):
        for label in ("yes", "no"):
            assert float(row[f"probability_{label}"]) == pytest.approx(answer["probabilities"][label], abs=1e-6)
    assert {row["label"] for row in found} == {"yes"}, "the column of the data"
    assert "text" not in found[0]
    assert not out.with_name(f"{out.name}.partial").exists()


def test_the_name_of_an_unknown_format_is_refused_before_the_model_is_loaded(run: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"not 'out\.txt'"):
        run.predict_file(data, tmp_path / "out.txt")
    with pytest.raises(DataError, match="no column idd to keep"):
        run.predict_file(data, tmp_path / "out.csv", keep=["idd"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


KILLED = """
import os, signal, sys
import hubtune
from hubtune.runs.predictions import parts, windows
windows.WINDOW = 8
write = parts.Parts.write
def killed(self, number, *more):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, number, *more)
parts.Parts.write = killed
hubtune.load(sys.argv[1]).predict_file(sys.argv[2], sys.argv[3], keep="all")
"""


@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz"])
def test_a_killed_call_goes_on_and_writes_the_same_file(run: Any, data: Path, tmp_path: Path, suffix: str) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    run.predict_file(data, whole, keep="all")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(run.folder), str(data), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert run.predict_file(data, out, keep="all")["resumed"] == 16
    assert out.read_bytes() == whole.read_bytes()


def stopped(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> BaseException:
    """Stop a call after its first window."""
    write = parts.Parts.write

    def interrupted(self: parts.Parts, number: int, *more: Any) -> None:
        if number:
            raise KeyboardInterrupt
        write(self, number, *more)

    with monkeypatch.context() as patched:
        patched.setattr(parts.Parts, "write", interrupted)
        with pytest.raises(KeyboardInterrupt) as found:
            call()
    return found.value


def test_what_has_changed_is_refused(run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    error = stopped(monkeypatch, lambda: run.predict_file(data, out))
    assert "8 rows are kept in" in error.__notes__[0]
    with pytest.raises(ResumeError, match="the keep has changed since the file was begun: all instead of"):
        run.predict_file(data, out, keep="all")
    before = data.read_text(encoding="utf-8")
    data.write_text(before.replace("thing 3", "thing three"), encoding="utf-8")
    with pytest.raises(ResumeError, match="the data has changed") as refused:
        run.predict_file(data, out)
    assert f"rm -r {out}.partial" in str(refused.value.hint)
    data.write_text(before, encoding="utf-8")
    manifest = Path(f"{out}.partial") / parts.MANIFEST
    manifest.write_text(manifest.read_text().replace("sha256:", "sha256:0"))
    with pytest.raises(ResumeError, match="the model has changed"):
        run.predict_file(data, out)
    assert not out.exists()


def test_one_process_at_a_time_writes_a_file(run: Any, data: Path, tmp_path: Path) -> None:
    with run_lock.hold(tmp_path / "out.csv.partial"), pytest.raises(BusyError, match="the predictions"):
        run.predict_file(data, tmp_path / "out.csv")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """given("...") is standard input with a text."""
    with contextlib.ExitStack() as stack:
        def give(text: str) -> None:
            path = tmp_path / "given"
            path.write_text(text, encoding="utf-8")
            monkeypatch.setattr(sys, "stdin", stack.enter_context(path.open(encoding="utf-8")))

        yield give


def test_standard_input_is_texts_or_rows(run: Any, data: Path, tmp_path: Path, given: Any) -> None:
    expected = [answer["label"] for answer in run.predict(TEXTS)]
    out = tmp_path / "out.jsonl"
    given("".join(f"{text}\n" for text in TEXTS))
    assert run.predict_file("-", out)["rows"] == 21
    assert [row["label"] for row in read(out)] == expected
    rows = [{"n": n, "text": text, **({"late": [n]} if n > 9 else {})} for n, text in enumerate(TEXTS)]
    given("\n".join(map(json.dumps, rows)))
    run.predict_file("-", out, keep="all")
    found = read(out)
    assert [(row["n"], row["text"], row["label"]) for row in found] == [(n, text, label) for n, (text, label) in enumerate(zip(TEXTS, expected, strict=True))]
    assert [row["late"] for row in found[8:12]] == [None, None, [10], [11]]


def test_a_stream_goes_on_only_after_the_same_rows(
    run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    out, whole = tmp_path / "out.csv", "".join(f"{text}\n" for text in TEXTS)
    given(whole)
    stopped(monkeypatch, lambda: run.predict_file("-", out))
    given(whole.replace("thing 2", "thing two"))
    with pytest.raises(DataError, match="its first 8 lines are not those"):
        run.predict_file("-", out)
    given(whole)
    assert run.predict_file("-", out) == {"out": str(out), "rows": 21, "resumed": 8, "escaped": 0}


@pytest.mark.parametrize(("text", "message"), [
    ('{"text": "a"}\n[1]\n', "line 2 is list"), ('{"text": "a"}\n{"text"\n', "line 2 is not JSON"), ("a\n\nb\n", "1 of 3 rows have an empty text")])
def test_lines_that_are_no_rows_are_refused(
    run: Any, tmp_path: Path, given: Any, text: str, message: str
) -> None:
    given(text)
    with pytest.raises(DataError, match=message):
        run.predict_file("-", tmp_path / "out.csv")


def test_the_command_reads_a_stream_and_warns_of_what_looks_like_a_file(
    run: Any, data: Path, tmp_path: Path, given: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(run.folder)
    given("good\nbad\n")
    assert commands.main(["predict", folder, "-"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1"]
    given("text,label\ngood,yes\n")
    assert commands.main(["predict", folder, "-", "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["predictions"]) == 2
    assert "looks like the header of a table" in captured.err
    assert commands.main(["predict", folder, str(data), "other.parquet", "a text, with commas.csv", "good"]) == 0
    captured = capsys.readouterr().err
    assert captured.count("looks like the name of a file") == 2
    assert f"hubtune predict {folder} --data other.parquet" in captured
    out = tmp_path / "out.parquet"
    assert commands.main(["predict", folder, "--data", str(data), "--out", str(out), "--keep", "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 21
    assert commands.main(["predict", folder, "good", "--keep", "all"]) == 2


# ---------------------------------------------------------------------------------------------- cells and types


def recorded(tmp_path: Path, predictions: list[dict[str, Any]], probabilities: bool = False) -> records.Records:
    """The rows of a part with these predictions."""
    kept = parts.Parts(tmp_path / "x")
    kept.folder.mkdir()
    kept.write(0, None, predictions, "")
    return records.Records(kept.paths, probabilities)


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    found = [{"label": text, "probability": -0.5} for text in [*FORMULAS, *PLAIN]]
    rows = recorded(tmp_path, [*found, {"labels": ["=a", "b"], "label": None}])
    escaped = writers.write(rows, tmp_path / "out.csv", ".csv", lambda rows: None)
    assert escaped == len(FORMULAS) + 1
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["label"] for row in written] == [*(f"'{text}" for text in FORMULAS), *PLAIN, ""]
    assert written[-1]["labels"] == "'=a|b"
    assert {row["probability"] for row in written} == {"-0.5", ""}
    assert writers.write(rows, tmp_path / "out.jsonl", ".jsonl", lambda rows: None) == 0
    assert [row["label"] for row in read(tmp_path / "out.jsonl")] == [*FORMULAS, *PLAIN, None]


def test_a_workbook_holds_formulas_as_texts(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    rows = recorded(tmp_path, [{"label": "=1+1"}, {"label": "\x07bell" + "a" * 40_000}])
    writers.write(rows, tmp_path / "out.xlsx", ".xlsx", lambda rows: None)
    sheet = openpyxl.load_workbook(tmp_path / "out.xlsx").active
    assert (sheet["B2"].value, sheet["B2"].data_type) == ("=1+1", "s")
    assert sheet["B3"].value.startswith("bella")
    assert len(sheet["B3"].value) == writers.MAX_CELL
    with pytest.raises(RecipeError, match="1,048,575 rows"):
        writers.refuse_too_many(tmp_path / "out.xlsx", 2_000_000)


def test_values_without_one_type_are_json_in_parquet(tmp_path: Path) -> None:
    rows = recorded(tmp_path, [{"found": 1, "spans": [{"a": 1}]}, {"found": "x", "spans": []}])
    writers.write(rows, tmp_path / "out.parquet", ".parquet", lambda rows: None)
    assert read(tmp_path / "out.parquet") == [
        {"row": 0, "found": "1", "spans": [{"a": 1}]}, {"row": 1, "found": "x", "spans": []}]


def test_tasks_without_probabilities_say_so() -> None:
    with pytest.raises(RecipeError, match="gives no probability for each label"):
        records.require_probabilities([{"answer": "x"}], "question-answering")
