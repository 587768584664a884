"""What arrives is compared with what was sent; main is put back where it is not the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubtune import hub
from hubtune.errors import Corrupt, SealError
from hubtune.testing.hub.routes import commits


@pytest.fixture
def damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub stores other bytes than it is sent, once."""
    decode = commits._decoded
    answers = [b'{"a": 2}', b'{"a": 3}']  # for the sample that comes before the commit, and for the commit

    def decode_wrongly(text: str) -> bytes:
        content = decode(text)
        return answers.pop(0) if content == b'{"a": 2}' and answers else content

    monkeypatch.setattr(commits, "_decoded", decode_wrongly)


def content(repo: str, name: str, revision: str = "main") -> bytes:
    path = HfApi().hf_hub_download(repo, name, revision=revision)
    return Path(path).read_bytes()


def test_a_damaged_commit_is_undone_with_the_files_of_the_commit_before(logged_in: Any, folder: Path, damaged: None) -> None:
    first = hub.push(folder, "me/undone", message="Model")
    (folder / "config.json").write_text('{"a": 2}', encoding="utf-8")
    (folder / "generation_config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(3000))
    with pytest.raises(Corrupt, match=r"config\.json on the Hub is not what was sent, so main was put back") as caught:
        hub.push(folder, "me/undone", message="Model")
    head = HfApi().model_info("me/undone").sha
    assert head != first.commit
    assert str(head) in str(caught.value.hint)
    assert content("me/undone", "config.json") == b'{"a": 1}'
    assert content("me/undone", "model.safetensors") == bytes(2000)
    assert "generation_config.json" not in HfApi().list_repo_files("me/undone")
    hub.push(folder, "me/undone", message="Model")  # the same command again
    assert content("me/undone", "config.json") == b'{"a": 2}'


def test_a_damaged_first_commit_leaves_no_model_behind(logged_in: Any, folder: Path, damaged: None) -> None:
    (folder / "config.json").write_text('{"a": 2}', encoding="utf-8")
    with pytest.raises(Corrupt, match="main was put back"):
        hub.push(folder, "me/undone-first", message="Model")
    assert HfApi().list_repo_files("me/undone-first") == [".gitattributes"]


def test_a_damaged_pull_request_is_closed(logged_in: Any, folder: Path, damaged: None) -> None:
    hub.push(folder, "me/closed", message="First")
    (folder / "config.json").write_text('{"a": 2}', encoding="utf-8")
    with pytest.raises(Corrupt, match="so the pull request was closed"):
        hub.push(folder, "me/closed", message="Second", pr=True)
    (opened,) = HfApi().get_repo_discussions("me/closed")
    assert opened.status == "closed"
    assert content("me/closed", "config.json") == b'{"a": 1}'


def test_a_commit_in_between_is_kept_where_main_cannot_be_put_back(
    logged_in: Any, folder: Path, damaged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubtune.hub import upload

    hub.push(folder, "me/rival", message="Model")
    (folder / "config.json").write_text('{"a": 2}', encoding="utf-8")
    restore = upload.restore_main

    def restore_late(result: Any, message: str) -> str:
        HfApi().upload_file(path_or_fileobj=b"theirs", path_in_repo="notes.txt", repo_id=result.repo)
        return restore(result, message)

    monkeypatch.setattr(upload, "restore_main", restore_late)
    with pytest.raises(Corrupt, match="main could not be put back") as caught:
        hub.push(folder, "me/rival", message="Model")
    assert "Do not use the model" in str(caught.value.hint)
    assert content("me/rival", "notes.txt") == b"theirs"


def test_files_that_an_earlier_model_would_be_loaded_with_are_deleted_and_others_stay(logged_in: Any, folder: Path) -> None:
    stale = ["merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "generation_config.json",
             "spiece.model", "preprocessor_config.json", "adapter_config.json", "modules.json", "1_Pooling/config.json", "vocab.txt"]
    kept = ["notes.txt", "LICENSE", "images/a.png", "onnx/config.json"]
    hub.push(folder, "me/stale", message="First")
    for name in [*stale, *kept]:
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id="me/stale")
    (folder / "config.json").write_text('{"a": 4}', encoding="utf-8")
    hub.push(folder, "me/stale", message="Second")
    assert set(HfApi().list_repo_files("me/stale")) == {
        ".gitattributes", "README.md", "config.json", "model.safetensors", *kept}


def test_bytes_of_another_hash_are_not_sent(logged_in: Any, folder: Path) -> None:
    hashes = dict.fromkeys(("README.md", "config.json", "model.safetensors"), "0" * 64)
    before = len(logged_in.requests)
    with pytest.raises(SealError, match=re.escape("README.md, config.json, model.safetensors changed")):
        hub.push(folder, "me/never-sent", message="Model", hashes=hashes)
    assert not [served for served in logged_in.requests[before:] if served.method == "POST"]
