"""Warnings of models that learnt nothing, and what a constant answer scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy import Partial

import hubtune
from hubtune import Base, ClassificationTask
from hubtune.evaluation import metrics

FAST = {"train.max_steps": 1, "train.verify": False, "train.precision": "fp32", "train.learning_rate": 1e-9}


class Given(ClassificationTask[Any], Partial):
    """A third party's task whose predictions hold the answer."""

    contract, name, summary = 2, "given", "answers"
    shares = ("accuracy",)
    kind: Any = "single_label"
    label_counts = class_logits = Partial.encode

    def label_kind(self) -> Any:
        return self.kind

    def class_answers(self, predictions: Any, rows: Any, base: Any) -> Any:
        return [row["label"] for row in rows], [p["answer"] for p in predictions]

    def score(self, predictions: Any, rows: Any, base: Any) -> Any:
        right, given = (np.asarray(part, float) for part in self.class_answers(predictions, rows, base))
        if self.kind == "regression":
            return {"rmse": float(((right - given) ** 2).mean() ** 0.5)}
        return {"accuracy": float((right == given).reshape(len(right), -1).all(1).mean())}


def evaluated(right: list[Any], given: list[Any], kind: str = "single_label") -> dict[str, Any]:
    task = Given()
    task.kind = kind
    base = Base("base", "", SimpleNamespace(label2id={"ham": 0, "spam": 1, "eggs": 2}), None)
    rows = [{"text": str(number), "label": label} for number, label in enumerate(right)]
    return metrics.evaluate(task, [{"answer": answer} for answer in given], rows, base)


def test_a_good_model_is_not_warned_of() -> None:
    found = evaluated([0, 1] * 50, [0, 1] * 50)
    assert found["warnings"] == []
    assert found["baselines"] == {"accuracy": {"value": 0.5, "answer": "'ham'"}}


def test_one_answer_only() -> None:
    found = evaluated([0] * 30 + [1] * 10, [0] * 40)
    assert found["warnings"] == ["the model answers 'ham' for all 40 rows",
                                 "accuracy 0.7500 is no better than always answering 'ham' (0.7500)"]


def test_labels_that_are_never_given() -> None:
    found = evaluated([0] * 50 + [1] * 47 + [2] * 3, [0] * 50 + [1] * 50)
    assert found["warnings"] == ["the model never gives 1 of 3 labels: 'eggs' (3 rows)"]


def test_not_clearly_better_is_said_with_the_interval() -> None:
    found = evaluated([0] * 6 + [1] * 4, [0] * 6 + [1] * 2 + [0] * 2)
    assert found["warnings"] == [
        "accuracy 0.8000 (95% interval 0.4902 to 0.9433) is not clearly better than always answering 'ham' (0.6000)"]


def test_rows_of_one_label_say_nothing_of_the_others() -> None:
    assert evaluated([0] * 4, [0] * 4)["warnings"] == [
        "all 4 rows have 'ham': scores on that say nothing about other labels"]
    assert evaluated([0], [0])["warnings"] == ["the only row has 'ham': scores on that say nothing about other labels"]


def test_several_labels() -> None:
    right = [[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]]
    found = evaluated(right, [[0, 0, 0]] * 4, "multi_label")
    assert found["warnings"] == ["the model answers no label for all 4 rows",
                                 "accuracy 0.0000 is no better than always answering 'ham' (0.5000)"]
    found = evaluated(right, [[1, 0, 0], [0, 1, 0]] * 2, "multi_label")
    assert found["warnings"][0] == "the model never gives 1 of 3 labels: 'eggs' (1 row)"


@pytest.mark.parametrize(("given", "warned"), [([2.5] * 20, True), ([float(n % 5) for n in range(20)], False)])
def test_numbers_are_compared_with_their_mean(given: list[float], warned: bool) -> None:
    found = evaluated([float(n % 5) for n in range(20)], given, "regression")
    assert found["baselines"] == {"rmse": {"value": pytest.approx(2**0.5, abs=1e-5), "answer": "the mean 2"}}
    assert found["warnings"] == (["rmse 1.5000 is no better than always answering the mean 2 (1.4142)"] if warned else [])


def test_equal_numbers_say_nothing() -> None:
    assert evaluated([3.0] * 4, [3.0] * 4, "regression")["warnings"] == [
        "all 4 rows have 3: scores on that say nothing about other numbers"]


def test_a_run_that_learnt_nothing_says_so_everywhere(tiny_model: Any, tmp_path: Any, capsys: Any) -> None:
    from hubtune.cli import console

    rows = [{"text": f"{'win' if n % 4 == 0 else 'see'} {n}", "label": "spam" if n % 4 == 0 else "ham"} for n in range(40)]
    seen: list[str] = []

    class Seen(hubtune.Callbacks):
        def on_warning(self, text: str) -> None:
            seen.append(text)

    run = hubtune.train("text-classification", model=tiny_model("bert"), data={"train": rows, "validation": rows},
                        out=tmp_path / "run", set=FAST, callbacks=Seen())
    warnings = run.record["score_warnings"]["validation"]
    assert any("is no better than always answering 'ham'" in text or "for all 40 rows" in text for text in warnings)
    assert [f"on validation: {text}" for text in warnings] == [text for text in seen if text.startswith("on validation: ")]
    assert run.record["baselines"]["validation"]["accuracy"] == {"value": 0.75, "answer": "'ham'"}
    card = (run.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "| always the same answer |" in card
    assert "0.7500 ('ham')" in card
    assert all(f"> **{text}**." in card for text in warnings)
    console.finished(run)
    printed = capsys.readouterr().out
    assert "0.7500 (always 'ham')" in printed
    assert run.summary()["score_warnings"] == {"validation": warnings}
    found = hubtune.load(tmp_path / "run" / "model").evaluate(rows)
    assert found["warnings"] == warnings
