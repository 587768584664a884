"""Several processes that train one model do what one does; and those that lost each other say so."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from spawn import TORCHRUN, Scored, forks, in_processes, losses, port, trained
from toy import Numbers, Penalised, Plain, Tight

from hubtune.devices import processes
from hubtune.errors import RecipeError
from hubtune.training import checkpoint


@forks
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("task", "strategy"), [(Numbers, Plain), (Scored, Plain), (Numbers, Penalised)])
def test_so_many_processes_train_as_one_does(count: int, task: Any, strategy: Any, tmp_path: Path) -> None:
    alone = trained(tmp_path / "one", task, strategy)
    found = in_processes(count, tmp_path / "many", task, strategy)
    for state in found:
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-9)
    for line, other in zip(losses(tmp_path / "one"), losses(tmp_path / "many"), strict=True):
        assert other == pytest.approx(line, rel=1e-9)


class ShortOfMemory(Tight):
    """In one of several processes memory does not suffice."""

    def forward(self, model: Any, batch: Any) -> Any:
        return super().forward(model, batch) if os.environ["RANK"] == "0" else Numbers.forward(self, model, batch)


class ScoredShortOfMemory(ShortOfMemory, Scored):
    """The same where the loss is over the whole step."""


@forks
@pytest.mark.parametrize(("task", "short"), [(Numbers, ShortOfMemory), (Scored, ScoredShortOfMemory)])
def test_all_processes_use_smaller_micro_batches_when_one_runs_out_of_memory(task: Any, short: Any, tmp_path: Path) -> None:
    alone = trained(tmp_path / "one", task, Plain)
    for state in in_processes(2, tmp_path / "many", short, Plain):
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-9)
    counts = [json.loads(line).get("micro_batches") for line in (tmp_path / "many" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert max(filter(None, counts[-4:])) > max(filter(None, counts[:2]))


@forks
@pytest.mark.parametrize("count", [1, 4])
def test_a_run_saved_by_two_goes_on_with_another_number(count: int, tmp_path: Path) -> None:
    alone = trained(tmp_path / "one", Scored, Plain)
    in_processes(2, tmp_path / "many", Scored, Plain, stop=4)
    for state in in_processes(count, tmp_path / "many", Scored, Plain, resume=True):
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-9)




def rows_file(folder: Path) -> str:
    rows = folder / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"{'good' if n % 2 else 'bad'} thing {n},{'yes' if n % 2 else 'no'}\n" for n in range(24)),
                    encoding="utf-8")
    return str(rows)


def test_torchrun_trains_one_model_and_says_so_once(tiny_model: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [*TORCHRUN, str(port()), "-m", "hubtune", "train", "text-classification", "--model", str(tiny_model("bert")), "--data", rows_file(tmp_path),
         "--out", str(tmp_path / "run"), "--json", "--set", "train.epochs=2", "--set", "train.precision=fp32"],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == len([line for line in losses(tmp_path / "run") if "loss" in line])
    assert done.stderr.count("Verifying the saved model") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_saves_once_and_says_so_once(number: int, tiny_model: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*TORCHRUN, str(port()), "-m", "hubtune", "train", "text-classification", "--model", str(tiny_model("bert")), "--data",
               rows_file(tmp_path), "--out", str(out), "--set", "train.epochs=2000", "--set", "train.early_stopping_patience=0", "--set", "train.precision=fp32",
               "--set", "train.save_minutes=0.01"]
    with (tmp_path / "said.txt").open("w") as said:
        running = subprocess.Popen(command, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and running.poll() is None and not list(out.glob("checkpoints/step-*")):
            time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(running.pid, number)  # as a terminal does: to all, and the launcher passes it on
        else:
            running.send_signal(number)
        assert running.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    told = (tmp_path / "said.txt").read_text()
    assert told.count("everything up to there is saved") == 1, told[-3000:]
    stopped = int(re.search(r"stopped after step (\d+)", told)[1])  # type: ignore[index]
    assert checkpoint.newest(out / "checkpoints").state["progress"]["step"] == stopped  # type: ignore[union-attr]


class Broken(Numbers):
    """Fails in one process alone."""

    def collate(self, examples: Any, base: Any, rngs: Any) -> Any:
        if processes.world_size() > 1 and not processes.is_first() and rngs and rngs[0].epoch == 1:
            raise ValueError("this process has failed")
        return super().collate(examples, base, rngs)


@forks
@pytest.mark.parametrize("shard", [False, True])
def test_a_process_that_fails_does_not_leave_the_others_waiting(shard: bool, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(AssertionError, match="this process has failed") as found:
        in_processes(2, tmp_path / "many", Broken, Plain, shard=shard)
    assert "-9" not in str(found.value).splitlines()[0]  # none of them had to be killed
    assert time.monotonic() - begun < 100


@pytest.mark.parametrize(("command", "environment", "launcher"), [
    (["python", "accelerate", "launch", "--cpu", "--num_processes", "2", "-m", "hubtune"], {}, "accelerate launch"),
    (["python", "-m", "accelerate.commands.accelerate_cli", "launch", "--num-processes=4"], {}, "accelerate launch"),
    (["bash"], {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"}, "srun"),
    (["orted"], {"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
])
def test_a_launcher_without_a_process_group_is_refused(
    command: list[str], environment: dict[str, str], launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "parent_command", lambda: command)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=f"{launcher} was asked for . processes, but WORLD_SIZE is not set"):
        processes.check_launcher()


def test_a_single_process_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "parent_command", lambda: ["accelerate", "launch", "--num_processes", "1"])
    monkeypatch.setenv("SLURM_NTASKS", "2")  # of the batch script, which is no step of it
    processes.check_launcher()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(RecipeError, match="MASTER_ADDR is not set"):
        processes.check_launcher()
