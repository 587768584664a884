"""Law 2: interrupted at any moment and resumed is never interrupted, bit for bit, dropout on."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import pytest
import tqdm
from safetensors.torch import load_file

import hubtune
from hubtune.cli import commands
from hubtune.evaluation import intervals, metrics
from hubtune.training import checkpoint
from hubtune.training.accumulation import Accumulation, StepResult

SETTINGS = {"train.epochs": 3.0, "train.batch_size": 8, "data.limit": 40, "train.early_stopping_patience": 0, "train.verify": False,
            "train.save_minutes": 0.0}  # a checkpoint is written after every step


def weights(run):
    return load_file(run.folder / "model" / "model.safetensors")


def like(run):
    """The settings with that run's plan: what is measured anew may be cut in another way, and dropout follows the cut."""
    return {**SETTINGS, "train.plan": str(run.folder)}


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


class Stop(hubtune.Callbacks):
    """Stops a run after some steps, as a crash would."""

    def __init__(self, after):
        self.after = after

    def on_progress(self, units, **shown):
        self.after -= units if shown else 0
        if self.after <= 0 and shown:
            raise MemoryError("stopped on purpose")


@pytest.mark.parametrize("strategy", ["full", "head", "lora"])
@pytest.mark.parametrize("after", [2, 9])
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(
    strategy, after, tmp_path, tiny_model, reviews, uninterrupted
):
    out, whole = tmp_path / "run", uninterrupted(strategy)
    with pytest.raises(hubtune.EnvironmentProblem):
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, strategy=strategy, set=like(whole), out=out,
                      callbacks=Stop(after))
    resumed = hubtune.resume(out)
    assert same(weights(whole), weights(resumed)) == []
    assert whole.record["metrics"] == resumed.record["metrics"]


def test_the_log_of_a_resumed_run_has_every_step_once(tmp_path, tiny_model, reviews, uninterrupted):
    out = tmp_path / "run"
    with pytest.raises(hubtune.EnvironmentProblem):
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=like(uninterrupted("full")), out=out, callbacks=Stop(7))
    resumed = hubtune.resume(out)

    def lines(run):
        found = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if name != "tokens_per_second"} for line in found]

    assert lines(resumed) == lines(uninterrupted("full"))


def flip_a_bit(place):
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)


def cut_off(place):
    path = place / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def lose_the_manifest(place):
    (place / "manifest.json").unlink()


def be_half_written(place):
    place.rename(place.with_name(f".{place.name}.partial"))


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, lose_the_manifest, be_half_written])
def test_a_broken_newest_checkpoint_is_passed_over(damage, tmp_path, tiny_model, reviews, uninterrupted):
    out = tmp_path / "run"
    with pytest.raises(hubtune.EnvironmentProblem):
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=like(uninterrupted("full")), out=out, callbacks=Stop(9))
    newest, before = checkpoint.list_checkpoints(out / "checkpoints")
    damage(newest)
    assert checkpoint.newest(out / "checkpoints").state["progress"]["step"] == int(before.name.removeprefix("step-"))
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


class Signal(hubtune.Callbacks):
    """Sends a signal to this process after every step."""

    def __init__(self, number):
        self.number = number

    def on_progress(self, units, **shown):
        if shown:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(number, tmp_path, tiny_model, reviews, uninterrupted, monkeypatch, capsys):
    out = tmp_path / "run"
    monkeypatch.setattr(commands, "screen", lambda: Signal(number))
    sets = [part for key, value in {**like(uninterrupted("full")), "train.save_minutes": 10.0}.items()
            for part in ("--set", f"{key}={json.dumps(value)}")]
    status = commands.main(["train", "sentiment", "--model", str(tiny_model("bert")), "--data", str(reviews), "--out", str(out), *sets])
    told = capsys.readouterr().err
    assert status == 128 + number
    assert "stopped after step 1 of 15; everything up to there is saved" in told
    assert "hubtune train --resume" in told
    assert [place.name for place in checkpoint.list_checkpoints(out / "checkpoints")] == ["step-000000001"]
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(tmp_path, tiny_model, reviews, uninterrupted, monkeypatch):
    """Its step and rows are named, and what was being saved becomes whole."""
    compute = Accumulation.compute

    def broken(self, model, optimizer, step, epoch, items):
        result = compute(self, model, optimizer, step, epoch, items)
        return result if step < 6 else StepResult(dict.fromkeys(result.losses, float("nan")), 0, 0, 1)

    out = tmp_path / "run"
    settings = like(uninterrupted("full"))  # trained before anything is broken
    with monkeypatch.context() as patch:
        patch.setattr(Accumulation, "compute", broken)
        with pytest.raises(hubtune.HubtuneError, match=r"the loss of step 6 is nan; its rows: rows \d+.* of train") as stopped:
            hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=settings, out=out)
    assert f"--resume {out}" in stopped.value.hint
    assert checkpoint.newest(out / "checkpoints").state["progress"]["step"] == 6
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


