"""Scores of a run: the weights' last validation is not computed again, and counts as if it were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.evaluation.inference import Predictor

SET = {"train.epochs": 2.0, "train.verify": False, "train.early_stopping_patience": 0}


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_last_validation_counts_where_its_weights_are_kept(
    keep: str, tmp_path: Path, tiny_model: Callable[..., Path], reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, *lines = reviews.read_text(encoding="utf-8").splitlines()[:49]
    for split, chosen in (("train", lines[:32]), ("validation", lines[32:])):
        (tmp_path / f"{split}.csv").write_text("\n".join([head, *chosen]) + "\n", encoding="utf-8")
    predicted = []

    def counted(self: Predictor, rows: Any, encoded: Any, predict: Callable[..., Any] = Predictor.predict) -> Any:
        predicted.append(len(rows))
        return predict(self, rows, encoded)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict", counted)
        run = hubtune.train("sentiment", model=tiny_model("bert"), data=tmp_path, out=tmp_path / "run",
                            set={**SET, "train.keep": keep})
    is_last = run.record["best_step"] == run.record["steps"]
    assert is_last or keep == "best"
    assert len(predicted) == (0 if is_last else 1)
    again = run.evaluate(tmp_path / "validation.csv")["metrics"]
    assert again == pytest.approx(run.record["metrics"]["validation"], abs=1e-6)
