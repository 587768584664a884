"""Damaged files of a model, at random: an answer or one of hubtune's errors comes out, never a library's, and in time."""

from __future__ import annotations

import copy
import json
import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fuzz import hypothesis, try_many

import hubtune
from hubtune.devices.clean_python import CleanPython
from hubtune.errors import HubtuneError
from hubtune.evaluation import verification

st = hypothesis.strategies

ROWS = [{"text": f"row {n} is good", "label": "yes" if n % 2 else "no"} for n in range(16)]

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from([2**31, 2**63, -2**31, 10**30, 400, 1000]),
    st.floats(), st.sampled_from([
        "", "a", "../x", "/etc/passwd", "[UNK]", "bert", "gpt2", "t5", "BertTokenizer", "PreTrainedTokenizerFast", "é\ud7ff",
        "regression", "code", "peft", "float16", "gelu", "relu", "sdpa", "{{ 1/0 }}", "ByteLevel", "BPE", "WordPiece"]),
    st.text(max_size=8))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(
    st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)), max_leaves=8)
KEYS = st.sampled_from([
    "num_hidden_layers", "num_labels", "vocab_size", "hidden_size", "auto_map", "architectures", "model_type", "id2label",
    "quantization_config", "tokenizer_class", "added_tokens_decoder", "pad_token", "problem_type", "loads_with", "task", "base",
    "facts", "limit", "columns", "dtype", "torch_dtype", "text_config", "chat_template", "model_max_length", "type_vocab_size",
    "pad_token_id", "is_decoder", "pruned_heads", "rope_scaling", "attn_implementation", "_attn_implementation", "transformers_weights",
    "label2id", "processor_class", "special_tokens_map", "extra_special_tokens", "metric", "metrics", "data", "transformers_version"])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value; of long lists and tables, of a few."""
    yield path
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    for key, item in inner[:24] + inner[-4:]:
        yield from places(item, (*path, key))


def mutate(data: Any, value: Any) -> Any:
    """Return a JSON value in which one to three parts are replaced, left out, or added."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(value))))
        if not path:
            if isinstance(value, dict) and data.draw(st.integers(0, 9)):
                value[data.draw(KEYS)] = data.draw(VALUES)
                continue
            return data.draw(VALUES)
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder, dict) and data.draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = data.draw(VALUES)
    return value


def damage(data: Any, content: bytes) -> bytes:
    """Return bytes of which a piece is replaced, left out, doubled or cut off."""
    if not content:
        return data.draw(st.binary(max_size=20))
    begin = data.draw(st.integers(0, len(content) - 1))
    end = min(len(content), begin + data.draw(st.integers(0, 40)))
    kind = data.draw(st.sampled_from(["replace", "delete", "double", "cut", "nest"]))
    middle = {"replace": data.draw(st.binary(max_size=20)), "delete": b"", "double": content[begin:end] * 2,
              "cut": b"", "nest": b'{"a":' * 5000}[kind]
    return content[:begin] + middle + (b"" if kind == "cut" else content[end:])


def json_file(data: Any, content: bytes) -> bytes:
    """Damage a JSON file: its values, or its bytes."""
    if data.draw(st.integers(0, 4)) == 0:
        return damage(data, content)
    return json.dumps(mutate(data, json.loads(content))).encode("utf-8", "surrogatepass")


def weights(data: Any, content: bytes) -> bytes:
    """Damage the header of a safetensors file, its length, or the file's end."""
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = content[8:8 + length], content[8 + length:]
    kind = data.draw(st.sampled_from(["values", "values", "values", "bytes", "length", "end"]))
    if kind == "length":
        return struct.pack("<Q", data.draw(st.sampled_from([0, 1, 7, length - 1, length + 1, 2**31, 2**63]))) + header + rest
    if kind == "end":
        return damage(data, content)
    header = damage(data, header) if kind == "bytes" else json.dumps(mutate(data, json.loads(header))).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(header)) + header + rest


def card(data: Any, content: bytes) -> bytes:
    """Damage the YAML of a model card."""
    header = json.dumps(mutate(data, {"license": "mit", "language": ["en"], "tags": ["a"], "base_model": "org/x", "model-index": [
        {"name": "a", "results": [{"task": {"type": "a"}, "metrics": [{"type": "b", "value": 1}]}]}]}))
    return damage(data, f"---\n{header}\n---\n# A model\n".encode("utf-8", "surrogatepass"))


DAMAGES = {
    "config.json": json_file, "tokenizer.json": json_file, "tokenizer_config.json": json_file, "hubtune.json": json_file,
    "model.safetensors": weights, "README.md": card,
}


@pytest.fixture(scope="module")
def tuned(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned model: it can be predicted with, and tuned further."""
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=folder,
                  set={"train.max_steps": 1, "train.verify": False})
    return folder / "model"


def use(folder: Path, more: Sequence[str]) -> list[str]:
    """Check a folder as a base, and predict with it; returns the kind of each result.

    more: `evaluate` and `verify` do that, too.
    """
    def check() -> object:
        return hubtune.check("text-classification", model=folder, data=ROWS, out=folder.parent / "run")

    def predict() -> object:
        return hubtune.load(folder, task=None if (folder / "hubtune.json").exists() else "text-classification").predict(["good row"])

    def evaluate() -> object:
        return hubtune.load(folder).evaluate(ROWS)

    def verify() -> object:
        return hubtune.verify(folder)

    results = []
    for call in (check, predict, *(one for one in (evaluate, verify) if one.__name__ in more)):
        try:
            call()
            results.append("fine")
        except HubtuneError as error:
            results.append(error.kind)
    assert not {"hubtune-error", "unexpected-error"} & set(results)
    return results


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_an_answer_or_an_error_of_ours(
    name: str, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clean process takes seconds, and is asked after all is read.
    monkeypatch.setattr(verification, "verify_model", lambda saved, process: {})
    monkeypatch.setattr(CleanPython, "start_early", lambda process, modules: None)

    def try_one(data: Any) -> None:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tuned, folder)
        path = folder / name
        path.write_bytes(DAMAGES[name](data, path.read_bytes() if path.exists() else b""))
        try:
            use(folder, {"hubtune.json": ["evaluate", "verify"], "README.md": ["verify"]}.get(name, []))
        except HubtuneError:
            raise
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            error.add_note(f"{name}: {path.read_bytes()[:2000]!r}")
            raise

    try_many("safetensors header" if name == "model.safetensors" else name, try_one, st.data(), 4, share=0.75)
