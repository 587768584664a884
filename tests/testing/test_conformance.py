"""The conformance kit finds what is wrong: a good plugin passes each check, and one with a fault fails the check for it."""

from __future__ import annotations

import dataclasses
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hubtune import Export, Loss, ModelSetup, OptimizerStrategy, Phase, StepStrategy, Strategy, option
from hubtune.contract.scaffold import distribution as scaffold
from hubtune.contract.validation import checked
from hubtune.errors import BrokenPlugin, ModelError
from hubtune.evaluation.equivalence import relative_difference
from hubtune.testing import StrategyConformance, TaskConformance
from hubtune.testing.bench import Failed, registered
from hubtune.testing.checks import cheap, same_weights
from hubtune.testing.watched import holds


def module_from(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The modules that `hubtune plugin new` writes: the good plugins here."""
    place = tmp_path_factory.mktemp("templates")
    made = {}
    for kind in ("task", "strategy"):
        scaffold.new(f"kit-{kind}", kind, place / kind)
        made[kind] = module_from(place / kind / f"hubtune_kit_{kind}.py")
    module_from(place / "task" / "tests" / "test_kit_task.py")
    made["task"].KitTask.fixture = "test_kit_task:TestKitTask"
    yield made
    for name in ("hubtune_kit_task", "hubtune_kit_strategy", "test_kit_task"):
        del sys.modules[name]


@pytest.fixture
def task(templates: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """task(method=...) is a kit for the good task with these methods in place of its own."""
    yield from kit_of(TaskConformance, templates["task"].KitTask)


@pytest.fixture
def strategy(templates: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """strategy(method=...) is a kit for the good strategy with these methods in place of its own."""
    with registered(templates["task"].KitTask):
        yield from kit_of(StrategyConformance, templates["strategy"].KitStrategy, task="kit-task", model="bert")


def kit_of(kit: type, good: type, **attributes: Any) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def build(**faults: Any) -> Any:
        own = {name: faults.pop(name) for name in ("sample", "gold") if name in faults}
        bases = [base for base, name in ((OptimizerStrategy, "optimizer"), (StepStrategy, "after_step")) if name in faults]
        plugin = type("Faulty", (good, *bases), {"__doc__": "A plugin with a fault.", "__module__": good.__module__, **faults})
        kind = type("Kit", (kit,), {"plugin": plugin, **attributes, **own})
        kind.setup_class()  # type: ignore[attr-defined]
        made.append(kind)
        return kind()

    yield build
    for kind in made:
        kind.teardown_class()


def test_the_good_task_passes_what_needs_no_run(task: Callable[..., Any]) -> None:
    kit = task()
    checks = [name for name in dir(kit) if name.startswith("test_") and "resumed" not in name and "publishes" not in name]
    assert len(checks) >= 14
    for name in checks:
        getattr(kit, name)()


# ------------------------------------------------------------------------------------------------- tasks with a fault


def no_mask(good: Any) -> Any:
    def collate(self: Any, examples: Any, base: Any, rngs: Any) -> Any:
        batch = good.collate(self, examples, base, rngs)
        del batch.inputs["attention_mask"]
        return batch

    return collate


def noisy(good: Any) -> Any:
    def collate(self: Any, examples: Any, base: Any, rngs: Any) -> Any:
        batch = good.collate(self, examples, base, rngs)
        batch.inputs["input_ids"][0, 1] = random.randrange(5, 15)
        return batch

    return collate


def mean(good: Any) -> Any:
    return lambda self, outputs, batch: dataclasses.replace(
        made := good.loss(self, outputs, batch), total=made.total / batch.size)


def changing(good: Any) -> Any:
    """A `model_config` that gives the tokenizer another pad token itself."""
    def model_config(self: Any, dataset_info: Any, base: Any) -> Any:
        base.processor.pad_token = base.processor.unk_token
        return good.model_config(self, dataset_info, base)

    return model_config


FAULTS: dict[str, tuple[str, Callable[[Any], dict[str, Any]], str]] = {
    "no docstring": ("it_is_documented", lambda good: {"__doc__": " "}, "has no docstring"),
    "a name in capitals": ("it_is_documented", lambda good: {"name": "Kit Task"}, "is not kebab-case"),
    "a silent option": ("it_is_documented", lambda good: {
        "Options": dataclasses.make_dataclass("Silent", [("rank", int, option(1, ""))], frozen=True)}, "without a line of help: rank"),
    "an option that is no JSON": ("its_options_survive_json", lambda good: {
        "Options": dataclasses.make_dataclass("Odd", [("when", tuple, option((1, 2), "when"))], frozen=True)}, "do not survive JSON"),
    "a sample that changes": ("its_sample_is_labelled_and_the_same_at_every_call", lambda good: {
        "sample": lambda self, task, n: [{"text": str(random.random()), "label": "a"} for _ in range(n)]}, "two calls give different rows"),
    "a sample without labels": ("its_sample_is_labelled_and_the_same_at_every_call", lambda good: {
        "sample": lambda self, task, n: [{"text": "a"}] * n}, "its rows lack some of"),
    "labels that a tuned model loses": ("its_facts_are_json_and_configure_the_same_model_again", lambda good: {
        "model_config": lambda self, dataset_info, base: ModelSetup({**good.model_config(self, dataset_info, base).config, "id2label": dict(
            enumerate(dataset_info.get("labels", ["LABEL_0", "LABEL_1"])))})}, "a tuned model loses its id2label"),
    "a row lost": ("every_row_is_encoded", lambda good: {
        "encode": lambda self, rows, base: list(good.encode(self, rows, base))[:-1]}, "16 rows became 15 lists"),
    "a size of nothing": ("every_row_is_encoded", lambda good: {"num_tokens": lambda self, example: 0}, "sizes are no positive ints"),
    "targets out of nothing": ("rows_without_targets_are_encoded_and_answered", lambda good: {
        "encode": lambda self, rows, base: good.encode(self, [{"label": "yes", **row} for row in rows], base)}, "has targets"),
    "a mean for a loss": ("its_loss_is_a_sum", lambda good: {"loss": mean(good)}, "in two halves"),
    "a loss over padding": ("its_loss_is_a_sum", lambda good: {"loss": lambda self, outputs, batch: Loss(
        batch.inputs["input_ids"].shape[1] * outputs.logits.sum())}, "in two halves"),
    "a count that lies": ("its_loss_is_a_sum", lambda good: {
        "collate": lambda self, *given: dataclasses.replace(good.collate(self, *given), counts={"loss": 1.0})}, "counts do not add up"),
    "a count of nothing": ("every_loss_term_has_a_count_above_zero", lambda good: {
        "collate": lambda self, *given: dataclasses.replace(good.collate(self, *given), counts={"loss": 1.0, "other": 1.0})},
        r"the batch counts \['loss', 'other'\], and the loss has \['loss'\]"),
    "a tokenizer changed in place": ("its_facts_are_json_and_configure_the_same_model_again", lambda good: {
        "model_config": changing(good)}, "changes the tokenizer in place"),
    "a loss without a gradient": ("it_learns_eight_rows_by_heart", lambda good: {
        "loss": lambda self, outputs, batch: Loss(0 * outputs.logits.sum() + 3 * batch.size)}, "not learnt by heart"),
    "chance without draws": ("a_draw_fixes_the_batch", lambda good: {"collate": noisy(good)}, "draws differ"),
    "a method misspelt": ("its_methods_are_those_of_the_contract", lambda good: {
        "usagee": lambda self, repo, base: ""}, "a method `usagee`, which hubtune never calls. Did you mean 'usage'"),
    "no truncation": ("a_long_row_is_cut_at_the_length_that_it_may_have", lambda good: {
        "encode": lambda self, rows, base: good.encode(self, rows, dataclasses.replace(base, max_length=None))},
        "`encode` of the task 'kit-task' made an example of .* tokens, but base.max_length was"),
    "a label that trips it": ("a_label_that_the_model_does_not_know_is_an_error_with_a_message", lambda good: {
        "encode": lambda self, rows, base: [(base.config.label2id[row["label"]] and one) or one for row, one in zip(
            rows, good.encode(self, [{"text": row["text"], "label": "yes"} for row in rows], base), strict=True)]},
        "a label that the model does not know, 'a label of nobody', gives a KeyError"),
    "no mask": ("neighbours_do_not_change_an_answer", lambda good: {"collate": no_mask(good)}, "beside longer rows"),
    "answers in another order": ("neighbours_do_not_change_an_answer", lambda good: {
        "postprocess": lambda self, outputs, batch, base: sorted(
            good.postprocess(self, outputs, batch, base), key=lambda found: found["probability"])}, "order of a batch"),
    "an answer that is no number": ("its_answers_are_json", lambda good: {
        "postprocess": lambda self, outputs, batch, base: [{"label": "yes", "probability": float("nan")}] * batch.size}, "is no JSON"),
    "gold that is not gold": ("no_prediction_scores_better_than_gold", lambda good: {
        "gold": lambda self, task, row, base: {"label": {"yes": "no", "no": "yes"}[row["label"]], "probability": 1.0}}, "that of gold"),
    "a metric that tells nothing": ("no_prediction_scores_better_than_gold", lambda good: {
        "score": lambda self, predictions, rows, base: {"accuracy": 1.0}}, "does not tell right answers from wrong ones"),
    "a metric that is not there": ("no_prediction_scores_better_than_gold", lambda good: {
        "score": lambda self, predictions, rows, base: {"f1": 1.0}}, "has no 'accuracy'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_task_with_a_fault_fails_the_check_for_it(task: Callable[..., Any], templates: dict[str, Any], fault: str) -> None:
    name, faults, message = FAULTS[fault]
    with pytest.raises(Failed, match=message) as caught:
        getattr(task(**faults(templates["task"].KitTask)), f"test_{name}")()
    assert "Look at: " in str(caught.value)


RETURNS: dict[str, tuple[Any, str]] = {
    "validate_data": (lambda self, splits: {"labels": {"a", "b"}}, "a dict.*; it has to return a dict of JSON values"),
    "model_config": (lambda self, dataset_info, base: {"num_labels": 2}, r"a dict \(\{'num_labels': 2\}\); it has to return a ModelSetup"),
    "encode": (lambda self, rows, base: ({"input_ids": [1]} for _ in rows), "a dict .*; it has to return lists of examples, one list per row"),
    "num_tokens": (lambda self, example: 2.5, r"a float \(2.5\); it has to return a whole number"),
    "collate": (lambda self, examples, base, rngs: ({}, None), "a tuple of dict .*; it has to return a Batch"),
    "loss": (lambda self, outputs, batch: outputs.logits.sum(), r"a Tensor; it has to return a Loss, or a list of them"),
    "postprocess": (lambda self, outputs, batch, base: ["yes"] * batch.size, "a list of str.*; it has to return a list with one dict per example"),
    "score": (lambda self, predictions, rows, base: 1.0, "a float .*; it has to return a dict of numbers by name"),
    "usage": (lambda self, repo, base: None, "None; it has to return a text"),
}


@pytest.mark.parametrize("method", RETURNS)
def test_a_task_s_method_that_returns_something_else_is_named(task: Callable[..., Any], method: str) -> None:
    wrong, message = RETURNS[method]
    kit = task(**{method: wrong})

    def use() -> None:
        bench = kit.bench()
        bench.losses(bench.plain, bench.whole)
        kit.test_no_prediction_scores_better_than_gold()
        checked(bench.task, "usage", bench.task.usage("me/model", bench.base))

    with pytest.raises(BrokenPlugin, match=f"`{method}` of the task 'kit-task' returned {message}"):
        use()


@pytest.mark.parametrize(("method", "wrong", "message"), [
    ("prepare", lambda self, model, newly_initialized, task, plan: None, "returned None; it has to return the model"),
    ("param_groups", lambda self, model, decay: list(model.parameters()), "a list of Parameter; it has to return a list of dicts"),
    ("refuse", lambda self, task, config: True, r"a bool \(True\); it has to return the reason as a text, or None"),
    ("export", lambda self, model: model, "; it has to return an Export"),
])
def test_a_strategy_s_method_that_returns_something_else_is_named(
    strategy: Callable[..., Any], method: str, wrong: Any, message: str
) -> None:
    kit = strategy(**{method: wrong})
    with pytest.raises(BrokenPlugin, match=f"`{method}` of the strategy 'kit-strategy' .*{message}"):
        (kit.test_it_refuses_with_a_reason_or_not_at_all if method == "refuse" else kit.test_the_export_predicts_as_the_trained_model)()


def test_a_loss_term_without_a_count_is_named(task: Callable[..., Any]) -> None:
    bench = task(loss=lambda self, outputs, batch: Loss(outputs.logits.sum(), "other")).bench()
    with pytest.raises(BrokenPlugin, match="returned the term 'other'; its batch counts loss"):
        bench.losses(bench.plain, bench.whole)


def test_a_test_class_with_a_task_class_is_told_to_name_it(strategy: Callable[..., Any], templates: dict[str, Any]) -> None:
    kit = type(strategy())
    kit.task = templates["task"].KitTask
    with pytest.raises(Failed, match="it is the name of an installed task"):
        kit.bench()


def test_a_heavy_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_plugin.py").write_text("import numpy\nclass Heavy: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = module_from(tmp_path / "heavy_plugin.py").Heavy
    with pytest.raises(Failed, match="imports numpy: every"):
        cheap(kind)
    del sys.modules["heavy_plugin"]


# -------------------------------------------------------------------------------------------- strategies with a fault


def test_the_good_strategy_passes_what_needs_no_run(strategy: Callable[..., Any]) -> None:
    kit = strategy()
    checks = [name for name in dir(kit) if name.startswith("test_") and "resumed" not in name and "publishes" not in name]
    assert len(checks) >= 9
    for name in checks:
        getattr(kit, name)()


def meddling(self: Any, model: Any, step: int, steps: int) -> None:
    import torch

    with torch.no_grad():
        next(p for p in model.parameters() if not p.requires_grad).add_(1.0)


def declining(self: Any, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
    raise ModelError("it has no batch norms")


def without_head(self: Any, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith("bias") and name not in newly_initialized
    return model


def overwriting(self: Any, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
    import torch

    with torch.no_grad():
        next(iter(model.parameters())).zero_()
    return model


def replacing(self: Any, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
    """Put another parameter in the place of a pretrained one, with other values."""
    import torch

    embedding = model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(torch.zeros_like(embedding.weight))
    return model


def splitting(self: Any, model: Any, newly_initialized: Any, task: Any, plan: Any) -> Any:
    """Move a part of a pretrained weight into an adapter, as PiSSA does: the sum is the old weight."""
    import torch

    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in newly_initialized
    layer = next(part for part in model.modules() if isinstance(part, torch.nn.Linear))
    layer.adapter = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
    with torch.no_grad():
        layer.weight.sub_(layer.adapter.weight)
    layer.register_forward_hook(lambda layer, inputs, output: output + layer.adapter(inputs[0]))
    return model


def emptied(self: Any, model: Any) -> Export:
    import torch

    with torch.no_grad():
        model.classifier.weight.zero_()
    return Export(root=model)


WAYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no paper": ("it_names_its_paper_and_its_values", {"paper": None}, "names no paper"),
    "a refusal without a reason": ("it_refuses_with_a_reason_or_not_at_all", {
        "refuse": lambda self, task, config: " " if config.model_type == "t5" else None}, "says ' ' of t5"),
    "a refusal of everything": ("it_refuses_with_a_reason_or_not_at_all", {
        "refuse": lambda self, task, config: "never"}, "it refuses the model that it is tested on: never"),
    "phases of half a run": ("its_phases_share_the_run", {"phases": lambda self: (Phase("one", 0.5),)}, "do not make 1"),
    "nothing frozen": ("frozen_weights_stay_and_fresh_weights_learn", {
        "prepare": lambda self, model, newly_initialized, task, plan: model}, "every weight learns, as if there were no strategy"),
    "a model that it declines": ("frozen_weights_stay_and_fresh_weights_learn", {"prepare": declining},
                                 "`prepare` declines the model that it is tested on: it has no batch norms"),
    "a method nearly of the contract": ("its_methods_are_those_of_the_contract", {
        "param_group": lambda self, model, decay: []}, "a method `param_group`, which hubtune never calls. Did you mean 'param_groups'"),
    "a method of another base class": ("it_is_documented", {
        "regularization": lambda self, model: None}, "has a method `regularization`, which hubtune calls of a StepStrategy only"),
    "frozen weights that change": ("frozen_weights_stay_and_fresh_weights_learn", {"after_step": meddling}, "frozen weights changed"),
    "a head that stays random": ("frozen_weights_stay_and_fresh_weights_learn", {"prepare": without_head}, "fresh weight .* does not learn"),
    "pretrained weights overwritten": ("frozen_weights_stay_and_fresh_weights_learn", {"prepare": overwriting}, "prepare changed the values"),
    "pretrained weights replaced": ("frozen_weights_stay_and_fresh_weights_learn", {"prepare": replacing}, "prepare changed the values"),
    "parameters in two groups": ("frozen_weights_stay_and_fresh_weights_learn", {
        "param_groups": lambda self, model, decay: [{"params": [p for p in model.parameters() if p.requires_grad]}] * 2,
        "optimizer": lambda self, groups, lr: torch.optim.AdamW(groups[:1], lr=lr)}, "in two groups"),
    "parameters in no group": ("frozen_weights_stay_and_fresh_weights_learn", {
        "param_groups": lambda self, model, decay: Strategy.param_groups(self, model, decay)[:1]}, "in no group"),
    "an export of another model": ("the_export_predicts_as_the_trained_model", {"export": emptied}, "logits differs by"),
    "an export that loads otherwise": ("the_export_predicts_as_the_trained_model", {"loads_with": "peft"}, "the class says loads_with='peft'"),
}


@pytest.mark.parametrize("fault", WAYS)
def test_a_strategy_with_a_fault_fails_the_check_for_it(strategy: Callable[..., Any], fault: str) -> None:
    name, faults, message = WAYS[fault]
    with pytest.raises((Failed, BrokenPlugin), match=message):
        getattr(strategy(**faults), f"test_{name}")()


def test_a_strategy_may_move_a_part_of_a_weight_into_its_adapter(strategy: Callable[..., Any]) -> None:
    strategy(prepare=splitting).test_frozen_weights_stay_and_fresh_weights_learn()


def forgetful(self: Any, model: Any, step: int, steps: int) -> None:
    """What a method keeps beside the weights, and does not give to the checkpoint."""
    import torch

    self.seen = getattr(self, "seen", 0) + 1
    with torch.no_grad():
        model.classifier.bias.add_(0.01 * self.seen)


@pytest.mark.parametrize("remembers", [False, True])
def test_a_state_that_the_checkpoint_does_not_hold_is_found(strategy: Callable[..., Any], remembers: bool) -> None:
    keeps = {"state": lambda self: {"seen": self.seen}, "restore": lambda self, state: setattr(self, "seen", state["seen"])}
    runs = strategy(after_step=forgetful, **(keeps if remembers else {})).runs()
    runs.set = {**runs.set, "train.verify": False}
    whole, resumed = runs.whole().folder / "model", runs.resumed().folder / "model"
    if remembers:
        same_weights(whole, resumed, "")
    else:
        with pytest.raises(Failed, match="a resumed run is not the uninterrupted one: "):
            same_weights(whole, resumed, "")


# ------------------------------------------------------------------------------------------------------------ the kit


def test_a_standard_test_is_skipped_with_a_reason_and_never_replaced(task: Callable[..., Any]) -> None:
    kit = task()
    replaced = type("Own", (type(kit),), {"test_its_loss_is_a_sum": lambda self: None})()
    with pytest.raises(Failed, match="standard tests are replaced: test_its_loss_is_a_sum"):
        replaced.test_no_standard_test_is_overridden()
    for skips, message in (({"test_nothing": "why"}, "names no test"), ({"test_its_loss_is_a_sum": " "}, "without a reason")):
        with pytest.raises(Failed, match=message):
            type("Own", (type(kit),), {"skips": skips})().test_no_standard_test_is_overridden()
    own = type("Own", (type(kit),), {"skips": {"test_its_loss_is_a_sum": "it is a product"}})()
    own.test_no_standard_test_is_overridden()
    with pytest.raises(pytest.skip.Exception, match="it is a product"):
        own.setup_method(type(own).test_its_loss_is_a_sum)


@pytest.mark.parametrize(("one", "other", "expected"), [
    ({"a": [1.0, "x"]}, {"a": [1.0, "x"]}, 0.0), ({"a": 200.0}, {"a": 201.0}, 0.005), ("a", "b", float("inf")),
    ([1], [1, 2], float("inf")), ({"a": 1}, {"b": 1}, float("inf")), (True, 1.0, 0.0), (None, 0.0, float("inf")),
])
def test_the_relative_difference_of_two_predictions(one: Any, other: Any, expected: float) -> None:
    assert relative_difference(one, other) == pytest.approx(expected)


def test_a_wrapped_parameter_is_known_again() -> None:
    assert holds("base_model.model.classifier.modules_to_save.default.weight", "classifier.weight")
    assert not holds("base_model.model.classifier.modules_to_save.default.bias", "classifier.weight")
    assert not holds("bert.pooler.dense.weight", "classifier.weight")
