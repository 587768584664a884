"""Checks of all kinds of plugins: their descriptions, their imports, and that a run
of theirs can stop and go on. Each check raises `Failed` with what is wrong and what to look at."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hubtune.callbacks import Callbacks
from hubtune.contract import CONTRACT, Plugin, Strategy, Task
from hubtune.contract.class_checks import KINDS, check_class, kind_of, misspelt
from hubtune.contract.registry import unavailable
from hubtune.errors import RecipeError
from hubtune.options import fill
from hubtune.testing.bench import Failed, calm, ensure, registered

HEAVY = (
    "torch", "transformers", "datasets", "huggingface_hub", "accelerate", "peft", "numpy", "scipy", "sklearn", "pandas",
    "PIL", "soundfile", "soxr", "torchmetrics", "sacrebleu", "jiwer", "pycocotools", "bitsandbytes",
)
"""Modules that no plugin may import when it is loaded."""
STEPS = 6
"""Optimizer steps of the kit's runs."""


def documented(kind: type[Plugin[Any]]) -> None:
    """Attributes, docstring and help are as the contract wants them."""
    check_class(kind, KINDS[kind_of(kind)])
    ensure(kind.contract == CONTRACT, f"{kind.__name__} speaks contract {kind.contract}.", "the attribute `contract`")
    ensure("__doc__" in vars(kind) and (kind.__doc__ or "").strip(), f"{kind.__name__} has no docstring.",
           "the class: one line that says what it learns or how")
    ensure(kind.summary.strip() and "\n" not in kind.summary, "its summary is not one line.", "`summary`")
    ensure(kind.name == kind.name.lower() and " " not in kind.name, f"the name {kind.name!r} is not kebab-case.", "`name`")
    silent = [item.name for item in dataclasses.fields(kind.Options) if not item.metadata.get("help", "").strip()]
    ensure(not silent, f"options without a line of help: {', '.join(silent)}.",
           'write each as `name: type = option(default, "what it does")`')


