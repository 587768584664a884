"""The conformance kit for tasks: subclass `TaskConformance`, name the task, and run pytest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from hubtune.contract import Base, GenerativeTask, Prediction, Row, Strategy, Task
from hubtune.contract.validation import checked, loss_terms
from hubtune.data.encoding import encode
from hubtune.data.row_batches import RowBatch
from hubtune.errors import BrokenPlugin, HubtuneError
from hubtune.evaluation.batches import make_batch
from hubtune.evaluation.equivalence import relative_difference
from hubtune.models.configuration import open_base, task_for_model
from hubtune.runs.page.panels import collect
from hubtune.testing.bench import ROWS, Bench, Failed, ensure, no_grad, same_tensors
from hubtune.testing.checks import Conformance, Runs, same_weights
from hubtune.testing.fixtures import TaskFixture, fixture_for
from hubtune.testing.models import tiny_for
from hubtune.testing.sums import one_size, rounding, sums

NAMES = {"judged": "postprocess", "predicted": "predict"}


def tokens_of(processor: Any) -> str:
    """Describe what a task may want to change of a tokenizer: its special tokens and its chat template."""
    tokenizer = getattr(processor, "tokenizer", processor)
    return repr([getattr(tokenizer, name, None) for name in ("special_tokens_map", "chat_template", "src_lang", "tgt_lang")])


class TaskConformance(Conformance, TaskFixture):
    """Every check that a task has to pass.

        class TestLevels(TaskConformance):
            plugin = Levels
            options = {"order": ["low", "medium", "high"]}
    """

    plugin: ClassVar[type[Task[Any]]]
    rows: ClassVar[int] = ROWS
    """Number of rows that `sample` is asked for."""
    atol: ClassVar[float] = 1e-5
    """The largest difference that padding may make, relative to values above 1."""
    steps: ClassVar[int] = 60
    """In how many steps eight rows have to be learnt by heart."""
    rate: ClassVar[float] = 5e-3
    """At which learning rate they are learnt."""
    uniform: ClassVar[bool] = False
    """The model has no mask, so only examples of one size meet in a batch."""

    def sample(self, task: Task[Any], count: int) -> list[dict[str, Any]]:
        """Return labelled rows that can be learnt, by role, the same at every call. Default: the task's fixture."""
        return fixture_for(task).sample(task, count)

    def gold(self, task: Task[Any], row: Row, base: Base) -> Prediction:
        """Return the prediction that a labelled row deserves; no other may score better. Default: the task's fixture."""
        return fixture_for(task).gold(task, row, base)

    @classmethod
    def bench(cls) -> Bench:
        """The task on a tiny model, with its sample encoded."""
        def make() -> Bench:
            task = cls.made()
            rows = cls().sample(task, cls.rows)
            return Bench(task, tiny_for(task, Path(cls._place.name) / "tiny", rows=rows, model_type=cls.model), rows)

        return cls.once("bench", make)  # type: ignore[no-any-return]

    @classmethod
    def runs(cls) -> Runs:
        """Runs of the task with full fine-tuning, through the public API."""
        from hubtune.contract import registry

        bench = cls.bench()
        sets = {f"task.{name}": value for name, value in cls.options.items()}
        full = registry.load().strategies.get("full", Strategy)
        return Runs(cls.plugin, full, bench.folder, bench.rows, sets, Path(cls._place.name))

    @classmethod
    def trained(cls) -> Any:
        """A finished run, made once."""
        return cls.once("trained", lambda: cls.runs().whole())

    # ------------------------------------------------------------------------------------------------ rows and facts

    def test_its_sample_is_labelled_and_the_same_at_every_call(self) -> None:
        """`sample(n)` gives n rows by role, with all that training needs."""
        task = self.made()
        rows = self.sample(task, self.rows)
        ensure(len(rows) == self.rows, f"sample({self.rows}) gave {len(rows)} rows.", "`sample`")
        needed = {column.role for column in task.columns if column.needed != "never"}
        ensure(all(needed <= row.keys() for row in rows), f"its rows lack some of {sorted(needed)}.", "`sample`")
        known = {column.role for column in task.columns}
        ensure(all(row.keys() <= known for row in rows), f"its rows have roles that `columns` does not: {sorted(known)}.",
               "`sample`")
        ensure(same_tensors(rows, self.sample(task, self.rows)), "two calls give different rows.", "randomness in `sample`")

    def test_its_facts_are_json_and_configure_the_same_model_again(self) -> None:
        """`validate_data` gives JSON; `model_config` writes the same from these facts, and keeps a tuned model as it is."""
        bench = self.bench()
        again = self.made().validate_data({"train": bench.rows, "validation": bench.rows})
        ensure(relative_difference(bench.dataset_info, again) == 0,
               "two calls of inspect differ, or facts change on their way through JSON (keys become text).", "`validate_data`")
        again = Bench(self.made(), bench.folder, bench.rows)
        ensure(again.base.config.to_json_string() == bench.base.config.to_json_string(),
               "the same facts configure another model.", "`model_config`")
        tuned = task_for_model(again.origin, self.made())
        opened = open_base(again.origin, tuned)
        before = tokens_of(opened.processor)
        tuned.model_config(bench.dataset_info, opened)
        setup = tuned.model_config({}, again.base)
        ensure(tokens_of(opened.processor) == before, "it changes the tokenizer in place.",
               "`model_config`: return ModelSetup(tokenizer={\"pad_token\": ...})")
        changed = [key for key, value in setup.config.items()
                   if json.dumps(value, default=str) != json.dumps(getattr(bench.base.config, key, None), default=str)]
        ensure(not changed, f"without facts, a tuned model loses its {', '.join(changed)}.",
               "`model_config` with empty facts: read them from base.config")

    def test_every_row_is_encoded(self) -> None:
        """One list of examples per row, each with a size, within the model's length; the same at every call."""
        bench = self.bench()
        lists = [list(found) for found in bench.task.encode(bench.rows, bench.base)]
        ensure(len(lists) == len(bench.rows), f"{len(bench.rows)} rows became {len(lists)} lists.", "`encode`: one list a row")
        ensure(all(lists), f"rows without an example: {[i for i, found in enumerate(lists) if not found]}.", "`encode`")
        sizes = [bench.task.num_tokens(example) for found in lists for example in found]
        ensure(all(isinstance(size, int) and size > 0 for size in sizes), f"sizes are no positive ints: {sizes[:4]}.", "`num_tokens`")
        limit = bench.base.max_length
        ensure(limit is None or bench.task.unit != "tokens" or max(sizes) <= limit,
               f"an example of {max(sizes)} tokens is longer than base.max_length={limit}.", "`encode`: cut there")
        again = [list(found) for found in bench.task.encode(bench.rows, bench.base)]
        ensure(same_tensors(lists, again), "a second call encodes differently.", "randomness belongs into `collate`")
        halves = [RowBatch([bench.rows[row] for row in half], half) for half in (range(8), range(8, len(bench.rows)))]
        parted = [list(found) for half in halves for found in bench.task.encode(half, bench.base)]
        ensure(same_tensors(lists, parted), "rows are encoded differently when they come some at a time.",
               "`encode`: what a row becomes depends on that row alone, and its number is what `enumerate_rows` says")
        kept = [[bench.encoded.examples[item] for item in items] for items in bench.encoded.examples_by_row()]
        ensure(same_tensors(lists, kept), "examples are not the same once they were kept.",
               "`encode`: plain dicts of numbers, texts, lists and arrays are kept as they are")

    def test_rows_without_targets_are_encoded_and_answered(self) -> None:
        """Rows to predict lack their targets: they are encoded, collated without targets, and answered."""
        bench = self.bench()
        hidden = {column.role for column in bench.task.columns if column.target}
        needed = {column.role for column in bench.task.columns if column.target and column.needed == "train"}
        rows = [{role: value for role, value in row.items() if role not in hidden} for row in bench.rows]
        lists = [list(found) for found in bench.task.encode(rows, bench.base)]
        ensure(len(lists) == len(rows) and all(lists), "rows without targets are not all encoded.", "`encode`")
        batch = make_batch(bench.model, bench.task, lists[0], bench.base)
        ensure(not needed or batch.targets is None, "a batch of rows without targets has targets.", "`collate`")
        with no_grad():
            answers = (bench.task.predict(bench.model, batch, bench.base) if isinstance(bench.task, GenerativeTask)
                       else bench.task.postprocess(bench.task.forward(bench.model, batch), batch, bench.base))
        ensure(len(answers) == len(lists[0]), f"{len(lists[0])} examples got {len(answers)} answers.", "`predict`, `postprocess`")

    def test_a_long_row_is_cut_at_the_length_that_it_may_have(self) -> None:
        """No example is longer than `base.max_length`, which is below the longest here; rows are tokens."""
        bench = self.bench()
        if bench.task.unit != "tokens":
            return
        longest = int((bench.encoded.sizes if bench.encoded.lengths is None else bench.encoded.lengths).max())
        try:
            encode(bench.task, bench.rows, bench.base, longest - 1)
        except BrokenPlugin as error:
            raise Failed(f"{error.message}\nLook at: `encode`: truncate where base.max_length is not None") from error

    def test_a_label_that_the_model_does_not_know_is_an_error_with_a_message(self) -> None:
        """Rows that are evaluated are not inspected: `encode` (or `score`) has to say what is wrong with a label."""
        bench = self.bench()
        answers = bench.answers(real=False)
        for role in [column.role for column in bench.task.columns if column.kind == "label" and column.role in bench.rows[0]]:
            rows = [{**row, role: strange(row[role])} for row in bench.rows]
            try:
                for _ in bench.task.encode(rows, bench.base):
                    pass
                bench.task.score(answers, rows, bench.base)
            except HubtuneError:
                continue
            except Exception as error:  # of the plugin, whatever it is
                raise Failed(f"a {role} that the model does not know, {rows[0][role]!r}, gives a {type(error).__name__}: {error}\n"
                             "Look at: `encode`: raise hubtune.DataError there; `validate_data` sees only the training data") from error

    # ------------------------------------------------------------------------------------------------------- the loss

    def test_its_loss_is_a_sum(self) -> None:
        """loss(A + B) = loss(A) + loss(B), and padding is no part of it: so a step may be cut anyhow."""
        sums(self.bench(), self.uniform, self.atol)

    def tolerance(self, bench: Bench) -> float:
        """Return what rounding may do."""
        return rounding(bench, self.atol)

    def test_every_loss_term_has_a_count_above_zero(self) -> None:
        """`Batch.counts` names the terms of `loss`, and nothing else."""
        bench = self.bench()
        counts = bench.batch(bench.whole, rngs=True).counts
        terms = bench.losses(bench.model, bench.whole)
        ensure(counts.keys() == terms.keys(), f"the batch counts {sorted(counts)}, and the loss has {sorted(terms)}.",
               "`collate`: `Batch.counts`, by the name of each `Loss`; by default `loss` counts the rows")
        ensure(all(float(count) > 0 for count in counts.values()), f"a count is not above 0: {counts}.", "`Batch.counts`")

    def test_it_learns_eight_rows_by_heart(self) -> None:
        """The loss of eight rows falls below half of where it began, within `steps` steps at `rate`."""
        import torch

        bench = self.bench()
        items = [index for index in bench.whole if bench.encoded.owner[index] < 8]
        model = bench.fresh_model(Strategy()).model.eval()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=self.rate)
        seen: list[float] = []
        for _ in range(self.steps):
            total: Any = 0.0
            for part in [items] if not self.uniform else one_size(bench, items):
                batch = bench.batch(part, model, rngs=True)
                for term in loss_terms(bench.task, bench.task.forward(model, batch), batch):
                    total = total + term.weight * term.total / max(batch.counts[term.name], 1e-9)
            ensure(bool(torch.isfinite(total.detach())), f"the loss became {float(total.detach())} after {len(seen)} steps.", "`loss`, or a lower `rate`")
            seen.append(float(total.detach()))
            if seen[-1] < 0.5 * seen[0]:
                return
            total.backward()
            optimizer.step()
            optimizer.zero_grad()
        ensure(False, f"eight rows are not learnt by heart: the loss went from {seen[0]:.4f} to {seen[-1]:.4f} in "
               f"{len(seen)} steps.", "`loss` and `collate`: do the targets belong to their rows? Else `steps`, `rate`")

    # ----------------------------------------------------------------------------------------------- draws and padding

    def test_a_draw_fixes_the_batch(self) -> None:
        """All randomness comes from the draws: the same draws make the same batch, and without draws there is none."""
        bench = self.bench()
        import torch

        for rngs in (None, bench.rngs(bench.whole)):
            made = []
            for seed in (1, 2):
                torch.manual_seed(seed)
                made.append(bench.task.collate(bench.examples, bench.base, rngs))
            ensure(same_tensors([made[0].inputs, made[0].targets], [made[1].inputs, made[1].targets]),
                   f"two batches of the same examples {'without' if rngs is None else 'with the same'} draws differ.",
                   "`collate`: take every random number from draws[i].random()")
        ensure(made[0].size == len(bench.examples), f"a batch of {len(bench.examples)} says size {made[0].size}.", "`collate`")

    def test_neighbours_do_not_change_an_answer(self) -> None:
        """A row's answer is the same alone, beside longer ones, and in any order."""
        bench = self.bench()
        ways = [bench.judged, *([bench.predicted] if bench.generates else [])]
        for answer in ways:
            for items in [bench.order()] if not self.uniform else one_size(bench):
                together, backward = answer(items), answer(items[::-1])[::-1]
                worst = relative_difference(together, backward)
                ensure(worst <= self.tolerance(bench), f"answers differ by {worst:.1e} when the order of a batch does.",
                       f"`{NAMES[answer.__name__]}`: one answer per example, in their order")
                for place in {0, len(items) // 2}:
                    worst = relative_difference(answer([items[place]])[0], together[place])
                    ensure(worst <= self.tolerance(bench), f"an answer changes by {worst:.1e} beside longer rows.",
                           "`collate`: the attention mask; `postprocess`: does it read padding? (uniform = True: there is no mask)")

    # ---------------------------------------------------------------------------------------------- answers and scores

    def test_its_answers_are_json(self) -> None:
        """Predictions, and what the user sees of them, are JSON without NaN."""
        bench = self.bench()
        for row, answer in zip(bench.rows, bench.answers(), strict=True):
            for value in (answer, bench.task.show(answer), self.gold(bench.task, row, bench.base)):
                ensure(isinstance(value, dict) and value, f"a prediction is a dict with entries, not {value!r}.", "`postprocess`, `gold`")
                try:
                    json.dumps(value, allow_nan=False)
                except (TypeError, ValueError) as error:
                    ensure(False, f"a prediction is no JSON: {error}.", "`postprocess`, `merge`, `show`: use .tolist() and .item()")

    def test_its_panels_are_json_and_name_rows_that_there_are(self) -> None:
        """Parts of the page are made of any answers, right or not; their rows are some of those given."""
        bench = self.bench()
        gold = [self.gold(bench.task, row, bench.base) for row in bench.rows]
        for answers in (bench.answers(real=False), gold):
            try:
                json.dumps(collect(bench.task, answers, bench.rows, bench.base, with_rows=True))
            except (IndexError, TypeError, ValueError, KeyError) as error:
                ensure(False, f"its panels fail: {type(error).__name__}: {error}.", "`panels`: plain numbers and texts, and indices of rows")

    def test_no_prediction_scores_better_than_gold(self) -> None:
        """The right answers score best, wrong ones score worse, and the deciding metric is among the scores."""
        bench = self.bench()
        task, base, rows = bench.task, bench.base, bench.rows
        metric = task.select_metric(base)
        def score(predictions: list[Prediction]) -> dict[str, float]:
            return checked(task, "score", task.score(predictions, rows, base))

        gold = [self.gold(task, row, base) for row in rows]
        judged = score(bench.answers(real=False))
        ensure(metric.name in judged, f"score of judge's answers has no {metric.name!r}: {sorted(judged)}.",
               "`score`: the deciding metric is needed at every validation, which only asks `postprocess`")
        ensure(all(isinstance(value, int | float) for value in judged.values()), f"scores are no numbers: {judged}.", "`score`")
        sign = 1.0 if metric.higher_is_better else -1.0
        best = sign * score(gold)[metric.name]
        others = {"the untrained model": judged, "gold of the next row": score([*gold[1:], gold[0]])}
        for name, found in others.items():
            ensure(sign * found[metric.name] <= best + 1e-9, f"{metric.name} of {name} ({found[metric.name]:.6g}) beats that of "
                   f"gold ({sign * best:.6g}).", "`score` and `gold`; or higher_is_better")
        ensure(any(sign * found[metric.name] < best - 1e-9 for found in others.values()),
               f"{metric.name} does not tell right answers from wrong ones: all are {sign * best:.6g}.", "`score`, or `sample`")

    def test_shares_are_means_of_zeros_and_ones(self) -> None:
        """Metrics in `shares` are the mean of what each row alone scores, which is 0, 1 or, for a draw, a half."""
        bench = self.bench()
        task, base, rows = bench.task, bench.base, bench.rows
        if not task.shares:
            return  # answers of other rows may not fit: words have tags of their own
        gold = [self.gold(task, row, base) for row in rows]
        mixed = [gold[(n + n % 2) % len(gold)] for n in range(len(gold))]
        whole, alone = task.score(mixed, rows, base), [task.score([one], [row], base) for one, row in zip(mixed, rows, strict=True)]
        for name in task.shares:
            values = [scores[name] for scores in alone if name in scores]
            ensure(not values or (set(values) <= {0.0, 0.5, 1.0} and abs(sum(values) / len(values) - whole[name]) < 1e-9),
                   f"{name} is {whole.get(name)}, and of each row {sorted(set(values))}.", "`shares`: only means of a 0 or 1 per row")

    # ------------------------------------------------------------------------------------------------------ whole runs

    def test_it_trains_publishes_and_loads_without_hubtune(self) -> None:
        """A run ends with a folder that transformers loads in a process without hubtune, with the same outputs."""
        import hubtune
        from hubtune.testing.bench import registered

        run = self.trained()
        ensure(run.record["proof"], "the saved model was not proven.", "the run's record")
        ensure(run.record["proof"]["asked"] or self.plugin.user_call is Task.user_call,
               "transformers answered none of the rows as `user_call` asks about them.", "`user_call`")
        usage = self.bench().task.usage("me/model", self.bench().base)
        ensure("import hubtune" not in usage, "the card's usage needs hubtune.", "`usage`")
        compile(usage, "usage", "exec")
        with registered(self.plugin):
            hidden = {column.role for column in self.plugin.columns if column.target}
            rows = [{k: v for k, v in row.items() if k not in hidden} for row in self.bench().rows[:4]]
            loaded = hubtune.load(run.folder / "model")
            worst = relative_difference(run.predict(rows), loaded.predict(rows))
        ensure(worst <= 1e-6, f"the loaded model's answers differ by {worst:.1e}.", "state of the task that `model_config` has to set")

    def test_a_resumed_run_is_the_uninterrupted_one(self) -> None:
        """Killed in the middle and resumed, a run ends with the same weights, bit for bit."""
        whole, resumed = self.trained(), self.runs().resumed()
        same_weights(whole.folder / "model", resumed.folder / "model",
                     "randomness that does not come from draws; state that a task keeps between batches")


NOBODYS = "a label of nobody"


def strange(value: Any) -> Any:
    """In place of a label, one of its kind that no model knows."""
    if isinstance(value, list):
        return [strange(item) for item in value]
    return 987654321 if isinstance(value, int) and not isinstance(value, bool) else NOBODYS
