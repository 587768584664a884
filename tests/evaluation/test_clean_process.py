"""The clean process that is started ahead of its jobs: it ends with its user, and imports what it is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import transformers

from hubtune.evaluation.verification import CleanProcess, modules_of


def test_without_jobs_the_process_ends_by_itself() -> None:
    with CleanProcess() as clean:
        assert clean.process.stdin is not None
        clean.process.stdin.close()  # as the system does when the process that started it is killed
        clean.process.stdin = None
        assert clean.process.wait() == 0


def test_an_error_ends_the_process() -> None:
    clean = CleanProcess()

    def scoring() -> None:
        with clean:
            assert clean.process.poll() is None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scoring()
    assert clean.process.poll() is not None


def test_a_module_that_does_not_import_is_left_to_the_job_that_needs_it(tmp_path: Any) -> None:
    (tmp_path / "jobs.json").write_text("[]", encoding="utf-8")
    with CleanProcess(["no_such_module", "hubtune"]) as clean:
        clean.run(tmp_path / "jobs.json")
        assert clean.process.returncode == 0


def test_modules_are_those_of_the_model_and_of_how_it_loads() -> None:
    base = cast(Any, SimpleNamespace(config=transformers.BertConfig()))
    assert "transformers.models.bert.modeling_bert" in modules_of(base, "transformers")
    assert "peft" in modules_of(base, "peft")
    assert "peft" not in modules_of(base, "transformers")
    foreign = cast(Any, SimpleNamespace(config=SimpleNamespace()))
    assert not any("modeling" in name for name in modules_of(foreign, "code"))
