"""The parts of the benchmarks that time nothing: rows, plans, intervals and the page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import accuracy, large, measures, report, rows, training


def steps_of(norms: list[float]) -> measures.Steps:
    count = len(norms)
    return measures.Steps(
        cpu=[2.0 * step for step in range(count)], wall=[4.0 * step for step in range(count)], losses=[1.0] * count, norms=norms,
        tokens=[1000, *[160] * (count - 1), 999],  # the last is of a batch that was fetched and not learned
    )


def test_pairs_of_answers_become_three_kinds_of_text(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"}) + "\n", encoding="utf-8")
    assert rows.read_split(tmp_path, "train") == [("p", "question"), ("c", "right"), ("r", "wrong")]


def test_rows_of_tables_are_texts_and_labels(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        (tmp_path / "set" / f"{split}.csv").write_text('label,text,more\nb,"x, y",1\na,z,2\n', encoding="utf-8")
    found = rows.read("set", tmp_path)
    assert found.train == [("x, y", "b"), ("z", "a")]
    assert found.classes == ["a", "b"]


def test_the_same_rows_are_drawn_for_a_seed() -> None:
    every = [(str(number), "a") for number in range(50)]
    assert rows.drawn(every, 20, 1) == rows.drawn(every, 20, 1) != rows.drawn(every, 20, 2)
    assert len(set(rows.drawn(every, 20, 1))) == 20
    assert len(rows.drawn(every, 60, 1)) == 50


def test_the_first_step_is_not_counted() -> None:
    found = steps_of([1.0] * 5).figures()
    assert found["rows"] == 64
    assert found["cpu_ms"] == pytest.approx(125)
    assert found["wall_ms"] == pytest.approx(250)
    assert found["tokens_a_row"] == pytest.approx(10)
    assert found["tokens_a_second"] == pytest.approx(80)


@pytest.mark.parametrize("norms", [[1.0, 0.0, 1.0], [1.0, float("nan")], []])
def test_a_step_without_a_gradient_is_refused(norms: list[float]) -> None:
    with pytest.raises(AssertionError, match="without a gradient"):
        steps_of(norms).figures()


def trained(variant: str, seed: int, cpu: float, **more: float) -> report.Record:
    return {"stage": "training", "threads": 1, "data": "sentiment_uci", "variant": variant, "seed": seed, "steps": 4, "padded_steps": 2,
            "cpu_ms": cpu, "wall_ms": 2 * cpu, "tokens_a_row": 17.0, "peak_bytes": 2**30, "share": 0.25, "loss": 0.5, "norm": 1.5,
            "gemm": {"fp32": 200.0, "bf16": 400.0}, **more}


def cells(text: str, first: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_of_medians_and_lora_is_beside_lora() -> None:
    found = [trained("textbook fp32", turn, cpu) for turn, cpu in enumerate((90, 100, 200))]
    found += [trained("hubtune bf16 random", turn, cpu) for turn, cpu in enumerate((10, 20, 30))]
    found += [trained("textbook lora", 0, 60), trained("hubtune lora", 0, 15)]
    text = report.training_table(found)
    assert cells(text, "variant")[:5] == ["variant", "CPU ms", "wall ms", "x textbook fp32", "x textbook lora"]
    assert cells(text, "textbook fp32")[1] == "100 (90.0-200)"
    assert cells(text, "hubtune bf16 random")[1:5] == ["20.0 (10.0-30.0)", "40.0", "5.00", ""]
    assert cells(text, "hubtune lora")[3:5] == ["", "4.00"]


def test_ratios_follow_the_clock_that_counts() -> None:
    found = [trained("textbook fp32", 0, 10, wall_ms=40), trained("hubtune bf16 random", 0, 10, wall_ms=10)]
    assert cells(report.training_table(found, "wall_ms"), "hubtune bf16 random")[3] == "4.00"


def test_an_equal_model_has_no_difference_and_a_better_one_has() -> None:
    bad, good = "10" * 100, "1" * 200
    assert accuracy.difference([bad] * 3, [bad] * 3, draws=200) == (0.0, 0.0, 0.0)
    more, low, high = accuracy.difference([good] * 3, [bad] * 3, draws=200)
    assert more == 0.5
    assert 0.4 < low < more < high < 0.6


def test_intervals_of_shares() -> None:
    assert accuracy.wilson(0.5, 100) == pytest.approx((0.404, 0.596), abs=1e-3)
    assert accuracy.wilson(1.0, 100)[1] == pytest.approx(1.0)


def test_the_page_has_a_section_for_what_was_measured_alone() -> None:
    right = [{"data": "banking77", "variant": variant, "seed": seed, "epochs": 1, "accuracy": 0.5, "right": "10" * 10, "training_cpu": 9.0,
              "peak_bytes": 2**30} for variant in accuracy.VARIANTS for seed in (0, 1)]
    machine = {"stage": "machine", "threads": 1, **measures.machine()}
    text = report.page([machine, trained("textbook fp32", 0, 10)], right)
    assert "## Training" in text
    assert "### sentiment_uci" in text
    assert "## Prediction" not in text
    assert cells(text, "banking77 | Trainer dynamic")[2:4] == ["0.500 (0.299 to 0.701)", "0.500, 0.500"]
    assert "+0.000 (" in cells(text, "banking77 | hubtune bf16 bucketed")[4]
    assert str(measures.REPO.parent) not in text
    every = report.page([machine, *({**trained("textbook fp32", 0, 10), "threads": count} for count in (2, 1))], [])
    assert every.index("## Training\n") < every.index("## Training, 2 threads, by wall time\n")


def test_variants_take_turns() -> None:
    given = argparse.Namespace(rounds=2, stages=("training",), only=["Trainer dynamic", "hubtune lora"], steps=4, padded_steps=2)
    found = [(arguments["seed"], arguments["data"], arguments["variant"]) for _, arguments in command.planned(given, ["a", "b"])]
    assert found == [(turn, data, variant) for turn in (0, 1) for data in ("a", "b") for variant in given.only]


def test_what_is_compared_is_known() -> None:
    assert set(accuracy.VARIANTS) <= set(training.VARIANTS)
    assert set(accuracy.DATA) <= set(rows.DATA)


def test_rows_of_the_large_data_are_the_same_again(tmp_path: Path) -> None:
    from datasets import load_dataset

    for name in ("one", "other"):
        large.write(tmp_path / name, 50, cut=False)
    one, other = (load_dataset("parquet", data_dir=str(tmp_path / name)) for name in ("one", "other"))
    assert one.num_rows == {"train": 50, "validation": large.WARM}
    assert one["train"][:] == other["train"][:] != one["validation"][:50]
    assert set(one["train"][:]["label"]) == {"warm", "cold"}
    assert all(6 <= len(text.split()) <= 14 for text in one["train"][:]["text"])


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells kinds of memory apart")
def test_a_large_training_is_divided_into_stages() -> None:
    stages = large.Stages()
    with stages.watching():
        stages.note("columns: text <- text")
        stages.begin("training", 5)
    assert [stage["stage"] for stage in stages.stages] == ["reading", "inspecting and splitting", "training"]
    assert all(stage["seconds"] >= 0 for stage in stages.stages)
    assert stages.peak()["resident"] >= stages.peak()["anonymous"] > 0
