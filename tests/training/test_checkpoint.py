"""Checkpoints: whole or not there, never believed when a byte has changed, and bit for bit what was saved."""

from __future__ import annotations

import errno
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy import make_context, run

from hubtune.callbacks import Callbacks
from hubtune.errors import ResumeError, TrainingError
from hubtune.training import checkpoint
from hubtune.training.checkpoint import Checkpoint
from hubtune.training.checkpoint_writer import Saver, snapshot
from hubtune.training.loop import Loop


def some(step: int) -> Checkpoint:
    draw = torch.Generator().manual_seed(step)
    model = {"a.weight": torch.randn(3, 4, generator=draw), "a.count": torch.tensor(step), "b": torch.randn(2, generator=draw).bfloat16()}
    return Checkpoint({"model": model, "optimizer": {"0.exp_avg": torch.randn(4, generator=draw)}},
                      {"step": step, "best": [0.5, -0.1], "strategy": {}, "wörter": None})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return one.state == other.state and one.tensors.keys() == other.tensors.keys() and all(
        one.tensors[group].keys() == other.tensors[group].keys()
        and all(torch.equal(t, other.tensors[group][name]) and t.dtype == other.tensors[group][name].dtype
                for name, t in tensors.items())
        for group, tensors in one.tensors.items()
    )


