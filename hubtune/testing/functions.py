"""The conformance kits for losses and metrics: subclass one, name the class, and run pytest."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune.contract import ClassificationTask, LossFunction, MetricFunction, registry
from hubtune.contract.validation import checked
from hubtune.recipe import PluginChoice
from hubtune.testing.bench import ROWS, Bench, ensure
from hubtune.testing.checks import Conformance, Runs, same_weights
from hubtune.testing.fixtures import fixture_for
from hubtune.testing.models import tiny_for
from hubtune.testing.sums import sums

if TYPE_CHECKING:
    from torch import Tensor

LABELS = ("rare", "common", "usual")
COUNTS = {"rare": 2, "common": 20, "usual": 10}
"""Labels of made-up training data, and how many rows have each."""
TASK = "text-classification"


class OnClassification(Conformance):
    """Runs of a classification task with the plugin."""

    def sets(self) -> dict[str, Any]:
        """The recipe keys that choose the plugin."""
        raise NotImplementedError

    def runs(self) -> Runs:
        """Runs with the plugin on a tiny model, through the public API."""
        task = registry.load().task(PluginChoice(TASK, {"kind": self.plugin.kinds[0]}))
        rows = fixture_for(task).sample(task, ROWS)
        place = Path(self._place.name)
        folder = self.once("tiny", lambda: tiny_for(task, place / "tiny", rows=rows))
        sets = {"task.kind": self.plugin.kinds[0], **self.sets()}
        strategy = registry.load().strategies["full"]
        return Runs(type(task), strategy, folder, rows, sets, place, (self.plugin,))

    def trained(self) -> Any:
        """A finished run through the public API, made once."""
        return self.once("trained", lambda: self.runs().whole())


class LossConformance(OnClassification):
    """Every check that a loss has to pass.

        class TestFocal(LossConformance):
            plugin = Focal
            options = {"gamma": 1.0}
    """

    plugin: ClassVar[type[LossFunction[Any]]]

    def sets(self) -> dict[str, Any]:
        """The recipe keys that choose the loss."""
        return {"loss.name": self.plugin.name, **{f"loss.{name}": value for name, value in self.options.items()}}

    def fitted(self, kind: Any) -> LossFunction[Any]:
        """The loss as a run has it, for labels of this kind."""
        loss: LossFunction[Any] = self.made()
        counts = {} if kind == "regression" else COUNTS
        loss.restore(json.loads(json.dumps(checked(loss, "fit", loss.fit(kind, counts)))))
        return loss

    def test_what_it_fits_is_json_and_the_same_each_time(self) -> None:
        """`fit` gives the same JSON at every call, so that a resumed run has the same loss."""
        for kind in self.plugin.kinds:
            first, second = (self.made().fit(kind, {} if kind == "regression" else COUNTS) for _ in range(2))
            ensure(json.loads(json.dumps(first)) == json.loads(json.dumps(second)), "two calls of `fit` differ.",
                   "`fit`: it follows from the counts and the options alone")

    def test_the_loss_of_a_target_depends_on_no_other(self) -> None:
        """Losses and weights of a batch are those of its parts: so a step may be cut anyhow."""
        import torch

        for kind in self.plugin.kinds:
            loss = self.fitted(kind)
            logits, targets = batch_of(kind)
            whole = checked(loss, "losses", loss.losses(logits, targets))
            ensure(tuple(whole.shape) == (len(targets),), f"{len(targets)} targets have losses of shape {tuple(whole.shape)}.",
                   '`losses`: one per target, with `reduction="none"`')
            parts = torch.cat([loss.losses(logits[part], targets[part]) for part in (slice(0, 1), slice(1, None))])
            ensure(bool(torch.allclose(whole, parts, rtol=1e-9)), f"the losses of a batch are {whole.tolist()}, and "
                   f"{parts.tolist()} when it is cut in two.", "`losses`: no mean over the batch, no count of its labels")
            weights = checked(loss, "weights", loss.weights(targets))
            if weights is not None:
                ensure(tuple(weights.shape) == (len(targets),) and bool((weights >= 0).all()) and bool((weights > 0).any()),
                       f"weights are {weights.tolist()}.", "`weights`: one per target, 0 or more")
                again = torch.cat([loss.weights(targets[part]) for part in (slice(0, 1), slice(1, None))])  # type: ignore[misc]
                ensure(bool(torch.equal(weights, again)), "the weights of a batch change when it is cut in two.", "`weights`")

    def test_its_gradient_is_finite(self) -> None:
        """Losses and gradients are finite, also where the model is sure, rightly or wrongly."""
        import torch

        for kind in self.plugin.kinds:
            loss = self.fitted(kind)
            for scale in (0.0, 1.0, 30.0, 1e4):
                logits, targets = batch_of(kind, torch.float32)
                logits = (logits.detach() * scale).requires_grad_()
                losses = loss.losses(logits, targets)
                (gradient,) = torch.autograd.grad(losses.sum(), logits)
                ensure(bool(torch.isfinite(losses).all()), f"losses of logits times {scale:g} are {losses.tolist()}.", "`losses`")
                ensure(bool(torch.isfinite(gradient).all()), f"a gradient of logits times {scale:g} is not finite.",
                       "`losses`: powers and logarithms at 0 and 1; compute from log_softmax, and clamp")

    def test_it_prefers_the_right_answer(self) -> None:
        """Steps against its gradient lower it."""
        import torch

        for kind in self.plugin.kinds:
            loss = self.fitted(kind)
            logits, targets = batch_of(kind)
            logits = logits.detach().requires_grad_()
            optimizer = torch.optim.Adam([logits], lr=0.1)
            seen = []
            for _ in range(100):
                total = loss.losses(logits, targets).sum()
                seen.append(float(total.detach()))
                optimizer.zero_grad()
                total.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            ensure(seen[-1] < 0.5 * seen[0], f"100 steps take the loss from {seen[0]:.4f} to {seen[-1]:.4f}.", "`losses`: its sign")

    def test_a_step_of_a_model_may_be_cut(self) -> None:
        """On a task and a tiny model, loss and counts add up over examples."""
        run = self.runs()
        task = registry.load().task(PluginChoice(TASK, {"kind": self.plugin.kinds[0]}))
        bench = Bench(task, run.model, run.rows)
        assert isinstance(task, ClassificationTask)
        task.loss_function = self.made()
        task.loss_function.restore(task.loss_function.fit(task.label_kind(), task.label_counts(bench.dataset_info, bench.base)))
        sums(bench, bench.uniform)

    def test_a_run_records_it(self) -> None:
        """`run.json` names the loss, and keeps what it computed of the training data."""
        record = self.trained().record
        ensure(record["loss"]["name"] == self.plugin.name, f"run.json names the loss {record['loss']['name']!r}.", "`name`")

    def test_a_resumed_run_is_the_uninterrupted_one(self) -> None:
        """Killed in the middle and resumed, a run ends with the same weights, bit for bit."""
        whole, resumed = self.trained(), self.runs().resumed()
        same_weights(whole.folder / "model", resumed.folder / "model", "state of the loss that `fit` does not return")


def batch_of(kind: str, dtype: Any = None) -> tuple[Tensor, Tensor]:
    """Return logits and targets of six rows, with each label among them."""
    import torch

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 1 if kind == "regression" else len(LABELS), generator=generator, dtype=dtype or torch.float64)
    targets = {
        "single_label": torch.tensor([0, 1, 2, 1, 0, 2]),
        "multi_label": torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 1]]),
        "regression": torch.tensor([0.5, -1.0, 2.0, 3.0, 0.0, 1.5]),
    }
    return logits.requires_grad_(), targets[kind]


REFERENCES: Mapping[str, list[Any]] = {
    "single_label": [0, 1, 1, 1, 2, 1, 2, 1], "regression": [0.5, -1.0, 2.0, 3.0, 0.0, 1.5, 4.0, -2.0],
    "multi_label": [[1, 0, 0], [0, 1, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 0, 1]],
}
"""Right answers of each kind."""


class MetricConformance(OnClassification):
    """Every check that a metric has to pass.

        class TestKappa(MetricConformance):
            plugin = Kappa
    """

    plugin: ClassVar[type[MetricFunction[Any]]]

    def sets(self) -> dict[str, Any]:
        """The recipe keys that choose the metric."""
        return {"train.metric_for_best_model": self.plugin.name}

    def computed(self, kind: str, references: list[Any], predictions: list[Any]) -> float:
        """The score of some answers."""
        metric: MetricFunction[Any] = self.made()
        return float(checked(metric, "compute", metric.compute(references, predictions, [] if kind == "regression" else LABELS)))

    def test_it_is_a_number_and_the_same_each_time(self) -> None:
        """The score is finite, the same at every call and for rows in any order, and changes no answer."""
        for kind in self.plugin.kinds:
            references = list(REFERENCES[kind])
            predictions = references[1:] + references[:1]
            before = copy.deepcopy((references, predictions))
            first, second = (self.computed(kind, references, predictions) for _ in range(2))
            ensure(math.isfinite(first), f"the score is {first}.", "`compute`")
            ensure(first == second, f"two calls give {first} and {second}.", "`compute`: no random numbers, no state")
            ensure(before == (references, predictions), "it changes the answers that it is given.", "`compute`")
            backward = self.computed(kind, references[::-1], predictions[::-1])
            ensure(abs(first - backward) <= 1e-9 * max(1.0, abs(first)), f"the score of the rows backwards is {backward}, not {first}.",
                   "`compute`: the order of rows does not matter")

    def test_right_answers_score_best(self) -> None:
        """No answers score better than the right ones, and wrong ones score worse."""
        sign = 1.0 if self.plugin.higher_is_better else -1.0
        for kind in self.plugin.kinds:
            references = list(REFERENCES[kind])
            best = self.computed(kind, references, references)
            wrong = self.computed(kind, references, references[1:] + references[:1])
            ensure(sign * wrong < sign * best, f"right answers score {best}, wrong ones {wrong}.", "`compute`, or `higher_is_better`")

    def test_few_rows_have_a_score(self) -> None:
        """Rows of one label, and a single row, have a finite score: validation sets and resamples may be such."""
        for kind in self.plugin.kinds:
            one = REFERENCES[kind][:1]
            for predictions in (one, REFERENCES[kind][1:2]):
                for times in (1, 3):
                    found = self.computed(kind, one * times, predictions * times)
                    ensure(math.isfinite(found), f"{times} rows of one label have the score {found}.", "`compute`: a division by 0?")

    def test_it_chooses_the_best_weights_of_a_run(self) -> None:
        """A run is scored by it, with an interval, and it decides which weights are best."""
        record = self.trained().record
        ensure(record["task"]["metric"] == self.plugin.name, f"the deciding metric is {record['task']['metric']!r}.", "`name`")
        ensure(self.plugin.name in record["metrics"]["validation"], "the run has no such score.", "`compute`")
        found = record["intervals"]["validation"] | record["no_intervals"]["validation"]
        ensure(self.plugin.name in found, "its score has neither an interval nor a reason for none.", "`compute`")