@pytest.mark.parametrize("full_at", [4, 15])
def test_a_full_disk_stops_the_run_and_the_one_before_is_kept(full_at, tmp_path, tiny_model, reviews, uninterrupted, monkeypatch):
    """The thread fails; the loop hears of it at the next save, or at the end if there is none."""
    write = checkpoint.write_file

    def full(path, parts):
        if f"step-{full_at:09d}" in str(path) and path.suffix == ".safetensors":
            write(path, [next(iter(parts))])
            raise OSError(28, "No space left on device")
        return write(path, parts)

    out = tmp_path / "run"
    settings = like(uninterrupted("full"))  # trained before anything is broken
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_file", full)
        with pytest.raises(hubtune.HubtuneError, match="No space left on device") as stopped:
            hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=settings, out=out)
    assert f"--resume {out}" in stopped.value.hint
    assert not list((out / "checkpoints").glob(".*"))
    assert checkpoint.newest(out / "checkpoints").state["progress"]["step"] == full_at - 1
    assert same(weights(uninterrupted("full")), weights(hubtune.resume(out))) == []


def test_what_cannot_be_resumed_says_why(tmp_path, tiny_model, reviews, uninterrupted):
    finished = uninterrupted("full")
    (finished.folder / "checkpoints").mkdir()  # killed before it could delete them
    with pytest.raises(hubtune.HubtuneError, match="already trained"):
        hubtune.resume(finished.folder)
    assert not (finished.folder / "checkpoints").exists()
    with pytest.raises(hubtune.HubtuneError, match=r"no run\.json"):
        hubtune.resume(tmp_path)
    data = tmp_path / "rows.csv"
    data.write_bytes(reviews.read_bytes())
    out = tmp_path / "run"
    with pytest.raises(hubtune.EnvironmentProblem):
        hubtune.train("sentiment", model=tiny_model("bert"), data=data, set=SETTINGS, out=out, callbacks=Stop(2))
    data.write_text(data.read_text() + "A new row that was not there,positive\n")
    with pytest.raises(hubtune.HubtuneError, match="the data has changed"):
        hubtune.resume(out)


# ------------------------------------------------------------------------------------------------------- SIGKILL

KILLS = {"full": 13, "head": 12, "lora": 13, "adapters": 12}
HEAVY = ["pytest", "hubtune.runs.stages", "hubtune.cli.commands", "hubtune.runs.predictor", "hubtune_plugins.text.sentiment", "hubtune_plugins.peft.structure",
         "datasets", "pandas", "peft", "scipy.stats", "sklearn.metrics", "transformers.models.bert.modeling_bert"]
"""What is imported once, by the process that the others are forked from."""


class Begun(hubtune.Callbacks):
    """Keeps `run.json` as it is when the training begins: the measured plan is in it, which others shall have, too."""

    def __init__(self, out):
        self.out = out

    def on_progress_start(self, what, total):
        if what == "training":
            shutil.copy(self.out / "run.json", self.out / "begun.json")


def quick():
    """Without what takes long and is not the training, and without a lock that a killed process would leave behind."""
    os.environ["HUBTUNE_PLUGINS"] = ",".join(["sentiment", *KILLS])
    tqdm.tqdm.set_lock(threading.RLock())
    metrics.confidence_intervals = lambda *_: intervals.Intervals()


def resumed_run(out):
    quick()
    hubtune.resume(out)


def whole_run(strategy, model, data, out):
    quick()
    hubtune.train("sentiment", model=model, data=data, strategy=strategy, set=SETTINGS, out=out, callbacks=Begun(out))


def in_a_process(processes, function, *arguments, kill_after=None):
    """Run a function in a process of its own, which may be killed; how it ended, and after how many seconds."""
    process, start = processes.Process(target=function, args=arguments), time.monotonic()
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()
    return process.exitcode, time.monotonic() - start


def state_of(out):
    return json.loads((out / "run.json").read_text())["state"]


@pytest.mark.slow
@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are not forked on this system")
def test_killed_at_fifty_random_moments_and_resumed(tmp_path, tiny_model, reviews):
    """SIGKILL wherever it falls, and again on what was resumed, until a run comes to its end; then anew from its start."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(HEAVY)
    model, out = tiny_model("bert"), tmp_path / "run"
    assert json.loads((model / "config.json").read_text())["hidden_dropout_prob"] > 0
    draw, left = random.Random(0), []
    for strategy, kills in KILLS.items():
        reference = tmp_path / strategy
        in_a_process(processes, whole_run, strategy, model, reviews, reference)
        status, seconds = 0, 0.0
        while kills or out.exists():
            if not out.exists():
                out.mkdir()
                shutil.copy(reference / "begun.json", out / "run.json")
            moment = draw.uniform(0, seconds) if kills and seconds else None  # the first is not killed: how long is a run?
            status, lived = in_a_process(processes, resumed_run, out, kill_after=moment)
            assert status in (0, -signal.SIGKILL)
            if status:
                kills -= 1
                left.append(sorted(path.name for path in out.glob("checkpoints/*")))
            seconds = seconds or lived
            if state_of(out) == "trained":
                assert same(load_file(reference / "model/model.safetensors"), load_file(out / "model/model.safetensors")) == []
                shutil.rmtree(out)
    assert len(left) == 50
    print(f"50 kills: {sum(map(bool, left))} after a save had begun, {sum('.partial' in str(names) for names in left)} within one")
