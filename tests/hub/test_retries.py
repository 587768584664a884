"""Requests to the Hub that fail for a passing reason: repeated, with what landed looked for; nothing is sent twice."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubtune import hub
from hubtune.errors import Corrupt, HubError, Offline
from hubtune.hub import retries
from hubtune.hub.download import resolve_from_cache

PUBLISH = {
    "whoami": ("GET", r"/whoami-v2$"), "access": ("GET", r"/auth-check"), "create": ("POST", r"/repos/create$"),
    "info": ("GET", r"/api/models/me/[\w-]+(/revision/[^/]+)?$"), "card": ("POST", r"/validate-yaml$"),
    "preupload": ("POST", r"/preupload/"), "commit": ("POST", r"/commit/"), "discussions": ("GET", r"/discussions$"),
}
"""Requests of a publication by method and path."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would be waited; nothing is."""
    found: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", found.append)
    return found


@pytest.fixture
def healed(logged_in: Any) -> Iterator[Any]:
    """The Hub, without a fault that no request met afterwards."""
    yield logged_in
    logged_in.heal()


def titles(repo: str, revision: str = "main") -> list[str]:
    return [commit.title for commit in HfApi().list_repo_commits(repo, revision=revision)]


@pytest.mark.parametrize("status", [503, 429, None])
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
@pytest.mark.parametrize("request_name", [name for name in PUBLISH if name != "discussions"])
def test_a_publication_survives_a_passing_failure_of_any_request_with_one_commit(
    request_name: str, lost: bool, status: int | None, healed: Any, folder: Path, waits: list[float]
) -> None:
    repo = f"me/retry-{request_name}-{status}-{lost}".lower()
    healed.fail_next(*PUBLISH[request_name], status=status, after=lost, headers={"Retry-After": "3"})
    done = hub.push(folder, repo, message="Model")
    assert titles(repo).count("Model") == 1
    assert HfApi().model_info(repo).sha == done.commit


@pytest.mark.parametrize("status", [503, None])
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
@pytest.mark.parametrize("request_name", [name for name in PUBLISH if name != "create"])
def test_a_pull_request_survives_a_passing_failure_of_any_request_and_is_opened_once(
    request_name: str, lost: bool, status: int | None, healed: Any, folder: Path, waits: list[float]
) -> None:
    repo = f"me/pr-{request_name}-{status}-{lost}".lower()
    HfApi().create_repo(repo)
    healed.fail_next(*PUBLISH[request_name], status=status, after=lost)
    done = hub.push(folder, repo, message="Model", pr=True)
    threads = list(HfApi().get_repo_discussions(repo))
    assert [(thread.title, thread.url) for thread in threads] == [("Model", done.pr)]
    assert titles(repo, "refs/pr/1").count("Model") == 1
    assert "Model" not in titles(repo)


def test_a_repeated_pull_request_updates_the_open_one(logged_in: Any, folder: Path) -> None:
    HfApi().create_repo("me/pr-twice")
    first = hub.push(folder, "me/pr-twice", message="Model", pr=True)
    same = hub.push(folder, "me/pr-twice", message="Model", pr=True)
    assert (same.pr, same.commit) == (first.pr, first.commit)
    (folder / "config.json").write_text('{"changed": 1}', encoding="utf-8")
    changed = hub.push(folder, "me/pr-twice", message="Model", pr=True)
    assert changed.pr == first.pr
    assert changed.commit != first.commit
    assert changed.parent == first.commit
    assert len(list(HfApi().get_repo_discussions("me/pr-twice"))) == 1


def test_retry_after_is_honoured_and_every_wait_is_logged(
    healed: Any, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    healed.fail_next(*PUBLISH["whoami"], status=429, headers={"Retry-After": "7"})
    with caplog.at_level(logging.WARNING, "hubtune"):
        assert hub.check_push("anything") == "me/anything"
    assert waits == [7.0]
    assert "the Hub answered 429; trying again in 7 s (attempt 2 of 6)" in caplog.text


def test_attempts_and_requested_waits_have_a_limit(healed: Any, waits: list[float]) -> None:
    healed.fail_next(*PUBLISH["whoami"], status=503, times=None)
    with pytest.raises(HubError, match="the Hub answered 503"):
        hub.check_push("anything")
    assert len(waits) == len(retries.WAITS)
    healed.heal()
    healed.fail_next(*PUBLISH["whoami"], status=429, headers={"Retry-After": str(int(retries.PATIENCE) + 1)})
    waits.clear()
    with pytest.raises(HubError, match="the Hub answered 429"):
        hub.check_push("anything")
    assert waits == []


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"Retry-After": "4"}, 4.0), ({"Retry-After": "soon"}, None), ({}, None),
    ({"RateLimit": '"api";r=0;t=55'}, 55.0), ({"Retry-After": formatdate(time.time() - 60, usegmt=True)}, 0.0),
])
def test_waits_are_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    error: Any = OSError()
    error.response = SimpleNamespace(status_code=429, headers=headers)
    assert retries.requested_wait(error) == seconds