def cheap(kind: type[Plugin[Any]]) -> None:
    """The plugin's module, imported in a fresh process, brings nothing heavy along."""
    module = sys.modules[kind.__module__]
    if kind.__module__ == "__main__" or not getattr(module, "__file__", None):
        return
    code = (
        "import importlib, importlib.util, json, sys\n"
        f"sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
        f"name, file = {kind.__module__!r}, {str(module.__file__)!r}\n"
        "try:\n    importlib.import_module(name)\nexcept ModuleNotFoundError:\n"
        "    spec = importlib.util.spec_from_file_location(name, file)\n"
        "    sys.modules[name] = made = importlib.util.module_from_spec(spec)\n    spec.loader.exec_module(made)\n"
        f"print(json.dumps([word for word in {HEAVY!r} if word in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    said = (done.stderr.strip().splitlines() or [""])[-1]
    ensure(not done.returncode, f"{kind.__module__} does not import in a fresh process: {said}", "its imports")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    ensure(not found, f"importing {kind.__module__} imports {', '.join(found)}: every `hubtune --help` would wait for it.",
           "imports at the top of the module; move them into the methods that use them")


def options_survive(plugin: Plugin[Any]) -> None:
    """Options are JSON values, and the same after a recipe file."""
    kind = type(plugin)
    for options in (kind.Options(), plugin.options):
        try:
            again: Any = fill(kind.Options, json.loads(json.dumps(dataclasses.asdict(options))), "options")
        except (TypeError, ValueError, RecipeError) as error:
            raise Failed(f"its options do not survive JSON: {error}\nLook at: the types in {kind.Options.__name__}") from error
        ensure(again == options, f"options change on their way through JSON: {options} became {again}.",
               f"{kind.Options.__name__}: only str, int, float, bool, None and lists of these survive")


class Stopped(RuntimeError):
    """Raised by a run that is stopped here."""


class Stop(Callbacks):
    """Kills a training in the middle of a step, before that step is saved."""

    def __init__(self, after: int) -> None:
        self.after, self.steps, self.training = after, 0, False

    def on_progress_start(self, what: str, total: int) -> None:
        self.training = what == "training"

    def on_progress(self, units: int, **shown: float) -> None:
        self.steps += units if self.training else 0
        if self.training and self.steps > self.after:
            raise Stopped


@dataclasses.dataclass
class Runs:
    """Runs of one task with one strategy on one tiny model, through the public API.

    more: further plugin classes that `set` names.
    """

    task: type[Task[Any]]
    strategy: type[Strategy[Any]]
    model: Path
    rows: Sequence[Mapping[str, Any]]
    set: Mapping[str, Any]
    place: Path
    more: tuple[type[Plugin[Any]], ...] = ()

    def arguments(self, name: str, **more: Any) -> dict[str, Any]:
        """Return what `hubtune.train` is called with."""
        data = [dict(row) for row in self.rows]
        return {
            "model": self.model, "data": {"train": data, "validation": data[: max(4, len(data) // 2)]},
            "strategy": self.strategy.name, "out": self.place / name,
            "set": {"train.max_steps": STEPS, "train.batch_size": 4, "train.keep": "last", "train.precision": "fp32",
                    "train.early_stopping_patience": 0, **self.set, **more},
        }

    @calm()
    def whole(self) -> Any:
        """A run that nothing stops, proven in a fresh process without hubtune."""
        import hubtune

        with registered(self.task, self.strategy, *self.more):
            return hubtune.train(self.task.name, **self.arguments("whole"))

    @calm()
    def resumed(self) -> Any:
        """The same run with the plan of the whole one, which is there; killed after half its steps, and resumed."""
        import hubtune

        arguments = self.arguments("resumed", **{
            "train.save_minutes": 0.0, "train.verify": False, "train.plan": str(self.place / "whole")})
        with registered(self.task, self.strategy, *self.more):
            try:
                hubtune.train(self.task.name, callbacks=Stop(STEPS // 2), **arguments)
            except Stopped:
                saved = sorted(path.name for path in (self.place / "resumed" / "checkpoints").glob("step-*"))
                ensure(saved, "the stopped run left no checkpoint.", "`state`: its values have to be JSON")
                return hubtune.resume(self.place / "resumed", data=arguments["data"])
        raise Failed("the run could not be stopped: it had fewer steps than it should.")


def same_weights(one: Path, other: Path, look: str) -> None:
    """Two published folders hold the same tensors, bit for bit."""
    import torch
    from safetensors.torch import load_file

    files = sorted(str(path.relative_to(one)) for path in one.rglob("*.safetensors"))
    ensure(files, f"nothing was saved: no safetensors in {one.name}.", "`export`")
    for name in files:
        first, second = load_file(one / name), load_file(other / name)
        ensure(first.keys() == second.keys(), f"{name} has other tensors after a resume.", look)
        changed = [key for key in first if not torch.equal(first[key], second[key])]
        ensure(not changed, f"a resumed run is not the uninterrupted one: {len(changed)} of {len(first)} tensors of "
               f"{name} differ, such as {changed[:1]}.", look)


class Conformance:
    """Base class of the kits for all kinds of plugins."""

    plugin: ClassVar[Any]
    """The class to be tested."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Of its `Options`, by name; the others keep their defaults."""
    model: ClassVar[str | None] = None
    """The type of the tiny model that it is tried on, such as `roberta`; None: the first that fits the task."""
    skips: ClassVar[Mapping[str, str]] = {}
    """Tests that do not apply: by name, each with the reason."""
    _place: ClassVar[Any]
    _made: ClassVar[dict[str, Any]]

    @classmethod
    def setup_class(cls) -> None:
        """A folder for the class, and a skip where the plugin's packages are not installed."""
        import pytest

        reason = unavailable(cls.plugin)
        if reason:
            pytest.skip(f"{cls.plugin.name}: {reason}")
        cls._place = tempfile.TemporaryDirectory(prefix="hubtune-kit-")
        cls._made = {}

    @classmethod
    def teardown_class(cls) -> None:
        """The folder goes."""
        if "_place" in vars(cls):
            cls._place.cleanup()
            del cls._place, cls._made

    def setup_method(self, method: Any) -> None:
        """Skip what the author says does not apply, with the author's reason."""
        import pytest

        if reason := self.skips.get(method.__name__):
            pytest.skip(reason)

    @classmethod
    def once(cls, name: str, make: Any) -> Any:
        """Return what is made once for all tests of the class."""
        if name not in cls._made:
            cls._made[name] = make()
        return cls._made[name]

    @classmethod
    def made(cls) -> Any:
        """An instance of the plugin with the options of the class."""
        kind = cls.plugin.for_options(cls.options)
        return kind(fill(kind.Options, cls.options, "options"))

    def test_it_is_documented(self) -> None:
        """The class, its summary and every option say what they are."""
        documented(self.plugin)

    def test_its_methods_are_those_of_the_contract(self) -> None:
        """No method has nearly the name of one that hubtune calls."""
        said = misspelt(self.plugin, KINDS[kind_of(self.plugin)])
        ensure(not said, f"{self.plugin.__name__} does not do what it seems to.{said}", "the names of the methods in docs/plugins.md")

    def test_its_import_is_cheap(self) -> None:
        """Nothing heavy is imported before it works: `hubtune --help` imports every plugin."""
        cheap(self.plugin)

    def test_its_options_survive_json(self) -> None:
        """A recipe and `run.json` give back the same options."""
        options_survive(self.made())

    def test_no_standard_test_is_overridden(self) -> None:
        """A check that does not apply is named in `skips`, with a reason; it is not replaced."""
        own = {name for parent in type(self).__mro__ if parent.__module__.startswith("hubtune.testing")
               for name in vars(parent) if name.startswith("test_")}
        replaced = sorted(name for parent in type(self).__mro__ if not parent.__module__.startswith("hubtune.testing")
                          for name in vars(parent) if name in own)
        ensure(not replaced, f"standard tests are replaced: {', '.join(replaced)}.", 'skips = {"test_name": "reason"}')
        strange = sorted(set(self.skips) - own)
        ensure(not strange, f"`skips` names no test: {', '.join(strange)}.", "`skips`")
        empty = sorted(name for name, reason in self.skips.items() if not reason.strip())
        ensure(not empty, f"skipped without a reason: {', '.join(empty)}.", "`skips`")
