"""Large files of the Hub on loopback by Xet, seen by the real client."""

from __future__ import annotations

import importlib
import random
import struct
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from packaging.version import Version

from hubtune.hub.errors import http_error
from hubtune.testing.hub import LoopbackHub
from hubtune.testing.hub.refusals import Unacceptable
from hubtune.testing.hub.storage import xet

pytestmark = pytest.mark.skipif(
    Version(version("huggingface_hub")) < Version("2"), reason="clients before 2.0 speak an earlier version of the protocol")

httplib = importlib.import_module(http_error().__module__.partition(".")[0])  # the HTTP library of this client

RNG = random.Random(0)
CONTENTS = {
    "noise": RNG.randbytes(300_000), "numbers": b"".join(struct.pack("<f", RNG.gauss(0, 1)) for _ in range(90_001)) + b"xyz",
    "the same again and again": b"hello world " * 40_000, "short": b"a",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(xet=True) as hub:
        yield hub


@pytest.fixture(autouse=True)
def xet_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


def send(api: HfApi, repo: str, content: bytes, folder: Path) -> str:
    path = folder / "w.safetensors"
    path.write_bytes(content)
    api.create_repo(repo, exist_ok=True)
    return api.upload_file(path_or_fileobj=path, path_in_repo="w.safetensors", repo_id=repo).oid


@pytest.mark.parametrize("by_xet", [True, False], ids=["xet", "lfs"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_sent_by_xet_comes_back(
    kind: str, by_xet: bool, hub: LoopbackHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, before = f"tester/{kind.replace(' ', '-')}-{by_xet}", len(hub.requests)
    commit = send(api, repo, CONTENTS[kind], tmp_path)
    assert not [one for one in hub.requests[before:] if "/info/lfs/" in one.path]
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not by_xet)
    before = len(hub.requests)
    path = api.hf_hub_download(repo, "w.safetensors", revision=commit, cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == CONTENTS[kind]
    assert by_xet == any("/reconstructions/" in one.path for one in hub.requests[before:])
    assert not api.verify_repo_checksums(repo, revision=commit, cache_dir=tmp_path / "cache").mismatches


def test_content_that_another_repository_has_may_be_sent_again(api: HfApi, tmp_path: Path) -> None:
    content = RNG.randbytes(200_000)
    for repo in ("tester/one", "tester/two", "tester/two"):
        commit = send(api, repo, content, tmp_path)
        path = api.hf_hub_download(repo, "w.safetensors", revision=commit, cache_dir=tmp_path / repo)
        assert Path(path).read_bytes() == content


def test_parts_that_are_moved_and_repeated_come_back(api: HfApi, tmp_path: Path) -> None:
    """Their chunks are in xorbs of earlier files, some of them several times."""
    first, second = RNG.randbytes(400_000), RNG.randbytes(400_000)
    for number, content in enumerate([first, second, second + first + second, first[200_000:] + second]):
        commit = send(api, "tester/moved", content, tmp_path)
        path = api.hf_hub_download("tester/moved", "w.safetensors", revision=commit, cache_dir=tmp_path / str(number))
        assert Path(path).read_bytes() == content


def test_the_storage_is_closed_without_its_own_token(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    send(api, "tester/closed", b"a" * 5000, tmp_path)
    hub.add_model("tester/private", {"a.txt": b"a"}, private=True)
    assert httplib.get(f"{hub.endpoint}/api/models/tester/private/xet-read-token/main").status_code == 401
    for token in ("none", hub.token, "xet-write-guessed"):
        answer = httplib.post(f"{hub.endpoint}/v1/shards", content=b"", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 403


def test_what_is_malformed_is_refused() -> None:
    with pytest.raises(Unacceptable, match="ends within a chunk"):
        xet.chunks(b"\0\xff\0\0\0\xff\0\0abc")
    with pytest.raises(Unacceptable, match="scheme 9"):
        xet.unpacked(b"\0\1\0\0\x09\1\0\0a")
    with pytest.raises(Unacceptable, match="ends within its files"):
        list(xet.files(bytes(48)))
