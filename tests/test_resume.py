"""Law 2: interrupted at any moment and resumed is never interrupted, bit for bit, dropout on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import hubtune
from hubtune import checkpoint

SETTINGS = {"train.epochs": 3.0, "train.batch_size": 8, "data.limit": 40, "train.patience": 0,
            "train.save_minutes": 0.0,
            "train.prove": False}


def weights(run):
    return load_file(run.folder / "model" / "model.safetensors")


def same(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not one[name].equal(other[name])]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_model, reviews):
    """For each strategy: the run that nothing stopped."""
    made = {}

    def run(strategy):
        if strategy not in made:
            made[strategy] = hubtune.train(
                "sentiment", model=tiny_model("bert"), data=reviews, strategy=strategy, set=SETTINGS,
                out=tmp_path_factory.mktemp(strategy) / "run",
            )
        return made[strategy]

    return run


class Stop(hubtune.Watcher):
    """Stops a run after some steps, as a crash would."""

    def __init__(self, after):
        self.after = after

    def advance(self, units, **shown):
        self.after -= units if shown else 0
        if self.after <= 0 and shown:
            raise MemoryError("stopped on purpose")


@pytest.mark.parametrize("strategy", ["full", "head", "lora"])
@pytest.mark.parametrize("after", [2, 9])
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(
    strategy, after, tmp_path, tiny_model, reviews, uninterrupted
):
    out = tmp_path / "run"
    with pytest.raises(MemoryError):
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, strategy=strategy, set=SETTINGS, out=out,
                      watcher=Stop(after))
    resumed = hubtune.resume(out)
    whole = uninterrupted(strategy)
    assert same(weights(whole), weights(resumed)) == []
    assert whole.record["metrics"] == resumed.record["metrics"]


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path, tiny_model, reviews, uninterrupted):
    out = tmp_path / "run"
    with pytest.raises(MemoryError):
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=SETTINGS, out=out, watcher=Stop(7))
    resumed = hubtune.resume(out)

    def lines(run):
        return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]

    assert lines(resumed) == lines(uninterrupted("full"))


def test_a_broken_newest_checkpoint_is_passed_over(tmp_path, tiny_model, reviews, uninterrupted):
    out = tmp_path / "run"
    with pytest.raises(MemoryError):
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=SETTINGS, out=out, watcher=Stop(9))
    newest = checkpoint.steps(out / "checkpoints")[0] / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


@pytest.mark.slow
def test_killed_at_a_random_moment_and_resumed(tmp_path, tiny_model, reviews, uninterrupted):
    """SIGKILL, wherever it falls: a checkpoint is written after every step here, so often within a save."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "hubtune", "train", "sentiment", "--model", str(tiny_model("bert")),
               "--data", str(reviews), "--out", str(out)]
    command += [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={str(value).lower()}")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path(out).glob("checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads((out / "run.json").read_text())["state"] == "started"
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, tiny_model, reviews, uninterrupted):
    class Interrupt(hubtune.Watcher):
        def advance(self, units, **shown):
            if shown:
                os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(hubtune.HubtuneError, match="stopped after step 1 of") as stopped:
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=SETTINGS, out=out, watcher=Interrupt())
    assert f"--resume {out}" in stopped.value.hint
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


def test_what_cannot_be_resumed_says_why(tmp_path, tiny_model, reviews, uninterrupted):
    finished = uninterrupted("full")
    with pytest.raises(hubtune.HubtuneError, match="already trained"):
        hubtune.resume(finished.folder)
    with pytest.raises(hubtune.HubtuneError, match=r"no run\.json"):
        hubtune.resume(tmp_path)
    data = tmp_path / "rows.csv"
    data.write_bytes(reviews.read_bytes())
    out = tmp_path / "run"
    with pytest.raises(MemoryError):
        hubtune.train("sentiment", model=tiny_model("bert"), data=data, set=SETTINGS, out=out, watcher=Stop(2))
    data.write_text(data.read_text() + "A new row that was not there,positive\n")
    with pytest.raises(hubtune.HubtuneError, match="the data has changed"):
        hubtune.resume(out)