def learning(model: torch.nn.Module) -> frozenset[str]:
    """What a strategy lets learn."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Checkpoint, Checkpoint]:
    """Two checkpoints of one run, in tmp_path."""
    first, second = some(5), some(10)
    checkpoint.write(tmp_path, "step-000000005", first)
    checkpoint.write(tmp_path, "step-000000010", second)
    return first, second


def test_what_was_written_is_read(tmp_path: Path) -> None:
    place = checkpoint.write(tmp_path, "step-000000005", some(5))
    found = checkpoint.read(place)
    assert found is not None
    assert same(found, some(5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000005"]
    assert {path.suffix for path in place.iterdir()} == {".json", ".safetensors"}


def test_the_newest_is_taken(tmp_path: Path, two: tuple[Checkpoint, Checkpoint]) -> None:
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert same(found, two[1])


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "not there") is None
    assert checkpoint.read(tmp_path / "not there") is None


def test_what_a_crash_left_half_written_is_ignored(tmp_path: Path, two: tuple[Checkpoint, Checkpoint]) -> None:
    half = tmp_path / ".step-000000015.partial"
    half.mkdir()
    (half / "state.json").write_text('{"step": 15', encoding="utf-8")
    (half / "model.safetensors").write_bytes(b"\x00" * 9)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.state["step"] == 10
    third = some(15)
    checkpoint.write(tmp_path, "step-000000015", third)  # the same step again, over what was left
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert same(found, third)
    assert not half.exists()


def test_a_checkpoint_is_written_over_another_of_its_name(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, "best", some(1))
    second = some(2)
    checkpoint.write(tmp_path, "best", second)
    found = checkpoint.read(tmp_path / "best")
    assert found is not None
    assert same(found, second)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_with_one_byte_flipped_the_one_before_is_taken(
    tmp_path: Path, two: tuple[Checkpoint, Checkpoint], name: str
) -> None:
    path = tmp_path / "step-000000010" / name
    whole = path.read_bytes()
    for place in {0, 1, len(whole) // 2, len(whole) - 1, *range(0, len(whole), 29)}:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = checkpoint.newest(tmp_path)
        assert found is not None, place
        assert same(found, two[0]), place
    path.write_bytes(whole)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert same(found, two[1])


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_truncated_or_missing_file_falls_back_to_the_checkpoint_before(
    tmp_path: Path, two: tuple[Checkpoint, Checkpoint], name: str, damage: str
) -> None:
    path = tmp_path / "step-000000010" / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert same(found, two[0])


def test_best_weights_stay_as_long_as_a_checkpoint_knows_of_them(tmp_path: Path) -> None:
    """A run resumed from step 11 needs the best weights up to there, not only later ones."""
    for step in (9, 11, 100):
        checkpoint.write(tmp_path, f"step-{step:09d}", some(step))
    for step in (4, 8, 50, 99, 120, 130):
        checkpoint.write(tmp_path, checkpoint.best_name(step), some(step))
    checkpoint.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best-000000008", "best-000000099", "best-000000130", "step-000000011", "step-000000100"]


@pytest.mark.parametrize(("steps", "kept"), [([100], ["best-000000060"]), ([], [])])
def test_a_resumed_run_forgets_best_weights_of_later_steps(steps: list[int], kept: list[str], tmp_path: Path) -> None:
    """Else the newest would be kept in place of those that the resumed run finds to be the best."""
    for step in steps:
        state = {"progress": {"step": step}, "steps": 200}
        checkpoint.write(tmp_path, f"step-{step:09d}", Checkpoint(some(step).tensors, state))
    for step in (60, 130):
        checkpoint.write(tmp_path, checkpoint.best_name(step), some(step))
    found = checkpoint.to_resume(tmp_path, 200)
    assert (found is None) is (steps == [])
    assert sorted(path.name for path in tmp_path.glob("best-*")) == kept


def test_only_the_newest_stay_and_the_best_is_left_alone(tmp_path: Path) -> None:
    for step in (9, 10, 11, 100):
        checkpoint.write(tmp_path, f"step-{step:09d}", some(step))
    checkpoint.write(tmp_path, "best", some(9))
    (tmp_path / ".step-000000007.partial").mkdir()  # of a crash
    checkpoint.prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-000000011", "step-000000100"]


def at_every_line(look: Callable[[], None], work: Callable[[], Any]) -> int:
    """Do work, and before every line that it runs of checkpoint.py look at the disk: what SIGKILL would leave there."""
    lines = 0

    def local(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += 1
        look()
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename == checkpoint.__file__ else None)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("name", ["step-000000015", "step-000000010"])
def test_killed_at_any_line_of_a_save_there_is_the_new_one_or_one_before(
    tmp_path: Path, two: tuple[Checkpoint, Checkpoint], name: str
) -> None:
    seen: list[int] = []

    def look() -> None:
        found = checkpoint.newest(tmp_path)
        assert found is not None
        seen.append(found.state["step"])
        assert same(found, some(found.state["step"]))

    def work() -> None:
        checkpoint.write(tmp_path, name, some(15))
        checkpoint.prune(tmp_path)

    assert at_every_line(look, work) > 50
    order = list(dict.fromkeys(seen))
    assert order == ([10, 15] if name.endswith("15") else [10, 5, 15])  # in the place of another, that one goes first
    assert seen == sorted(seen, key=order.index), "what was there once stays"


def test_safetensors_reads_every_type_that_is_written(tmp_path: Path) -> None:
    """Ours is a writer of its own, since it hashes what it writes and lets other threads run."""
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in checkpoint.DTYPES}
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 3), "across": torch.randn(4, 3).T, "bit": torch.tensor(True)}
    path = tmp_path / "model.safetensors"
    checkpoint.write_file(path, checkpoint.serialize(tensors))
    found = load_file(path)
    assert found.keys() == tensors.keys()
    assert all(value.dtype == tensors[name].dtype and torch.equal(value.double() if value.is_floating_point() else value,
                                                                  tensors[name].double() if value.is_floating_point() else tensors[name])
               for name, value in found.items())


def test_large_files_are_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "AT_ONCE", 7)
    found = checkpoint.read(checkpoint.write(tmp_path, "best", some(3)))
    assert found is not None
    assert same(found, some(3))


# ------------------------------------------------------------------------------------------- saving, and going on


@pytest.fixture
def saver(tmp_path: Path) -> Any:
    """A saver of a run in tmp_path."""
    (tmp_path / "log.jsonl").touch()
    made = Saver(tmp_path / "checkpoints", tmp_path / "log.jsonl")
    yield made
    made.close()


def slowly(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let nothing be written until the event is set."""
    go_on, stage = threading.Event(), checkpoint.stage

    def slow(*given: Any) -> Path:
        assert go_on.wait(10)
        return stage(*given)

    monkeypatch.setattr(checkpoint, "stage", slow)
    return go_on