def test_waits_leave_the_callers_random_state(healed: Any, waits: list[float]) -> None:
    healed.fail_next(*PUBLISH["whoami"], status=503)
    before = random.getstate()
    hub.check_push("anything")
    assert waits
    assert random.getstate() == before


def test_a_refusal_is_not_repeated(healed: Any, folder: Path, waits: list[float]) -> None:
    healed.fail_next(*PUBLISH["commit"], status=403)
    with pytest.raises(HubError):
        hub.push(folder, "me/refused", message="Model")
    assert waits == []


def test_a_failure_after_the_commit_says_that_it_has_landed(healed: Any, folder: Path, waits: list[float]) -> None:
    healed.fail_next("GET", r"/revision/[0-9a-f]{40}", status=503, times=None)
    with pytest.raises(HubError) as caught:
        hub.push(folder, "me/landed", message="Model")
    commit = HfApi().list_repo_commits("me/landed")[0]
    assert commit.title == "Model"
    assert f"The commit has landed: {HfApi().endpoint}/me/landed/commit/{commit.commit_id}" in str(caught.value.hint)


def test_a_rival_commit_is_kept_and_not_taken_for_ours(healed: Any, folder: Path, waits: list[float]) -> None:
    hub.push(folder, "me/rival", message="First")
    (folder / "config.json").write_text('{"second": 1}', encoding="utf-8")
    send = HfApi.create_commit

    def late(api: HfApi, *given: Any, **named: Any) -> Any:
        if named["commit_message"] == "Second":
            HfApi().upload_file(
                path_or_fileobj=b"x", path_in_repo="other.txt", repo_id="me/rival", commit_message="Rival")
        return send(api, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfApi, "create_commit", late)
        with pytest.raises(HubError, match="changed by a concurrent commit"):
            hub.push(folder, "me/rival", message="Second")
    assert titles("me/rival")[:2] == ["Rival", "First"]


@pytest.mark.parametrize("status", [503, None])
def test_a_download_survives_a_passing_failure(
    status: int | None, healed: Any, folder: Path, waits: list[float]
) -> None:
    repo = f"me/down-{status}".lower()
    commit = hub.push(folder, repo, message="Model").commit
    healed.fail_next("GET", r"/resolve/.*model\.safetensors$", status=status)
    place = hub.download(hub.resolve(repo, commit), ["*.safetensors"])
    assert (place / "model.safetensors").read_bytes() == bytes(2000)


def test_a_damaged_file_of_the_cache_is_refused_offline(logged_in: Any, folder: Path) -> None:
    commit = hub.push(folder, "me/flipped", message="Model").commit
    place = hub.download(hub.resolve("me/flipped"), ["*"])
    (place / "model.safetensors").resolve().write_bytes(b"\x01" + bytes(1999))
    pinned = resolve_from_cache("me/flipped", None, "model")
    assert pinned.commit == commit
    with pytest.raises(Corrupt, match=r"model\.safetensors in the cache differs") as caught:
        hub.download(pinned, ["*"])
    assert "hf download me/flipped" in str(caught.value.hint)


UNREACHABLE = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from hubtune import hub
from hubtune.hub import retries
from hubtune.hub.download import resolve_from_cache
retries.time.sleep = lambda seconds: None
print(hub.resolve(sys.argv[1]).commit)
"""


def test_without_a_connection_a_cached_model_is_used_and_it_is_said(
    logged_in: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.push(folder, "me/cached", message="Model").commit
    hub.download(hub.resolve("me/cached"), ["*"])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    done = subprocess.run([sys.executable, "-c", UNREACHABLE, "me/cached"], capture_output=True, text=True)
    assert done.stdout.strip() == commit, done.stderr
    assert f"the cached commit {commit} is used" in done.stderr
    unknown = subprocess.run([sys.executable, "-c", UNREACHABLE, "me/never-seen"], capture_output=True, text=True)
    assert Offline.__name__ in unknown.stderr
    assert "cannot be reached" in unknown.stderr
