"""Which number format a training gets, on made-up devices; and plans that do not fit a machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hubtune.devices import device, memory, number_formats, processor
from hubtune.errors import RecipeError
from hubtune.models import compat


def processor_of(monkeypatch: pytest.MonkeyPatch, vendor: str, *flags: str) -> None:
    """Have this machine be another one."""
    monkeypatch.setattr(processor, "cpu_description", lambda: (vendor, frozenset(flags)))


@pytest.mark.parametrize(("vendor", "flags", "precision", "onednn", "by"), [
    ("AuthenticAMD", ("avx512f", "avx512_bf16"), "bf16", True, "avx512_bf16"),  # Zen 5: bf16 480 GFLOP/s, fp32 104, by oneDNN 232
    ("AuthenticAMD", ("avx512f",), "fp32", True, "no instructions"),
    ("AuthenticAMD", ("avx2",), "fp32", False, "no instructions"),
    ("GenuineIntel", ("avx512f",), "fp32", False, "no instructions"),
    ("GenuineIntel", ("avx512f", "avx512_bf16", "amx_tile", "amx_bf16"), "bf16", False, "amx_bf16"),  # oneDNN's fp32 is bf16 in disguise
    ("", (), "fp32", False, "no instructions"),
])
def test_the_format_follows_from_the_processor(
    vendor: str, flags: tuple[str, ...], precision: str, onednn: bool, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor_of(monkeypatch, vendor, *flags)
    monkeypatch.setattr(number_formats, "is_exact_by_onednn", lambda: True)
    chosen = number_formats.choose("auto", "cpu")
    assert (chosen.precision, by in chosen.why) == (precision, True)
    assert number_formats.choose("fp32", "cpu") == number_formats.Format("fp32", onednn, "requested")
    assert not number_formats.choose("fp32", "cpu", kernels="plain").onednn
    monkeypatch.setattr(number_formats, "is_exact_by_onednn", lambda: False)
    assert not number_formats.choose("fp32", "cpu").onednn


@pytest.mark.parametrize(("capability", "allowed", "precision"), [
    ((9, 0), ("bf16", "fp16"), "bf16"), ((8, 0), ("fp16",), "fp32"), ((7, 5), ("bf16", "fp16"), "fp16"), ((6, 1), ("bf16", "fp16"), "fp32"),
])
def test_the_format_follows_from_the_gpu(
    capability: tuple[int, int], allowed: tuple[str, ...], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert number_formats.choose("auto", "cuda", allowed=allowed).precision == precision
    assert number_formats.choose("tf32", "cuda") == number_formats.Format("tf32", False, "requested")


def test_the_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f\n\nprocessor\t: 1\nflags\t\t: sse\n", encoding="ascii")
    assert processor.cpu_description(str(tmp_path / "cpuinfo")) == ("GenuineIntel", {"fpu", "avx512f"})
    assert processor.cpu_description(str(tmp_path / "missing")) == ("", frozenset())


def test_threads_are_the_cores_that_siblings_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(Path, "read_text", lambda *given, **named: "max 100000")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert processor.threads() == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert processor.threads() == 2
    monkeypatch.setattr(Path, "read_text", lambda *given, **named: "300000 100000")
    assert processor.threads() == 1


def test_products_by_onednn_are_fp32_where_the_rule_takes_them() -> None:
    if not processor.is_faster_by_onednn():
        pytest.skip("this processor keeps MKL")
    assert number_formats.is_exact_by_onednn()


def test_families_that_overflow_are_known(tiny_model: Any) -> None:
    import transformers

    t5 = transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny_model("t5"))
    bert = transformers.AutoModel.from_pretrained(tiny_model("bert"))
    assert "keeps wo of this family out of fp16" in str(compat.fp16_overflow_reason(t5))
    assert compat.fp16_overflow_reason(bert) is None
    assert compat.fp16_overflow_reason(SimpleNamespace(config=SimpleNamespace(dtype=torch.bfloat16))) == "it was pretrained in bf16"


@pytest.mark.parametrize(("precision", "where", "message"), [
    ("fp16", "cpu", "needs a GPU"), ("tf32", "cpu", "does not support tf32"), ("fp64", "mps", "does not support fp64"),
])
def test_unsupported_formats_are_refused(precision: str, where: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        device.refuse_unknown(precision, where)
    device.refuse_unknown("fp32", where)


# ----------------------------------------------------------------------------------------------------------- plans

PLAN = device.Compute("cpu", "bf16", 1, 64, 2048, kernels=("attention",))


def run_with(folder: Path, compute: Any) -> str:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"state": "trained", **({"compute": compute} if compute else {})}), encoding="utf-8")
    return str(folder)


def test_the_plan_of_another_run_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    found = device.load_plan(run_with(tmp_path / "run", PLAN.as_dict()), "auto")
    assert json.loads(json.dumps(found.as_dict())) == json.loads(json.dumps(PLAN.as_dict()))


@pytest.mark.parametrize(("change", "precision", "message"), [
    ({"device": "cuda"}, "auto", "its device is cuda, but this machine has cpu"), ({}, "fp32", "its precision is bf16, but train.precision=fp32"),
    ({"kernels": ["attention", "magic"]}, "auto", "kernels that this device lacks: magic"), ({"threads": 10**6}, "auto", "1000000 threads"),
    ({"precision": "fp16"}, "auto", "needs a GPU"), ({"new": 1}, "auto", "another version of hubtune"),
])
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(
    change: dict[str, Any], precision: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    with pytest.raises(RecipeError, match=message):
        device.load_plan(run_with(tmp_path / "run", {**PLAN.as_dict(), **change}), precision)


def test_a_plan_of_products_that_are_not_exact_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    run = run_with(tmp_path / "run", {**PLAN.as_dict(), "precision": "fp32", "onednn": True})
    monkeypatch.setattr(number_formats, "is_exact_by_onednn", lambda: True)
    assert device.load_plan(run, "fp32").onednn
    monkeypatch.setattr(number_formats, "is_exact_by_onednn", lambda: False)
    with pytest.raises(RecipeError, match="not exact on this machine"):
        device.load_plan(run, "fp32")


def test_plans_of_missing_or_unfinished_runs_are_refused(tmp_path: Path) -> None:
    for folder, message in ((str(tmp_path), r"it has no run\.json"), (run_with(tmp_path / "begun", None), "stopped before its settings were chosen")):
        with pytest.raises(RecipeError, match=message):
            device.load_plan(folder, "auto")


# ---------------------------------------------------------------------------------------------------------- memory


def files(folder: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
    return folder


def test_the_least_of_machine_and_control_groups_is_what_is_left(tmp_path: Path) -> None:
    proc = files(tmp_path / "proc", {"meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n", "self/cgroup": "0::/a/b\n"})
    groups = files(tmp_path / "groups", {
        "a/memory.max": "4000000\n", "a/memory.current": "3000000\n", "a/memory.stat": "anon 5\ninactive_file 200000\n",
        "a/b/memory.max": "max\n", "a/b/memory.current": "1\n", "a/b/memory.stat": "",
    })
    assert sorted(memory.free_bytes(proc, groups)) == [1_200_000, 5_120_000]


def test_control_groups_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    """Inside a container, the group's path is that of the host: then its top is this container's."""
    proc = files(tmp_path / "proc", {"meminfo": "", "self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n"})
    groups = files(tmp_path / "groups", {
        "memory/memory.limit_in_bytes": "4000000", "memory/memory.usage_in_bytes": "1000000",
        "memory/memory.stat": "total_inactive_file 500\n",
    })
    assert list(memory.free_bytes(proc, groups)) == [3_000_500]
    files(groups, {"memory/memory.limit_in_bytes": "9223372036854771712"})
    assert list(memory.free_bytes(proc, groups)) == []


def test_what_is_held_is_seen_and_the_most_is_not_forgotten() -> None:
    assert memory.available_bytes("cpu")
    before = memory.peak("cpu")
    memory.reset_peak("cpu")
    held = memory.current_bytes("cpu")
    assert held
    block = torch.ones(20_000_000)
    assert memory.peak_since_reset("cpu") - held > 70e6
    del block
    assert memory.peak("cpu") >= before