def test_buffers_and_the_state_may_change_while_a_checkpoint_is_written(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward pass changes buffers, as a batch norm does."""
    go_on = slowly(monkeypatch)
    now = some(5)
    saver.save({"step-000000005": now})
    for value in now.tensors["model"].values():
        value.zero_()
    now.state["best"].append("later")
    assert checkpoint.newest(saver.folder) is None
    go_on.set()
    saver.wait()
    found = checkpoint.newest(saver.folder)
    assert found is not None
    assert same(found, some(5))


def test_parameters_are_not_copied_and_may_change_once_they_were_read(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = slowly(monkeypatch)
    weight, moment = torch.nn.Parameter(torch.ones(3)), torch.full((3,), 2.0)
    groups = {"model": {"weight": weight}, "optimizer": {"0.exp_avg": moment}}
    kept = snapshot(groups)
    assert kept["model"]["weight"].data_ptr() == weight.data_ptr()
    assert kept["optimizer"]["0.exp_avg"].data_ptr() == moment.data_ptr()
    saver.save({"step-000000005": Checkpoint(groups, {})})
    assert not saver.read.is_set()
    go_on.set()
    saver.wait_until_read()
    with torch.no_grad():
        weight.zero_()
        moment.zero_()
    saver.wait()
    found = checkpoint.newest(saver.folder)
    assert found is not None
    assert found.tensors["model"]["weight"].tolist() == [1.0, 1.0, 1.0]
    assert found.tensors["optimizer"]["0.exp_avg"].tolist() == [2.0, 2.0, 2.0]


def test_the_best_and_the_newest_are_kept(saver: Saver) -> None:
    for step in (5, 10, 15):
        now = some(step)
        saver.save({"best": Checkpoint({"model": now.tensors["model"]}, {"step": step}), f"step-{step:09d}": now})
    saver.wait()
    best, newest = checkpoint.read(saver.folder / "best"), checkpoint.newest(saver.folder)
    assert best is not None
    assert newest is not None
    assert best.state == {"step": 15}
    assert same(newest, some(15))
    assert all(torch.equal(best.tensors["model"][name], value) for name, value in newest.tensors["model"].items())
    assert sorted(path.name for path in saver.folder.iterdir()) == ["best", "step-000000010", "step-000000015"]


def test_an_error_in_the_thread_is_raised_by_the_next_save_without_partial_files(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver.save({"step-000000001": some(1)})
    saver.wait()

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "flush", full)
        saver.save({"step-000000002": some(2)})
        with pytest.raises(TrainingError, match="a checkpoint could not be written: No space left on device") as told:
            saver.save({"step-000000003": some(3)})
    assert f"--resume {saver.folder.parent}" in str(told.value.hint)
    assert [path.name for path in saver.folder.iterdir()] == ["step-000000001"]
    saver.save({"step-000000003": some(3)})  # said once
    saver.close()
    found = checkpoint.newest(saver.folder)
    assert found is not None
    assert same(found, some(3))


# ------------------------------------------------------------------------------------------ models and optimizers


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))


def train_micro_batch(model: torch.nn.Module, optimizer: torch.optim.Optimizer, first: int, steps: int) -> None:
    for step in range(first, first + steps):
        draw = torch.Generator().manual_seed(step)
        loss = model(torch.randn(6, 4, generator=draw)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


OPTIMIZERS: dict[str, Any] = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
    "amsgrad": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, amsgrad=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=1e-2),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-2, centered=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_that_went_through_a_checkpoint_is_the_same_bit_for_bit(tmp_path: Path, name: str) -> None:
    model = small_model()
    optimizer = OPTIMIZERS[name]([{"params": [p]} for p in model.parameters()])
    train_micro_batch(model, optimizer, 0, 3)
    tensors, plain = checkpoint.optimizer_state(optimizer)
    place = checkpoint.write(tmp_path, "step-000000003", Checkpoint(
        {"model": checkpoint.trained_tensors(model, learning(model)), "optimizer": tensors}, {"optimizer": plain}
    ))
    train_micro_batch(model, optimizer, 3, 3)

    other = small_model()
    again = OPTIMIZERS[name]([{"params": [p]} for p in other.parameters()])
    found = checkpoint.read(place)
    assert found is not None
    checkpoint.restore_tensors(other, found.tensors["model"], learning(other))
    checkpoint.restore_optimizer(again, found.tensors["optimizer"], found.state["optimizer"])
    restored, _ = checkpoint.optimizer_state(again)
    assert {key: value.dtype for key, value in restored.items()} == {key: value.dtype for key, value in tensors.items()}
    train_micro_batch(other, again, 3, 3)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    ours, theirs = checkpoint.optimizer_state(optimizer), checkpoint.optimizer_state(again)
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(value, theirs[0][key]) for key, value in ours[0].items())
    assert ours[1] == theirs[1]


def test_only_what_moves_is_saved() -> None:
    model = small_model()
    model[0].weight.requires_grad = False  # type: ignore[index, union-attr]
    model.register_buffer("made_again", torch.ones(2), persistent=False)
    assert set(checkpoint.trained_tensors(model, learning(model))) == {
        "0.bias", "1.weight", "1.bias", "2.weight", "2.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    }


def test_weights_that_the_model_has_not_are_refused() -> None:
    model = small_model()
    with pytest.raises(ResumeError, match=r"the checkpoint and the model differ in their weights: lora_A\.") as caught:
        checkpoint.restore_tensors(model, {**checkpoint.trained_tensors(model, learning(model)), "lora_A": torch.zeros(1)}, learning(model))
    assert "--overwrite" in str(caught.value.hint)


@pytest.mark.parametrize("gone", ["0.weight", "1.running_mean"])
def test_weights_that_the_checkpoint_has_not_are_refused_and_none_is_changed(gone: str) -> None:
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    saved = {name: torch.zeros_like(value) for name, value in checkpoint.trained_tensors(model, learning(model)).items() if name != gone}
    with pytest.raises(ResumeError, match=f"differ in their weights: {gone}"):
        checkpoint.restore_tensors(model, saved, learning(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("shape", [(1,), (7,)])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = small_model()
    with pytest.raises(ResumeError):
        checkpoint.restore_tensors(model, {**checkpoint.trained_tensors(model, learning(model)), "0.bias": torch.zeros(shape)}, learning(model))


def test_weights_that_do_not_move_are_not_asked_of_a_checkpoint() -> None:
    model = small_model()
    model[0].weight.requires_grad = False  # type: ignore[index, union-attr]
    checkpoint.restore_tensors(model, {name: torch.zeros_like(value) for name, value in checkpoint.trained_tensors(model, learning(model)).items()}, learning(model))
    assert not torch.equal(model[0].weight, torch.zeros_like(model[0].weight))  # type: ignore[index, arg-type]


def test_a_disk_that_is_too_full_is_refused_before_the_training(tmp_path: Path) -> None:
    checkpoint.refuse_full_disk(tmp_path, 1000, 1000)
    with pytest.raises(TrainingError, match=r"this run needs \d+\.\d GB"):
        checkpoint.refuse_full_disk(tmp_path, 10**16, 1)


def test_nothing_that_runs_code_is_written(tmp_path: Path) -> None:
    place = checkpoint.write(tmp_path, "best", some(1))
    hashes = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    assert set(hashes) == {"model.safetensors", "optimizer.safetensors", "state.json"}


@pytest.mark.parametrize("best_epoch", [1, 2])
def test_a_run_shorter_than_half_a_minute_writes_best_weights_alone(best_epoch: int, tmp_path: Path) -> None:
    """Its result is that of a run which saves after every step."""
    results = []
    for name, minutes in (("often", 0.0), ("short", 10.0)):
        made = make_context(tmp_path / name, save_minutes=minutes, evals_per_epoch=1)
        loop = Loop(made, Callbacks())
        validate = loop.validate

        def scored(loop: Loop = loop, validate: Callable[[], Any] = validate) -> Any:
            """Make the weights of one epoch the best."""
            is_best = loop.progress.step == best_epoch * loop.epoch_steps
            loop.progress.best = None if is_best else [float("inf"), 0.0]
            return validate()

        loop.validate = scored  # type: ignore[method-assign]
        run(loop)
        assert loop.progress.best_step == best_epoch * loop.epoch_steps
        results.append(made.model.state_dict())
    names = sorted(place.name for place in (tmp_path / "short" / "checkpoints").glob("*"))
    assert names == (["best-000000003"] if best_epoch == 1 else [])
    assert len(checkpoint.list_checkpoints(tmp_path / "often" / "checkpoints")) == checkpoint.KEPT
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
