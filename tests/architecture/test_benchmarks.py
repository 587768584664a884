"""The parts of the benchmarks that time nothing: rows, plans, intervals and the pages."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import accuracy, figures, figures_page, large, lines, measures, report, rows, tasks, training
from benchmarks.alone import Failed
from benchmarks.coverage import __main__ as coverage
from benchmarks.coverage import page as coverage_page
from benchmarks.coverage import trial
from hubtune.contract import registry


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


def test_what_has_a_line_is_not_measured_again_and_a_failure_leaves_none(tmp_path: Path) -> None:
    asked: list[str] = []

    def measure(arguments: lines.Record) -> lines.Record:
        asked.append(arguments["name"])
        if arguments["name"] == "bad":
            raise Failed("no figures")
        return {**arguments, "found": len(asked)}

    planned = [{"name": name, "sets": {"lr": rate}} for name, rate in (("a", 1), ("bad", 1), ("b", 1), ("a", 2))]
    assert lines.each(tmp_path / "kept.jsonl", planned, measure, lambda seconds, found: None) == 1
    assert lines.each(tmp_path / "kept.jsonl", planned, measure, lambda seconds, found: None) == 1
    assert asked == ["a", "bad", "b", "a", "bad"]
    assert [record["found"] for record in lines.read(tmp_path / "kept.jsonl")] == [1, 3, 4]


def test_every_task_of_our_own_has_a_figure_but_those_that_are_another_s_kind() -> None:
    own = {name for found in registry.load().plugins if found.source == "hubtune" for name in found.brings["tasks"]}
    elsewhere = {"text-classification", "sentiment"}  # docs/performance.md has these
    unmeasured = {"image-text-to-text"}  # no checkpoint and no rows to measure it on are at hand
    assert own - {figure.task for figure in figures.FIGURES} == elsewhere | unmeasured
    assert len({figure.name for figure in figures.FIGURES}) == len(figures.FIGURES)


def measured(figure: figures.Figure, **more: object) -> lines.Record:
    scores = dict.fromkeys(figure.shown, 0.5)
    said = {"metrics": scores, "intervals": {name: [0.4, 0.6] for name in scores}, "report": {}}
    return {**tasks.arguments_of(figure), "before": said, "after": {**said, "split": "test", "rows": 16}, "losses": [8.0, 0.4],
            "trained": {"rows": {"train": 100}, "steps": 9, "epochs": 3.0, "metrics": {"test": scores}, "peak_memory_bytes": 2**30,
                        "parameters": {"total": 36_000}}, "training_cpu": 12.0, **measures.machine(), **more}


def test_the_page_of_the_figures_has_each_once_as_it_was_measured_last() -> None:
    every = [measured(figure) for figure in figures.FIGURES]
    text = figures_page.page([{**every[0], "training_cpu": 4321.0}, *every])
    assert " 4321 |" not in text
    assert all(text.count(f"| {figure.name} |") == 1 for figure in figures.FIGURES)
    assert "| 8 to 0.4 | 5.0% | 9 | 12 |" in text
    assert str(measures.REPO.parent) not in text
    assert "## Learnt" not in figures_page.page([])


def test_the_loss_of_a_step_is_that_of_all_its_terms() -> None:
    log = [{"step": step, "epoch": 1.0, "boxes": 4.0 / step, "classes": 1.0 / step, "lr": 1e-3, "grad_norm": 1.0, "rows": 16, "tokens": 9,
            "padded_tokens": 9, "micro_batches": 1} for step in (1, 2)]
    assert tasks.losses([*log, {"step": 2, "split": "validation", "validation_boxes": 9.0}]) == [5.0, 3.75]


def test_plugins_are_counted_as_they_are_registered() -> None:
    project = tomllib.loads((measures.REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]["hubtune"]
    counted = {name.removesuffix(".py").replace("/", ".") for files in figures_page.sizes().values() for name in files}
    assert {f"hubtune_plugins.{name}" for name in counted} == {
        module for module in project.values() if module.split(".")[1] not in ("commands", "exporters", "formats", "losses", "metrics")}


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
        stages.on_info("columns: text <- text")
        stages.on_progress_start("training", 5)
    assert [stage["stage"] for stage in stages.stages] == ["reading", "inspecting and splitting", "training"]
    assert all(stage["seconds"] >= 0 for stage in stages.stages)
    assert stages.peak()["resident"] >= stages.peak()["anonymous"] > 0


# ------------------------------------------------------------------------------------------------------- coverage

TRIALS = [
    {"task": "text-classification", "strategy": "full", "model_type": "mamba", "state": "failed", "reason": "of an earlier try"},
    {"task": "text-classification", "strategy": "full", "model_type": "bert", "state": "passed", "head": None, "padding": False},
    {"task": "text-classification", "strategy": "full", "model_type": "mamba", "state": "passed", "head": {"pooling": "last"}, "padding": True},
    {"task": "text-classification", "strategy": "full", "model_type": "tapas", "state": "refused", "reason": "it | needs\ntables"},
]


def test_the_newest_result_of_a_trial_counts(tmp_path: Path) -> None:
    (tmp_path / "found.jsonl").write_text("".join(json.dumps(line) + "\n" for line in TRIALS), encoding="utf-8")
    assert [(line["model_type"], line["state"]) for line in coverage.read(tmp_path / "found.jsonl")] == [
        ("mamba", "passed"), ("bert", "passed"), ("tapas", "refused")]
    assert coverage.read(tmp_path / "none.jsonl") == []


def test_the_page_counts_trials_and_gives_reasons() -> None:
    text = coverage_page.render(TRIALS[1:], "", "5.0")
    assert "| text-classification | full | 3 | 2 | 1 | 1 | 0 | 0 |" in text
    assert "| tapas | full | refused | it \\| needs tables |" in text
    assert "share a batch, in training and afterwards (1): mamba." in text


def test_a_trial_passes_only_where_everything_is_right() -> None:
    fine = {"falls": True, "gradients": {"embedding": True, "head": True}}
    assert coverage.verdict(fine) == {"state": "passed"}
    assert coverage.verdict({**fine, "falls": False}) == {"state": "failed", "reason": "the loss does not fall"}
    assert coverage.verdict({**fine, "gradients": {"embedding": False, "head": True}})["reason"] == "no gradient reaches the embedding"


def test_reasons_name_no_folder_of_this_machine() -> None:
    said = "no processor for /home/me/zoo/dinov3_vit.\nTry 3/4 of it, from 'https://example.com/models'"
    assert trial.without_paths(said) == "no processor for dinov3_vit. Try 3/4 of it, from 'the Hub'"
