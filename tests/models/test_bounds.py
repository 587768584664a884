"""Files of a model that ask for too much, or are none: one error with the file's name, within seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.devices import memory
from hubtune.errors import HubtuneError, ModelError
from hubtune.models import bounds

ROWS = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]


def check(folder: Path) -> dict[str, Any]:
    return hubtune.check("text-classification", model=folder, data=ROWS, out=folder.parent / "run")


def copy(folder: Path, target: Path, **config: Any) -> Path:
    shutil.copytree(folder, target)
    path = target / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **config}), encoding="utf-8")
    return target


@pytest.mark.parametrize(("config", "says"), [
    ({"num_hidden_layers": 10_000_000}, "'num_hidden_layers' asks for 10,000,000 parts; 10,000 are the most"),
    ({"num_labels": 2**31}, "'num_labels' asks for 2,147,483,648 labels"),
    ({"max_position_embeddings": 2**40}, "'max_position_embeddings' asks for"),
    ({"vision_config": {"encoder_layers": 10**9}}, "'vision_config.encoder_layers' asks for"),
    ({"depths": [3, 10**8]}, "'depths' asks for 100,000,000 parts"),
    ({"anything": list(range(200_000))}, "'anything' asks for 200,000 entries"),
    ({"hidden_size": 2**20, "intermediate_size": 2**30}, "by config.json it has at least"),
    ({"vocab_size": 2**50}, "by config.json it has at least"),
    ({"hidden_size": -32}, "its architecture cannot be built"),
    ({"hidden_size": "wide"}, "transformers cannot read its config.json"),
    ({"num_attention_heads": 0}, ""),
    ({"id2label": [1, 2]}, ""),
    ({"architectures": 5}, "'architectures' must be a list of names"),
    ({"model_type": "no-such-type"}, "transformers cannot read its config.json"),
    ({"model_type": ["bert"]}, "transformers cannot read its config.json"),
    ({"auto_map": 7}, ""),
])
def test_a_configuration_without_bounds_or_of_other_types_is_refused(
    config: dict[str, Any], says: str, tiny_model: Any, tmp_path: Path
) -> None:
    with pytest.raises(HubtuneError) as caught:
        check(copy(tiny_model("bert"), tmp_path / "model", **config))
    assert says in caught.value.message


def test_more_tensors_than_any_model_has_are_refused_while_it_is_built(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "TENSORS", 200)
    folder = copy(tiny_model("bert"), tmp_path / "model", num_hidden_layers=9_000)
    with pytest.raises(ModelError, match="more than 200 tensors"):
        check(folder)


def test_weights_that_the_machine_cannot_hold_are_refused_with_both_sizes(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "total_bytes", lambda: 100_000)
    with pytest.raises(ModelError, match=r"weights, which take 0\.0 GB; this machine has 0\.0 GB") as caught:
        check(tiny_model("bert"))
    assert "--strategy qlora" in str(caught.value.hint)


def test_the_machines_memory_is_known() -> None:
    total, free = memory.total_bytes(), memory.available_bytes("cpu")
    if total is None or free is None:
        pytest.skip("this system does not tell its memory")
    assert total >= free > 0


def test_the_limit_of_a_cgroup_is_taken(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1000 kB\nSwapTotal: 24 kB\n", encoding="ascii")
    assert list(memory.limits(tmp_path / "proc", tmp_path / "groups")) == [2**20]
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/a\n", encoding="ascii")
    (tmp_path / "groups" / "a").mkdir(parents=True)
    (tmp_path / "groups" / "a" / "memory.max").write_text("4096\n", encoding="ascii")
    assert min(memory.limits(tmp_path / "proc", tmp_path / "groups")) == 4096


FILES: dict[str, tuple[str, bytes, str]] = {
    "config nested": ("config.json", b'{"a": ' * 100_000, "nested too deeply"),
    "config nested a little less": ("config.json", b'{"a": ' * 60 + b"1" + b"}" * 60, "nested more than 50 deep"),
    "config a list": ("config.json", b"[]", "must hold a JSON object, not a list"),
    "config no text": ("config.json", b"\xff\xfe\x00", "not valid JSON"),
    "config empty": ("config.json", b"", "not valid JSON"),
    "tokenizer garbage": ("tokenizer.json", b"garbage", "its tokenizer cannot be loaded"),
    "tokenizer of other types": ("tokenizer.json", b'{"version": 1, "model": []}', "its tokenizer cannot be loaded"),
    "tokenizer nested": ("tokenizer.json", b'{"a": ' * 100_000, "its tokenizer cannot be loaded"),
    "tokenizer settings of other types": ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', "its tokenizer cannot be loaded"),
    "tokenizer settings a list": ("tokenizer_config.json", b"[]", "its tokenizer cannot be loaded"),
    "card": ("README.md", b"---\na: [b\n: c\n---\n", "its YAML header cannot be read"),
    "card a list": ("README.md", b"---\n- a\n---\n", "its YAML header cannot be read"),
    "card no text": ("README.md", b"---\n\xff\xfe\n---\n", "its YAML header cannot be read"),
    "record a list": ("hubtune.json", b"[1]", "must hold a JSON object"),
    "record of other types": ("hubtune.json", b'{"task": 5}', "'task' must be a dict, not 5"),
    "record without a name": ("hubtune.json", b'{"task": {}}', "'task.name' must be a str, not None"),
    "record of a base": ("hubtune.json", b'{"base": {"repo": 1, "commit": "", "local": true}}', "'base.repo' must be a str"),
    "record's columns": ("hubtune.json", b'{"columns": {"text": 1}}', "'columns' must be an object of column names"),
}


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_none_is_one_error(file: str, tiny_model: Any, tmp_path: Path) -> None:
    name, content, says = FILES[file]
    folder = copy(tiny_model("bert"), tmp_path / "model")
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check(folder)
    assert says in caught.value.message
    assert caught.value.hint or says.startswith("its tokenizer")
    if name != "tokenizer.json":
        assert str(caught.value.where).startswith("model")
