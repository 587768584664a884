"""A library is a guest: calls of the API leave the process as it was."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import hubtune
from hubtune import guest
from hubtune.errors import BusyError

ROWS = [{"text": f"{'good' if n % 2 else 'bad'} thing number {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
SET = {"train.max_steps": 2, "train.verify": False}


def snapshot() -> dict[str, Any]:
    """All that a call might change of the process."""
    import datasets
    import huggingface_hub.utils as hub_utils
    import transformers
    from accelerate.state import is_initialized

    places = [torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.mkldnn, getattr(torch.backends.mkldnn, "matmul", None)]
    return {
        "random": random.getstate(), "numpy": str(np.random.get_state()), "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ), "warnings": list(warnings.filters), "showwarning": warnings.showwarning,
        "functional": {name: id(value) for name, value in vars(functional).items()}, "torch functions": {name: id(value) for name, value in vars(torch).items() if callable(value)},
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "device": torch.get_default_device(), "dtype": torch.get_default_dtype(), "threads": torch.get_num_threads(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "products": (torch.get_float32_matmul_precision(), [getattr(place, "fp32_precision", None) for place in places]),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")), "gradients": torch.is_grad_enabled(),
        "modes": len(torch.overrides._get_current_function_mode_stack()),
        "transformers": (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()),
        "datasets": (datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()), "hub": hub_utils.are_progress_bars_disabled(),
        "accelerate": is_initialized(), "folder": Path.cwd(), "attention": sorted(transformers.AttentionInterface().valid_keys()),
    }


@pytest.fixture
def particular() -> Any:
    """A process with settings of its own, none of them the default."""
    import datasets
    import transformers

    before = transformers.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    transformers.logging.set_verbosity_info()
    transformers.logging.enable_progress_bar()
    datasets.enable_progress_bars()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    yield
    transformers.logging.set_verbosity(before[0])
    transformers.logging.disable_progress_bar()
    if before[1]:
        datasets.disable_progress_bars()


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        assert other[name] == value, name


@pytest.mark.usefixtures("particular")
def test_training_predicting_and_evaluating_leave_the_process_as_it_was(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    model = tiny_model("bert")
    before = snapshot()
    run = hubtune.train("text-classification", model=model, data=ROWS, out=tmp_path / "run", set={**SET, "train.precision": "bf16"})
    same(before, snapshot())
    run.predict(["good"])
    run.evaluate(ROWS)
    hubtune.load(tmp_path / "run" / "model").predict([row["text"] for row in ROWS] * 4)
    same(before, snapshot())
    hubtune.check("text-classification", model=model, data=ROWS, out=tmp_path / "other", set=SET)
    hubtune.plan("text-classification", model=model, data=ROWS, out=tmp_path / "other", set=SET)
    same(before, snapshot())


@pytest.mark.usefixtures("particular")
@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_an_exception_in_the_middle_leaves_the_process_as_it_was(
    precision: str, tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubtune_plugins.text.text_classification import TextClassification

    model, own, steps = tiny_model("bert"), TextClassification.loss, []

    def fails(self: Any, outputs: Any, batch: Any) -> Any:
        if torch.is_grad_enabled() and torch.overrides._get_current_function_mode_stack():
            steps.append(batch)
        if len(steps) > 3:
            raise ZeroDivisionError
        return own(self, outputs, batch)

    monkeypatch.setattr(TextClassification, "loss", fails)
    before = snapshot()
    with pytest.raises(ZeroDivisionError):
        hubtune.train("text-classification", model=model, data=ROWS, out=tmp_path / "run", set={**SET, "train.max_steps": 20, "train.precision": precision})
    assert len(steps) > 3
    same(before, snapshot())


def test_the_callers_accelerator_may_have_other_settings_afterwards(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    from accelerate import Accelerator

    vars(Accelerator(cpu=True).state).clear()  # of tests that ran before in this process
    hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run", set=SET)
    environment = dict(os.environ)
    own = Accelerator(cpu=True, mixed_precision="bf16")
    assert own.mixed_precision == "bf16"
    vars(own.state).clear()
    guest.restore_environment(environment)


def test_a_second_training_in_another_thread_is_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    model, found, inside, go_on = tiny_model("bert"), {}, threading.Event(), threading.Event()

    class Waits(hubtune.Callbacks):
        def on_progress_start(self, *given: Any, **named: Any) -> None:
            inside.set()
            go_on.wait(60)

    def train(name: str, callbacks: Any = None) -> None:
        try:
            hubtune.train("text-classification", model=model, data=ROWS, out=tmp_path / name, set=SET, callbacks=callbacks)
            found[name] = "trained"
        except BusyError as error:
            found[name] = error.message

    first = threading.Thread(target=train, args=("first", Waits()))
    first.start()
    assert inside.wait(120)
    train("second")
    with pytest.raises(BusyError, match="trains in another thread"):
        hubtune.load(tmp_path / "nothing")
    go_on.set()
    first.join()
    assert found["first"] == "trained"
    assert "in another thread of this process" in found["second"]
    train("third")
    assert found["third"] == "trained"


def test_predictions_in_two_threads_take_turns() -> None:
    seen: list[str] = []

    @guest.preserve_state
    def use(name: str) -> None:
        seen.append(f"{name} begins")
        random.seed(len(seen))
        threading.Event().wait(0.05)
        seen.append(f"{name} ends")

    before = random.getstate()
    threads = [threading.Thread(target=use, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line.split()[1] for line in seen] == ["begins", "ends"] * 3
    assert random.getstate() == before


def test_the_run_of_another_process_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubtune.errors import ResumeError
    from hubtune.runs.run import FollowerRun

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ResumeError, match="process 1 of 2 has no run"):
        FollowerRun(tmp_path).metrics  # noqa: B018
