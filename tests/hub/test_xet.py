"""Large files by Xet, as the Hub itself has it: what passes is ridden out, what does not is one error with the next command."""

from __future__ import annotations

import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants
from packaging.version import Version

from hubtune import hub
from hubtune.errors import HubError
from hubtune.hub import retries

pytestmark = pytest.mark.skipif(
    Version(version("huggingface_hub")) < Version("2"), reason="clients before 2.0 speak an earlier version of the protocol")

TOKEN, XORB, SHARD = ("GET", "/xet-write-token/"), ("POST", "/v1/xorbs/"), ("POST", "/v[12]/shards$")
PLAN, RANGE = ("GET", "/reconstructions/"), ("GET", "/xet/xorbs/")


@pytest.fixture
def xet(logged_in: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Hub with Xet, and a folder whose weights it does not have yet."""
    monkeypatch.setattr(logged_in, "xet", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    (folder / "model.safetensors").write_bytes(random.Random().randbytes(100_000))
    yield logged_in
    logged_in.heal()


@pytest.mark.parametrize("status", [503, 429, None])
@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer-lost"])
@pytest.mark.parametrize("request_name", ["token", "xorb", "shard"])
def test_an_upload_survives_a_passing_failure_with_one_commit(
    request_name: str, lost: bool, status: int | None, xet: Any, folder: Path
) -> None:
    repo = f"me/xet-{request_name}-{status}-{lost}".lower()
    xet.fail_next(*{"token": TOKEN, "xorb": XORB, "shard": SHARD}[request_name], status=status, after=lost)
    done = hub.push(folder, repo, message="Model")
    assert [commit.title for commit in HfApi().list_repo_commits(repo)].count("Model") == 1
    assert HfApi().model_info(repo).sha == done.commit


@pytest.mark.parametrize("times", [1, 7], ids=["once", "longer-than-the-client-waits"])
@pytest.mark.parametrize("status", [503, None])
@pytest.mark.parametrize("request_name", ["plan", "range"])
def test_a_download_survives_a_passing_failure(
    request_name: str, status: int | None, times: int, xet: Any, folder: Path
) -> None:
    """The Xet client raises RuntimeError for whatever ends a download."""
    repo = f"me/xet-down-{request_name}-{status}-{times}".lower()
    commit = hub.push(folder, repo, message="Model").commit
    xet.fail_next(*{"plan": PLAN, "range": RANGE}[request_name], status=status, times=times)
    place = hub.download(hub.resolve(repo, commit), ["*"])
    assert (place / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_damaged_bytes_are_fetched_again(xet: Any, folder: Path) -> None:
    commit = hub.push(folder, "me/xet-flipped", message="Model").commit
    xet.corrupt_next(RANGE[1], times=1)
    place = hub.download(hub.resolve("me/xet-flipped", commit), ["*"])
    assert (place / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("status", "message"), [
    (503, "answered 503"), (403, "answered 403"), (None, "cannot be reached"), ("damaged", "a transfer from the Xet storage of the Hub failed: "),
])
def test_a_download_that_fails_for_good_is_one_error_that_says_how_to_go_without(
    status: int | str | None, message: str, xet: Any, folder: Path
) -> None:
    repo = f"me/xet-gone-{status}".lower()
    pinned = hub.resolve(repo, hub.push(folder, repo, message="Model").commit)
    if status == "damaged":
        xet.corrupt_next(RANGE[1], times=None)
    else:
        xet.fail_next(*RANGE, status=status, times=None)
    with pytest.raises(HubError, match=message) as caught:
        hub.download(pinned, ["*"])
    assert "HF_HUB_DISABLE_XET=1 hubtune" in str(caught.value.hint)
    xet.heal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        assert (hub.download(pinned, ["*"]) / "model.safetensors").stat().st_size == 100_000


def test_an_upload_that_is_refused_is_not_repeated(xet: Any, folder: Path) -> None:
    xet.fail_next(*XORB, status=403, times=None)
    before = len(xet.requests)
    with pytest.raises(HubError, match=r"the Xet storage of the Hub \(http://127.0.0.1:\d+\) answered 403"):
        hub.push(folder, "me/xet-refused", message="Model")
    assert sum(one.path.startswith("/v1/xorbs/") for one in xet.requests[before:]) == 1
    assert [commit.title for commit in HfApi().list_repo_commits("me/xet-refused")] == ["initial commit"]
