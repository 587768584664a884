"""The conformance kit for strategies: subclass `StrategyConformance`, name the strategy, and run pytest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from hubtune.contract import Strategy, registry
from hubtune.contract.validation import checked
from hubtune.defaults import OPEN
from hubtune.evaluation import verification
from hubtune.recipe import PluginChoice
from hubtune.testing import models as tiny
from hubtune.testing.bench import ROWS, Bench, Failed, ensure
from hubtune.testing.checks import STEPS, Conformance, Runs, same_weights
from hubtune.testing.fixtures import fixture_for
from hubtune.testing.watched import Declined, Learnt, learn


class StrategyConformance(Conformance):
    """Every check that a strategy has to pass.

        class TestVectors(StrategyConformance):
            plugin = Vectors
            model = "roberta"
    """

    plugin: ClassVar[type[Strategy[Any]]]
    task: ClassVar[str] = "text-classification"
    """The name of an installed task, which it is tried on."""
    task_options: ClassVar[Mapping[str, Any]] = {}
    """Of that task's options, by name."""

    @classmethod
    def bench(cls) -> Bench:
        """The task on a tiny model, with its sample encoded."""
        def make() -> Bench:
            ensure(isinstance(cls.task, str), f"the test class says task = {cls.task!r}: it is the name of an installed task, "
                   "such as \"text-classification\".", "`task` of the test class")
            task = registry.load().task(PluginChoice(cls.task, cls.task_options))
            rows = fixture_for(task).sample(task, ROWS)
            folder = tiny.tiny_for(task, Path(cls._place.name) / "tiny", rows=rows, model_type=cls.model)
            return Bench(task, folder, rows)

        return cls.once("bench", make)  # type: ignore[no-any-return]

    @classmethod
    def runs(cls) -> Runs:
        """Runs with the strategy, through the public API."""
        bench = cls.bench()
        sets = {f"task.{name}": value for name, value in cls.task_options.items()}
        sets |= {f"strategy.{name}": value for name, value in cls.options.items()}
        return Runs(type(bench.task), cls.plugin, bench.folder, bench.rows, sets, Path(cls._place.name))

    @classmethod
    def learnt(cls) -> Learnt:
        """A training in this process with the strategy under watch, made once."""
        def make() -> Learnt:
            try:
                return learn(cls.bench(), cls.made(), STEPS, Path(cls._place.name) / "learnt")
            except Declined as error:
                raise Failed(f"`prepare` declines the model that it is tested on: {error.message}\n"
                             "Look at: `model` and `task` of the test class") from error

        return cls.once("learnt", make)  # type: ignore[no-any-return]

    @classmethod
    def trained(cls) -> Any:
        """A finished run through the public API, made once."""
        return cls.once("trained", lambda: cls.runs().whole())

    # ------------------------------------------------------------------------------------------------- what it declares

    def test_it_names_its_paper_and_its_values(self) -> None:
        """A method has a source, and `defaults` only has keys that a recipe leaves open."""
        ensure((self.plugin.paper or "").strip(), "it names no paper.", "`paper`: where the method was published")
        strange = sorted(set(self.plugin.defaults) - set(OPEN))
        ensure(not strange, f"`defaults` has keys that no recipe leaves open: {', '.join(strange)}.", f"known are: {', '.join(OPEN)}")
        ensure(self.plugin.loads_with in ("transformers", "peft", "code"), f"loads_with is {self.plugin.loads_with!r}.", "`loads_with`")
        json.dumps(dict(self.plugin.defaults))

    def test_it_refuses_with_a_reason_or_not_at_all(self) -> None:
        """`refuse` gives None or a line, for every configuration, and takes the model it is tested on."""
        import transformers

        bench = self.bench()
        strategy = self.made()
        said = checked(strategy, "refuse", strategy.refuse(bench.task, bench.base.config))
        ensure(said is None, f"it refuses the model that it is tested on: {said}", "`model` and `task` of the test class")
        for name, family in tiny.FAMILIES.items():
            reason = self.made().refuse(bench.task, getattr(transformers, family.config)(**family.sizes))
            ensure(reason is None or (isinstance(reason, str) and reason.strip()),
                   f"refuse says {reason!r} of {name}: it is a reason, or None.", "`refuse`")

    def test_its_phases_share_the_run(self) -> None:
        """The shares of its phases are above 0 and make 1; their names differ."""
        phases = self.made().phases()
        ensure(phases and all(phase.share > 0 and phase.rate > 0 for phase in phases), f"phases without a share: {phases}.", "`phases`")
        ensure(abs(sum(phase.share for phase in phases) - 1) < 1e-6, "the shares of its phases do not make 1.", "`phases`")
        ensure(len({phase.name for phase in phases}) == len(phases), "two phases have one name.", "`phases`")

    # ------------------------------------------------------------------------------------------------------- what learns

    def test_frozen_weights_stay_and_fresh_weights_learn(self) -> None:
        """In every phase each trainable parameter is in one group; the frozen stay bit for bit; the head learns."""
        watched = self.learnt().watched
        watched.check()
        ensure(watched.differs(), "every weight learns, as if there were no strategy.",
               "`prepare`, `start_phase`: do they set requires_grad to False? (or are `param_groups`, `optimizer`, `after_step` misspelt)")

    def test_the_export_predicts_as_the_trained_model(self) -> None:
        """`export` changes no output, and says truly what loads it."""
        from hubtune.evaluation import clean_process
        from hubtune.evaluation.batches import evaluation_mode, make_batch

        learnt, bench = self.learnt(), self.bench()
        batch = make_batch(learnt.outcome.model, bench.task, bench.examples[:4], bench.base)
        with evaluation_mode(learnt.outcome.model) as model:
            before = clean_process.compared_outputs(model(**batch.inputs))
        strategy = learnt.watched.strategy
        made = checked(strategy, "export", strategy.export(learnt.outcome.model))
        ensure(made.loads_with == strategy.loads_with, f"the class says loads_with={strategy.loads_with!r}, its export "
               f"{made.loads_with!r}.", "`loads_with` and `export`")
        ensure(hasattr(made.root, "save_pretrained"), f"the root is a {type(made.root).__name__} without save_pretrained.", "`export`")
        with evaluation_mode(made.root) as root:
            after = clean_process.compared_outputs(root(**batch.inputs))
        for name, value in before.items():
            worst = float((after[name] - value).abs().max())
            ensure(worst <= verification.TOLERANCE * max(1.0, float(value.abs().max())), f"{name} differs by {worst:.1e} after export.",
                   "`export`: merge what was added, or publish the code that runs it")

    # -------------------------------------------------------------------------------------------------------- whole runs

    def test_it_trains_publishes_and_loads_without_hubtune(self) -> None:
        """A run ends with a folder that loads as `loads_with` says, in a process without hubtune, with the same outputs."""
        run = self.trained()
        ensure(run.record["proof"], "the saved model was not proven.", "the run's record")
        usage = self.made().usage(self.bench().task, "me/model", self.bench().base)
        ensure("import hubtune" not in usage, "the card's usage needs hubtune.", "`usage`")
        compile(usage, "usage", "exec")

    def test_a_resumed_run_is_the_uninterrupted_one(self) -> None:
        """Killed in the middle and resumed, a run ends with the same weights, bit for bit."""
        whole, resumed = self.trained(), self.runs().resumed()
        same_weights(whole.folder / "model", resumed.folder / "model",
                     "what the method keeps beside the weights: `state` and `restore`; drawing from a generator of its own")
