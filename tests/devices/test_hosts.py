"""Two hosts train one model: two network namespaces with a cable between them, each with processes of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from spawn import losses

import hubtune

ADDRESSES = ("10.213.77.1", "10.213.77.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[tuple[str, str, str]]]:
    """The name, the network interface and the address of each of two hosts; nothing of them stays behind."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` to make network namespaces with: apt-get install iproute2")
    names = [f"hubtune-{os.getpid()}-{number}" for number in (0, 1)]
    cable = [f"ht{os.getpid() % 10**8}.{number}" for number in (0, 1)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", cable[0], "netns", names[0], "type", "veth", "peer", "name", cable[1], "netns", names[1])
            for name, end, address in zip(names, cable, ADDRESSES, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", end)
                ip("-n", name, "link", "set", end, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield list(zip(names, cable, ADDRESSES, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@contextlib.contextmanager
def started(commands: list[list[str]], place: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Commands, each with its output in a file; they and their children end with the block."""
    running = []
    try:
        for number, command in enumerate(commands):
            with (place / f"{number}.txt").open("w", encoding="utf-8") as said:
                running.append(subprocess.Popen(command, stdout=said, stderr=said, text=True, start_new_session=True))
        yield running
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def on(host: tuple[str, str, str], number: int, first: str, processes: int, arguments: list[str]) -> list[str]:
    """A host's part of a training."""
    name, interface, address = host
    return [
        "ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={interface}", "OMP_NUM_THREADS=1",
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", str(processes),
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{first}:29500", "--rdzv-conf", f"is_host={number == 0}",
        "--local-addr", address, "-m", "hubtune", "train", *arguments,
    ]


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("fsdp", ["off", "on"])
def test_two_hosts_train_as_one_process_does(fsdp: str, hosts: Any, tiny_model: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(
        f"{'good' if n % 2 else 'bad'} film {n}{' and so on' * (n % 5)},{'yes' if n % 2 else 'no'}\n" for n in range(24)), encoding="utf-8")
    model = str(tiny_model("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    sets = ["train.epochs=2", "train.batch_size=6", "train.precision=fp64", "train.learning_rate=1e-2", "train.verify=false", f"train.fsdp={fsdp}"]
    hubtune.train("text-classification", model=model, data=str(rows), out=str(tmp_path / "one"), set=sets[:-1])
    arguments = ["text-classification", "--model", model, "--data", str(rows), "--out", str(tmp_path / "two")]
    arguments += [word for setting in sets for word in ("--set", setting)]
    commands = [on(host, number, ADDRESSES[0], 1, arguments) for number, host in enumerate(hosts)]
    with started(commands, tmp_path) as running:
        codes = [process.wait(240) for process in running]
    assert codes == [0, 0], "\n".join((tmp_path / f"{number}.txt").read_text(encoding="utf-8")[-3000:] for number in (0, 1))
    for line, other in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert other == pytest.approx(line, rel=1e-10)
    alone, found = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-11)
