"""Which number format a training gets, on made-up devices; and plans that do not fit a machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hubtune.devices import device, memory, number_formats
from hubtune.errors import RecipeError


def said(**speeds: float) -> dict[str, dict[str, float]]:
    """GFLOP/s by format, with the errors that these formats have."""
    errors = {"fp32": 4e-7, "onednn": 9e-7, "tf32": 8e-4, "bf16": 3e-3, "fp16": 4e-4}
    return {"fp32 by onednn" if name == "onednn" else name: {"gflops": speed, "error": errors[name]} for name, speed in speeds.items()}


@pytest.mark.parametrize(("found", "precision", "onednn"), [
    (said(fp32=104, onednn=232, bf16=480), "bf16", False),  # two cores of Zen 5
    (said(fp32=104, onednn=232, bf16=300), "fp32", True),  # bf16 has to beat the better of the two
    (said(fp32=76, onednn=76, bf16=0.9), "fp32", False),  # a CPU without bf16
    ({**said(fp32=100, bf16=800), "fp32 by onednn": {"gflops": 800, "error": 3e-3}}, "bf16", False),  # AMX: bf16 in disguise
    (said(fp32=14e3, tf32=14e3, bf16=12e3, fp16=100e3), "fp16", False),  # a GPU before bf16
    (said(fp32=19e3, tf32=130e3, bf16=250e3, fp16=250e3), "bf16", False),
    (said(fp32=19e3, tf32=100e3, bf16=110e3, fp16=110e3), "tf32", False),  # nearly as fast, and more exact
    (said(fp32=4e3, bf16=0.0, fp16=4e3), "fp32", False),
    ({**said(fp32=10), "bf16": {"gflops": 100, "error": float("inf")}}, "fp32", False),  # it fails
    ({**said(fp32=10), "bf16": {"gflops": 100, "error": 0.3}}, "fp32", False),  # it is wrong
])
def test_the_format_is_the_fastest_that_pays_for_what_it_loses(found: Any, precision: str, onednn: bool) -> None:
    chosen = number_formats.chosen("auto", found)
    assert (chosen.precision, chosen.onednn) == (precision, onednn)
    assert chosen.why


def test_what_was_asked_for_is_taken_whatever_is_fast() -> None:
    found = said(fp32=104, onednn=232, bf16=480)
    assert number_formats.chosen("fp32", found) == number_formats.Format("fp32", True, "asked for")
    assert not number_formats.chosen("fp32", found, kernels="plain").onednn
    assert number_formats.chosen("fp64", {}) == number_formats.Format("fp64", False, "asked for")
    assert number_formats.chosen("auto", said(fp32=1e3, fp16=1e6, tf32=1e6), allowed=("bf16",)).precision == "fp32"


def test_families_that_overflow_are_known(tiny_model: Any) -> None:
    import transformers

    t5 = transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny_model("t5"))
    bert = transformers.AutoModel.from_pretrained(tiny_model("bert"))
    assert "keeps wo of this family out of fp16" in str(number_formats.overflows(t5))
    assert number_formats.overflows(bert) is None
    assert number_formats.overflows(SimpleNamespace(config=SimpleNamespace(dtype=torch.bfloat16))) == "it was pretrained in bf16"


def test_this_device_is_measured() -> None:
    found = number_formats.measured("cpu")
    assert set(found) >= {"fp32", "bf16"}
    assert found["fp32"]["gflops"] > 0
    assert found["fp32"]["error"] < number_formats.EXACT < found["bf16"]["error"]


@pytest.mark.parametrize(("precision", "where", "message"), [
    ("fp16", "cpu", "needs a GPU"), ("tf32", "cpu", "tf32 is not known to this device"), ("fp64", "mps", "fp64 is not known"),
])
def test_a_format_that_the_device_has_not_is_refused(precision: str, where: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        device.refuse_unknown(precision, where)
    device.refuse_unknown("fp32", where)


# ----------------------------------------------------------------------------------------------------------- plans

PLAN = device.Compute("cpu", "bf16", 1, 64, 2048, {"fp32": {"gflops": 1.0, "error": 0.0}}, kernels=("dropout",))


def run_with(folder: Path, compute: Any) -> str:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"state": "trained", **({"compute": compute} if compute else {})}), encoding="utf-8")
    return str(folder)


def test_the_plan_of_another_run_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    found = device.plan_of(run_with(tmp_path / "run", PLAN.as_dict()), "auto")
    assert json.loads(json.dumps(found.as_dict())) == json.loads(json.dumps(PLAN.as_dict()))


@pytest.mark.parametrize(("change", "precision", "message"), [
    ({"device": "cuda"}, "auto", "for the device cuda, and this is cpu"), ({}, "fp32", "is for bf16, and train.precision=fp32"),
    ({"kernels": ["attention", "magic"]}, "auto", "kernels that are not here: magic"), ({"threads": 10**6}, "auto", "1000000 threads"),
    ({"precision": "fp16"}, "auto", "needs a GPU"), ({"new": 1}, "auto", "another version of hubtune"),
])
def test_a_plan_that_does_not_fit_is_refused_with_the_reason(
    change: dict[str, Any], precision: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    with pytest.raises(RecipeError, match=message):
        device.plan_of(run_with(tmp_path / "run", {**PLAN.as_dict(), **change}), precision)


def test_a_plan_of_products_that_are_not_exact_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "kind", lambda: "cpu")
    run = run_with(tmp_path / "run", {**PLAN.as_dict(), "precision": "fp32", "onednn": True})
    monkeypatch.setattr(device, "measured", lambda device: said(fp32=100, onednn=200))
    assert device.plan_of(run, "fp32").onednn
    monkeypatch.setattr(device, "measured", lambda device: {"fp32 by onednn": {"gflops": 800.0, "error": 3e-3}})
    with pytest.raises(RecipeError, match="not exact on this machine"):
        device.plan_of(run, "fp32")


def test_what_is_no_run_or_has_no_plan_is_refused(tmp_path: Path) -> None:
    for folder, message in ((str(tmp_path), r"it has no run\.json"), (run_with(tmp_path / "begun", None), "stopped before it had a plan")):
        with pytest.raises(RecipeError, match=message):
            device.plan_of(folder, "auto")


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
    assert sorted(memory.left_in(proc, groups)) == [1_200_000, 5_120_000]


def test_control_groups_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    """Inside a container, the group's path is that of the host: then its top is this container's."""
    proc = files(tmp_path / "proc", {"meminfo": "", "self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n"})
    groups = files(tmp_path / "groups", {
        "memory/memory.limit_in_bytes": "4000000", "memory/memory.usage_in_bytes": "1000000",
        "memory/memory.stat": "total_inactive_file 500\n",
    })
    assert list(memory.left_in(proc, groups)) == [3_000_500]
    files(groups, {"memory/memory.limit_in_bytes": "9223372036854771712"})
    assert list(memory.left_in(proc, groups)) == []


def test_what_is_held_is_seen_and_the_most_is_not_forgotten() -> None:
    assert memory.room("cpu")
    before = memory.peak("cpu")
    memory.begin("cpu")
    held = memory.held("cpu")
    assert held
    block = torch.ones(20_000_000)
    assert memory.since("cpu") - held > 70e6
    del block
    assert memory.peak("cpu") >= before
