"""Problems of disk, memory and variables are told in the user's terms, and a run that met one goes on."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

import hubtune
from hubtune import environment
from hubtune.cli import commands
from hubtune.data import cache
from hubtune.evaluation import model_checks, verification
from hubtune.hub import card
from hubtune.models import saving
from hubtune.runs import stages

FULL = OSError(errno.ENOSPC, "No space left on device", "/runs/model.safetensors")


@pytest.mark.parametrize("error", [
    FULL, OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0: No space left on device"),
])
def test_a_full_disk_is_called_one(error: Exception) -> None:
    found = environment.explain(error)
    assert found is not None
    assert found.message.startswith("the disk is full")
    assert "TMPDIR" in str(found.hint)


@pytest.mark.parametrize("error", [
    MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), RuntimeError("could not create a primitive"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"), RuntimeError("can't start new thread"),
])
def test_a_lack_of_memory_is_called_one(error: Exception) -> None:
    found = environment.explain(error)
    assert found is not None
    assert found.message.startswith("out of memory")


@pytest.mark.parametrize("error", [ValueError("invalid literal"), KeyError("label"), FileNotFoundError(2, "No such file", "a"),
                                   RuntimeError("The size of tensor a (3) must match the size of tensor b")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert environment.explain(error) is None
    with pytest.raises(type(error)), environment.explained():
        raise error


def test_the_cause_of_an_error_is_looked_at_but_our_own_errors_stay() -> None:
    wrapped = RuntimeError("the table could not be generated")
    wrapped.__cause__ = FULL
    assert environment.explain(wrapped) is not None
    with pytest.raises(hubtune.DataError), environment.explained():
        raise hubtune.DataError("row 3 is empty") from FULL


def test_a_limit_of_address_space_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "address_space_limit", lambda: 3_000_000_000)
    found = environment.explain(MemoryError())
    assert found is not None
    assert "3.0 GB of address space (ulimit -v)" in found.message
    assert "ulimit -v unlimited" in str(found.hint)


def test_a_model_that_lacks_memory_is_not_blamed_for_its_code() -> None:
    assert model_checks.is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not model_checks.is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize(("name", "value"), [("HF_HUB_DOWNLOAD_TIMEOUT", "soon"), ("HF_HUB_ETAG_TIMEOUT", "1s")])
def test_a_variable_that_a_library_refuses_is_named(name: str, value: str) -> None:
    done = subprocess.run([sys.executable, "-m", "hubtune", "search", "bert"], capture_output=True, text=True, check=False,
                          env={**os.environ, name: value})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"the environment variable {name} has the value '{value}'" in done.stderr
    assert f"unset {name}" in done.stderr


def test_python_without_docstrings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Flags:
        optimize = 2

    monkeypatch.setattr(environment.sys, "flags", Flags)
    with pytest.raises(hubtune.EnvironmentProblem, match="PYTHONOPTIMIZE"):
        environment.check()


def test_no_folder_for_temporary_files_is_refused_before_the_data_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(hubtune.EnvironmentProblem, match="temporary files") as caught:
        hubtune.check("sentiment", model="none/none", data="none.csv")
    assert "TMPDIR" in str(caught.value.hint)


def test_data_is_read_where_the_cache_cannot_be_written(
    tiny_model: Callable[..., Path], reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from datasets import Dataset, config

    rows = Dataset.from_csv(str(reviews), keep_in_memory=True)
    rows.to_parquet(str(tmp_path / "reviews.parquet"))
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", Path("/proc/hubtune/datasets"))
    with caplog.at_level(logging.WARNING, "hubtune"):
        found = hubtune.check("sentiment", model=tiny_model("bert"), data=tmp_path / "reviews.parquet")
    assert found["data"]["rows"]["train"] > 0
    assert "/proc/hubtune/datasets cannot be written" in caplog.text
    assert cache.replacement(Path("/proc/hubtune/datasets")) is not None


@pytest.mark.parametrize("place", [(saving, "save"), (verification, "record_outputs"), (card, "render"), (stages, "write_record"),
                                   (verification, "write_job")], ids=lambda place: place[1])
def test_a_run_that_filled_the_disk_goes_on(
    place: tuple[Any, str], tiny_model: Callable[..., Path], reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stage that writes fails once; the resumed run has the weights of one that was not stopped."""
    settings = {"train.epochs": 1.0, "data.limit": 24}
    whole = hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=settings, out=tmp_path / "whole")

    def fail(*given: Any, **named: Any) -> Any:
        raise FULL

    monkeypatch.setattr(*place, fail)
    with pytest.raises(hubtune.EnvironmentProblem, match="disk is full") as caught:
        hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, set=settings, out=tmp_path / "full")
    assert f"Go on with: hubtune train --resume {tmp_path / 'full'}" in str(caught.value.hint)
    monkeypatch.undo()
    resumed = hubtune.resume(tmp_path / "full")
    assert resumed.metrics == whole.metrics
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "full")]
    assert weights[0] == weights[1]


def test_an_unexpected_error_is_one_block_without_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def search(*given: Any, **named: Any) -> Any:
        raise KeyError("downloads")

    monkeypatch.setattr(hubtune, "search", search, raising=False)
    assert commands.main(["search", "bert"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "KeyError: 'downloads'" in shown
    assert "--debug" in shown
    with pytest.raises(KeyError):
        commands.main(["search", "bert", "--debug"])
