"""The benchmark of whole commands: its table, its scripts and its page."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.measures import REPO
from benchmarks.whole import __main__ as command
from benchmarks.whole import bases, data, measured, page
from benchmarks.whole.table import BY_NAME, ROWS

PEERS = REPO / "benchmarks" / "whole" / "peers"


def test_every_row_has_data_a_base_model_and_a_script() -> None:
    assert {row.data for row in ROWS} <= {*data.READ, "digits", "speech"}
    assert {row.base for row in ROWS} <= {"minilm", *bases.MADE}
    assert {row.script for row in ROWS} == {path.stem for path in PEERS.glob("*.py")} - {"__init__", "common"}
    assert len(BY_NAME) == len(ROWS)


@pytest.mark.parametrize("path", sorted(PEERS.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_imports_names_that_its_library_has(path: Path) -> None:
    asked = [(node.module, alias.name) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("__future__")
             for alias in node.names]
    for module, _ in asked:
        if importlib.util.find_spec(module.split(".")[0]) is None:
            pytest.skip(f"{module} is not installed (see python -m benchmarks.whole --help)")
    assert [(module, name) for module, name in asked if not hasattr(importlib.import_module(module), name)] == []


def test_both_sides_are_told_the_same(tmp_path: Path) -> None:
    row = BY_NAME["causal-lora"]
    ours = measured.ours(row, tmp_path, tmp_path, tmp_path, 3)
    peer = measured.peer(row, "TRL, packing", tmp_path, tmp_path, tmp_path, 3)
    for key, option in (("epochs", "--epochs"), ("batch_size", "--batch-size"), ("learning_rate", "--lr"),
                        ("max_length", "--max-length"), ("seed", "--seed")):
        said = next(word for word in ours if word.startswith(f"train.{key}="))
        assert float(said.split("=")[1]) == float(peer[peer.index(option) + 1])
    assert peer[-3:] == ["--packing", "1344", "--lora"]


def test_rows_are_cut_without_overlap_and_too_few_are_an_error() -> None:
    splits = dict(data.cut(list(range(20)), {"train": 12, "validation": 8}, "x"))
    assert sorted(splits["train"] + splits["validation"]) == list(range(20))
    with pytest.raises(ValueError, match="x has 20 rows, of which 20 serve, but 21 are needed"):
        list(data.cut(list(range(20)), {"train": 12, "validation": 9}, "x"))


def test_validation_has_only_labels_of_train() -> None:
    every = [{"text": str(number), "label": str(number // 2)} for number in range(200)]
    splits = dict(data.cut(every, {"train": 90, "validation": 10}, "x"))
    assert len(splits["validation"]) == 10
    assert {row["label"] for row in splits["validation"]} <= {row["label"] for row in splits["train"]}
    with pytest.raises(ValueError, match="x has 200 rows, of which 90 serve, but 190 are needed"):
        list(data.cut([{"label": number} for number in range(200)], {"train": 90, "validation": 100}, "x"))


def record(way: str, row_ms: float, seconds: float, peak: float) -> page.Record:
    return {"row": "wnut17", "way": way, "seed": 0, "rows": 480, "epochs": 2, "row_ms": row_ms, "step_ms": 16 * row_ms, "seconds": seconds,
            "peak_bytes": peak, "children_bytes": 0, "loss": 0.5, "load": 0.1}


def test_ratios_are_against_the_best_peer_of_each_figure() -> None:
    found = [record("hubtune", 10, 30, 2e9), record("a", 15, 60, 1e9), record("b", 20, 45, 4e9)]
    assert page.ratios(found) == {"wnut17": {"steps": 1.5, "command": 1.5, "memory": 2.0}}
    assert page.ratios(found[:1]) == page.ratios(found[1:]) == {}


def test_whole_commands_lead_the_page(tmp_path: Path) -> None:
    machine = {"date": "today", "cpu": "x", "cores": 2, "bf16": "AMX", "torch": "2", "transformers": "5", "commit": "abc"}
    parts = page.section([{"machine": machine, "threads": 2}, record("hubtune", 10, 30, 1e9), record("a", 15, 60, 1e9)])
    text = report.page([], [], parts)
    assert text.index("# Performance") < text.index("## Whole commands") < text.index("## How to read it")
    assert "| wnut17 | 1.50 | 2.00 | 1.00 |" in text
    assert "| wnut17 | a | 480 x 2 |" in text
    assert page.read_section(tmp_path / "none.json") == []


def test_memory_is_read_of_a_process_and_of_those_below_it() -> None:
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").is_file():
        pytest.skip("this system does not list the children of a process")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in measured.descendants(os.getpid())
        found = {"peak_bytes": 0, "children_bytes": 0, "together_bytes": 0}
        measured.watch(os.getpid(), found)
        assert found["peak_bytes"] > 2**20
        assert found["children_bytes"] > 0
        child.communicate(b"\n")
    assert measured.memory(child.pid) == (0, 0)


def test_a_quick_run_is_no_result() -> None:
    given = command.asked(["--quick"])
    assert (given.rounds, given.scale) == (1, command.QUICK)
    assert given.out.name == "quick.json"
