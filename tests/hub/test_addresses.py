"""Addresses of the Hub as people copy them from a browser, as repository ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from hubtune import hub
from hubtune.api import make_recipe
from hubtune.errors import ModelError, NotFound
from hubtune.hub.errors import Kind
from hubtune.hub.origin import locate


@pytest.mark.parametrize("site", ["https://huggingface.co/", "http://hf.co/", "hf://", "huggingface.co/",
                                  pytest.param(f"{constants.ENDPOINT}/", id="HF_ENDPOINT")])  # its port changes
@pytest.mark.parametrize(("path", "kind", "found"), [
    ("org/name", "model", "org/name"), ("org/name/", "model", "org/name"), ("models/org/name", "model", "org/name"),
    ("org/name/tree/v1.0", "model", "org/name@v1.0"), ("org/name/tree/refs%2Fpr%2F1", "model", "org/name@refs/pr/1"),
    ("org/name/blob/main/config.json", "model", "org/name@main"), ("datasets/org/name", "dataset", "org/name"),
    ("datasets/org/name/tree/dev", "dataset", "org/name@dev"),
])
def test_addresses_name_their_repository(site: str, path: str, kind: Kind, found: str) -> None:
    assert hub.repository_id(site + path, kind) == found


@pytest.mark.parametrize("text", ["org/name", "org/name@main", "name", "./folder", "data.csv", "org/name:config", "/a/b", "C:\\data"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert hub.repository_id(text) == text


def test_a_query_and_a_revision_after_at_are_understood() -> None:
    assert hub.repository_id("https://huggingface.co/org/name?library=transformers#usage") == "org/name"
    assert hub.repository_id("hf://datasets/org/name@abc", "dataset") == "org/name@abc"


@pytest.mark.parametrize(("text", "kind", "says"), [
    ("https://example.com/org/name", "model", "address of example.com, not of the Hub"),
    ("https://huggingface.co/datasets/org/name", "model", "address of a dataset, not of a model"),
    ("https://huggingface.co/org/name", "dataset", "address of a model, not of a dataset"),
    ("https://huggingface.co/spaces/org/name", "model", "address of a space, not of a model"),
    ("https://huggingface.co/org/name/tree/main/onnx", "model", "'onnx' inside the repository"),
    ("https://huggingface.co/datasets/org/name/blob/main/data.csv", "dataset", "'data.csv' inside the repository"),
    ("https://huggingface.co/", "model", "no repository"),
])
def test_what_is_no_whole_repository_of_the_kind_is_refused(text: str, kind: Kind, says: str) -> None:
    with pytest.raises(NotFound, match=says) as caught:
        hub.repository_id(text, kind)
    assert caught.value.hint


def test_a_run_is_named_after_the_model_of_an_address() -> None:
    made, _ = make_recipe("sentiment", "https://huggingface.co/org/name/tree/main", "data.csv", None, (), None, False, False, False, None)
    assert made.model == "org/name@main"


def test_a_weights_file_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file") as caught:
        locate(str(tmp_path / "model.safetensors"))
    assert caught.value.hint == f"Give the folder: --model {tmp_path}"


def test_a_link_to_a_folder_names_the_model_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "link").symlink_to(folder)
    assert locate(str(tmp_path / "link")) == locate(str(folder))
    assert "config.json" in locate(str(tmp_path / "link")).files
