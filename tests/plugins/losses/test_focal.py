"""Focal loss: cross-entropy at gamma 0, weights from the data, and a run that keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hubtune_plugins.losses.focal import Focal
from torch.nn import functional as F

import hubtune
from hubtune import RecipeError
from hubtune.contract import registry
from hubtune.options import fill
from hubtune.recipe import PluginChoice
from hubtune.testing import LossConformance

COUNTS = {"ham": 6, "spam": 2}
LOGITS = torch.tensor([[2.0, -1.0], [0.3, 0.2], [-4.0, 4.0]], dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 0])


class TestFocal(LossConformance):
    plugin = Focal
    options = {"gamma": 2.0, "class_weights": "balanced"}


class TestFocalWithSmallGamma(LossConformance):
    plugin = Focal
    options = {"gamma": 0.5}


def fitted(kind: Any = "single_label", counts: dict[str, int] | None = None, **options: Any) -> Focal:
    loss = Focal(fill(Focal.Options, options, "loss"))
    loss.restore(json.loads(json.dumps(loss.fit(kind, counts or COUNTS))))
    return loss


def test_without_gamma_it_is_weighted_cross_entropy() -> None:
    loss = fitted(gamma=0.0, class_weights="balanced")
    weights = loss.weights(TARGETS)
    mean = (loss.losses(LOGITS, TARGETS) * weights).sum() / weights.sum()
    expected = F.cross_entropy(LOGITS, TARGETS, weight=torch.tensor([8 / 12, 8 / 4], dtype=torch.float64))
    assert float(mean) == pytest.approx(float(expected), rel=1e-6)
    assert fitted(gamma=0.0).weights(TARGETS) is None


def test_it_is_the_formula_of_the_paper() -> None:
    right = LOGITS.softmax(-1)[range(3), TARGETS]
    expected = -((1 - right) ** 2) * right.log()
    torch.testing.assert_close(fitted(gamma=2.0).losses(LOGITS, TARGETS), expected)


def test_of_several_labels_each_is_a_question() -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    answers = LOGITS.sigmoid()
    right = torch.where(targets > 0, answers, 1 - answers)
    weights = torch.where(targets > 0, torch.tensor([2.0, 5.0], dtype=torch.float64), 1.0)
    expected = (-weights * (1 - right) ** 2 * right.log()).mean(1)
    found = fitted("multi_label", gamma=2.0, class_weights={"ham": 2.0, "spam": 5.0}).losses(LOGITS, targets)
    torch.testing.assert_close(found, expected)


def test_weights_of_labels_that_are_not_named_are_one() -> None:
    assert fitted(class_weights={"spam": 3}).class_weights == (1.0, 3.0)


@pytest.mark.parametrize(("options", "message"), [
    ({"gamma": -1.0}, "loss.gamma is 0 or more, not -1.0"), ({"gamma": float("nan")}, "loss.gamma is 0 or more"),
    ({"class_weights": "equal"}, "balanced, none or a table, not 'equal'"),
    ({"class_weights": {"eggs": 2.0}}, "names the label 'eggs'; the labels are ham, spam"),
    ({"class_weights": {"spam": 0.0}}, "the weight of 'spam' is above 0, not 0.0"),
])
def test_options_that_fit_no_label_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        fitted(**options)


def test_labels_without_a_row_cannot_be_balanced() -> None:
    with pytest.raises(RecipeError, match="no training row has the label spam"):
        fitted(counts={"ham": 3, "spam": 0}, class_weights="balanced")


# ----------------------------------------------------------------------------------------------------------- whole runs

ROWS = [{"text": "win a prize now" if n % 8 == 0 else f"see you at {n}", "label": "spam" if n % 8 == 0 else "ham"} for n in range(48)]
FAST = {"train.max_steps": 4, "train.verify": False, "train.precision": "fp32", "loss.name": "focal"}


def test_a_run_keeps_the_weights_and_says_where_the_loss_is_from(tiny_model: Any, tmp_path: Any) -> None:
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run",
                        set={**FAST, "loss.class_weights": "balanced"})
    assert run.record["loss"]["fitted"] == {"class_weights": {"ham": 48 / (2 * 42), "spam": 48 / (2 * 6)}}
    assert run.record["plugins"]["loss"]["distribution"] == "hubtune"
    assert 'name = "focal"' in (tmp_path / "run" / "recipe.toml").read_text()
    assert "| loss | focal: " in (tmp_path / "run" / "model" / "README.md").read_text()


def test_words_have_a_loss_too(tiny_model: Any, tmp_path: Any) -> None:
    rows = [{"tokens": ["Ada", "Lovelace", "was", "here"], "tags": ["B-PER", "I-PER", "O", "O"]} for _ in range(16)]
    run = hubtune.train("token-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run",
                        set={**FAST, "loss.class_weights": "balanced", "train.metrics": ["mcc"]})
    assert run.record["loss"]["fitted"]["class_weights"] == {"O": 64 / (3 * 32), "B-PER": 64 / (3 * 16), "I-PER": 64 / (3 * 16)}
    assert "mcc" in run.metrics


def with_record(folder: Any, change: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))


def test_a_resumed_run_takes_the_weights_of_its_record(tiny_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubtune.testing.checks import Stop, Stopped

    sets = {**FAST, "loss.class_weights": "balanced", "train.save_minutes": 0.0}
    with pytest.raises(Stopped):
        hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", set=sets, callbacks=Stop(2))
    with_record(tmp_path / "run", lambda record: record["loss"]["fitted"]["class_weights"].update(ham=7.0))
    monkeypatch.setattr(Focal, "fit", lambda *given: pytest.fail("the weights are computed again"))
    run = hubtune.resume(tmp_path / "run", data=ROWS)
    assert run.record["loss"]["fitted"] == {"class_weights": {"ham": 7.0, "spam": 4.0}}


def test_a_run_whose_loss_is_gone_says_what_to_install(tiny_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubtune.testing.checks import Stop, Stopped

    with pytest.raises(Stopped):
        hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", callbacks=Stop(2),
                      set={**FAST, "train.save_minutes": 0.0})
    with_record(tmp_path / "run", lambda record: record["plugins"]["loss"].update(distribution="their-losses", version="1.2"))
    original = registry.load()
    del original.losses["focal"]
    monkeypatch.setattr(registry, "load", lambda hook=None: original)
    with pytest.raises(hubtune.UnknownPlugin, match=r"the loss 'focal' of their-losses 1\.2, which is not installed") as caught:
        hubtune.resume(tmp_path / "run", data=ROWS)
    assert "pip install their-losses==1.2" in str(caught.value.hint)


@pytest.mark.parametrize(("task", "sets", "message"), [
    ("text-classification", {"loss.name": "focla"}, r"no loss named 'focla'. Did you mean 'focal'\?"),
    ("text-classification", {"loss.name": "focal", "loss.gama": 1.0}, r"no key loss.gama. Did you mean 'gamma'\?"),
    ("text-classification", {"loss.gamma": 1.0}, r"\[loss\] needs a name"),
    ("text-classification", {"loss.name": "focal", "task.kind": "regression"}, "for single_label, multi_label labels; these are regression"),
    ("text-classification", {"loss.name": "focal", "task.class_weights": "balanced"}, "which loss.name=focal replaces"),
    ("fill-mask", {"loss.name": "focal"}, "'fill-mask' has a loss and metrics of its own"),
    ("text-classification", {"train.metrics": ["mmc"]}, r"no metric named 'mmc'. Did you mean 'mcc'\?"),
    ("text-classification", {"train.metric_for_best_model": "f1_macro"}, "one of accuracy, not 'f1_macro'"),
    ("text-classification", {"train.loss": "focal"}, "use loss.name"),
])
def test_a_loss_or_metric_that_cannot_be_is_refused(task: str, sets: dict[str, Any], message: str, tiny_model: Any) -> None:
    rows = [{**row, "label": str(0.5 * n)} for n, row in enumerate(ROWS)] if "regression" in sets.values() else ROWS
    with pytest.raises(hubtune.HubtuneError, match=message):
        hubtune.check(task, model=tiny_model("bert"), data=rows, set=sets)


def test_a_loss_of_a_wrong_shape_is_named(tiny_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Focal, "losses", lambda self, logits, targets: F.cross_entropy(logits, targets))
    with pytest.raises(hubtune.BrokenPlugin, match=r"`losses` of the loss 'focal' returned a tensor of shape \(\)"):
        hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", set=FAST)


def test_all_tasks_that_classify_take_it() -> None:
    plugins = registry.load()
    able = {name for name, kind in plugins.tasks.items() if issubclass(kind, hubtune.ClassificationTask)}
    assert able == {"text-classification", "sentiment", "token-classification", "image-classification", "audio-classification"}
    assert plugins.loss(PluginChoice("focal")).options == Focal.Options()
