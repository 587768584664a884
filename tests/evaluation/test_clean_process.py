"""The clean process that is started ahead of its jobs: it ends with its user, and imports what it is told."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import transformers

from hubtune.devices.clean_python import CleanPython
from hubtune.evaluation import clean_process, user_calls, verification
from hubtune.evaluation.verification import SCRIPT, SavedModel, Verification, modules_of


def started(modules: Sequence[str] = ()) -> CleanPython:
    clean = CleanPython(SCRIPT)
    clean.start(modules)
    return clean


def test_without_jobs_the_process_ends_by_itself() -> None:
    with started() as clean:
        assert clean.process is not None
        assert clean.process.stdin is not None
        clean.process.stdin.close()  # as the system does when the process that started it is killed
        clean.process.stdin = None
        assert clean.process.wait() == 0


def test_an_error_ends_the_process() -> None:
    clean = started()
    process = clean.process
    assert process is not None

    def scoring() -> None:
        with clean:
            assert process.poll() is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scoring()
    assert process.poll() is not None


def test_a_module_that_does_not_import_is_left_to_the_job_that_needs_it(tmp_path: Any) -> None:
    (tmp_path / "jobs.json").write_text("[]", encoding="utf-8")
    with started(["no_such_module", "hubtune"]) as clean:
        clean.send(tmp_path / "jobs.json")
        clean.wait()
        assert clean.process is not None
        assert clean.process.returncode == 0


def test_a_process_that_waited_too_long_is_replaced(tmp_path: Path) -> None:
    """Of a long training, the process does not hold memory; another one gets its jobs."""
    script, jobs = tmp_path / "script.py", tmp_path / "jobs"
    script.write_text("import pathlib, sys\npathlib.Path(sys.stdin.readline().rstrip()).write_text(sys.argv[1])", encoding="utf-8")
    for after_sending in (False, True):
        jobs.unlink(missing_ok=True)
        with CleanPython(script) as clean:
            clean.start(["module"])
            first = clean.process
            assert first is not None
            if after_sending:  # it ends while the path is on its way
                first.send_signal(signal.SIGSTOP)
                clean.send(jobs)
                first.send_signal(signal.SIGALRM)
                first.send_signal(signal.SIGCONT)
            else:
                first.send_signal(signal.SIGALRM)
                first.wait()
                clean.send(jobs)
            clean.wait()
            assert clean.process is not first
        assert jobs.read_text(encoding="utf-8") == "module"


def test_the_process_waits_a_minute_and_then_ends_as_its_user_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(signal, "alarm", set_to.append)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(readline=lambda: ""))
    clean_process.main([])
    assert set_to == [60]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL  # which ends it with the status that CleanPython knows


@pytest.mark.parametrize(("cores", "free", "starts"), [(1, 2**40, False), (2, 2**31, False), (2, 2**33, True)])
def test_it_is_started_early_where_a_core_is_idle_and_memory_is_plenty(
    cores: int, free: int, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubtune.devices.processor.cores", lambda: cores)
    monkeypatch.setattr("hubtune.devices.memory.free_bytes", lambda *places: iter([free]))
    with CleanPython(SCRIPT) as clean:
        clean.start_early(["json"])
        assert (clean.process is not None) is starts
        early = clean.process
        clean.start(["json"])
        assert not starts or clean.process is early


def test_modules_are_those_of_the_model_and_of_how_it_loads() -> None:
    base = cast(Any, SimpleNamespace(config=transformers.BertConfig()))
    assert "transformers.models.bert.modeling_bert" in modules_of(base, "transformers")
    assert "peft" in modules_of(base, "peft")
    assert "peft" not in modules_of(base, "transformers")
    foreign = cast(Any, SimpleNamespace(config=SimpleNamespace()))
    assert not any("modeling" in name for name in modules_of(foreign, "code"))


def test_modules_that_are_imported_early_are_there() -> None:
    import importlib

    for name in clean_process.IMPORTED_EARLY:
        importlib.import_module(name)


@pytest.mark.parametrize("shares_threads", [False, True])
def test_processes_that_compute_at_once_share_the_threads(shares_threads: bool, tmp_path: Path) -> None:
    """Four threads on two cores wait for each other."""
    saved = SavedModel(tmp_path, "AutoModel", "transformers", None)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with Verification([saved], shares_threads=shares_threads) as running:
            found = torch.get_num_threads(), running.jobs[0]["threads"]
            assert found == ((2, 2) if shares_threads else (4, 4))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def recorded(folder: Path, *answers: Any) -> None:
    calls = [{"way": "pipeline", "inputs": f"text {n}", "options": {}, "answer": one} for n, one in enumerate(answers)]
    user_calls.write_calls(folder, {"meaning": {}, "calls": calls})


def compared(folder: Path, answers: list[Any], errors: list[str | None]) -> tuple[dict[str, Any], str | None]:
    return user_calls.compare_answers(folder, {"meaning": {}, "answers": answers, "errors": errors})


def test_a_row_that_only_the_saved_model_cannot_answer_is_named(tmp_path: Path) -> None:
    recorded(tmp_path, {"error": 0.5}, {"error": 0.7})
    _, problem = compared(tmp_path, [{"error": 0.5}, None], [None, "ValueError: no such token"])
    assert problem == "it does not answer row 2 of 2: ValueError: no such token"


def test_a_row_that_the_trained_model_could_not_answer_is_not_compared(tmp_path: Path) -> None:
    recorded(tmp_path, None, {"a": 0.5}, None)
    found, problem = compared(tmp_path, [None, {"a": 0.5}, {"a": 0.1}], ["ValueError: too long", None, None])
    assert (found["rows"], problem) == (1, None)


def test_answers_are_added_while_the_clean_process_reads_the_calls(tmp_path: Path) -> None:
    """A reader finds the one file or the other, never a part."""
    recorded(tmp_path, None)
    with (tmp_path / "calls.json").open(encoding="utf-8") as reader:
        recorded(tmp_path, {"a": 0.5})
        assert json.load(reader)["calls"][0]["answer"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["calls.json"]


def test_large_outputs_are_compared_at_some_tokens_counted_from_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_process, "MOST_VALUES", 100)
    logits = torch.arange(2 * 20 * 5).reshape(2, 20, 5)
    found = clean_process.thinned(logits)
    assert found[0, :, 0].tolist() == [5 * place for place in (3, 11, 15, 17, 18, 19)]
    longer = torch.cat([torch.zeros(2, 14, 5, dtype=logits.dtype), logits], 1)  # tokens that prompt tuning adds
    assert clean_process.thinned(longer)[:, -found.shape[1]:].equal(found)
    assert clean_process.thinned(logits[:, :10]).equal(logits[:, :10])
    assert clean_process.thinned(logits.flatten(1)).shape == (2, 100)


def test_a_verification_that_cannot_begin_leaves_threads_and_folder_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def fail(saved: Any, folder: Path, number: int) -> Any:
        folders.append(folder)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verification, "write_job", fail)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with pytest.raises(OSError, match="No space left"):
            verification.Verification([cast(Any, None)], shares_threads=True)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert not folders[0].exists()
