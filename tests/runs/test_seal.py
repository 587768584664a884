"""Runs that are changed between training and publishing: refused before anything is sent, and what hubtune did not write stays here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hubtune_plugins.vision.image_classification import ImageClassification
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

import hubtune
from hubtune.cli import commands
from hubtune.runs import seal

Change = Callable[[Path], None]
WRITING = ("POST", "PUT", "DELETE", "PATCH")
SETTINGS = {"train.epochs": 1.0, "data.limit": 60, "train.verify": False}


@pytest.fixture(scope="module")
def trained(tiny_model: Any, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of LoRA, trained once, with a published adapter in a folder of its own."""
    out = tmp_path_factory.mktemp("sealed") / "run"
    hubtune.train("sentiment", model=tiny_model("bert"), data=reviews, strategy="lora", set=SETTINGS, out=out)
    return out


@pytest.fixture(scope="module")
def images(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on images."""
    out = tmp_path_factory.mktemp("images") / "run"
    rows = tiny.sample(ImageClassification(), 24)
    hubtune.train("image-classification", model=tiny_model("vit"), data=rows, set={"train.epochs": 1.0, "train.verify": False}, out=out)
    return out


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def edit_json(name: str, change: Callable[[Any], None]) -> Change:
    def apply(folder: Path) -> None:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        change(found)
        (folder / name).write_text(json.dumps(found), encoding="utf-8")
    return apply


def edit_weights(change: Callable[[dict[str, Any]], None], name: str = "model/model.safetensors") -> Change:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})
    return apply


def swap_labels(config: dict[str, Any]) -> None:
    labels = config["id2label"]
    labels["0"], labels["1"] = labels["1"], labels["0"]
    config["label2id"] = {name: int(key) for key, name in labels.items()}


def swap_words(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def cut_vocabulary(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    for word in list(vocabulary)[-20:]:
        del vocabulary[word]


def set_nan(tensors: dict[str, Any]) -> None:
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name][0] = float("nan")  # the row of the pad token, which no answer depends on


def zero_head(tensors: dict[str, Any]) -> None:
    tensors["classifier.weight"].zero_()


def scale_layers(tensors: dict[str, Any]) -> None:
    for name, tensor in tensors.items():
        if name.endswith("LayerNorm.weight"):
            tensor *= torch.linspace(0.5, 1.5, len(tensor))


def drop_head(tensors: dict[str, Any]) -> None:
    del tensors["classifier.weight"]


def truncate(folder: Path) -> None:
    path = folder / "model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_byte(folder: Path) -> None:
    path = folder / "model/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 64
    path.write_bytes(content)


def link_out(name: str) -> Change:
    """Replace a file or a folder by a symbolic link to the same content elsewhere."""
    def apply(folder: Path) -> None:
        away = folder.parent / "away" / Path(name).name
        away.parent.mkdir()
        shutil.move(folder / name, away)
        (folder / name).symlink_to(away)
    return apply


def hard_link(folder: Path) -> None:
    (folder.parent / "secret.json").write_text('{"secret": 1}', encoding="utf-8")
    (folder / "model/config.json").unlink()
    os.link(folder.parent / "secret.json", folder / "model/config.json")


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def empty(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes(b"")


def make_folder(name: str) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()
    return apply


def append(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text((folder / name).read_text(encoding="utf-8") + text, encoding="utf-8") and None


def put(name: str, key: str, value: Any) -> Change:
    return edit_json(name, lambda found: found.update({key: value}))


CHANGES: dict[str, tuple[Change, str]] = {
    "labels swapped": (edit_json("model/config.json", swap_labels), "model/config.json: changed"),
    "problem type": (put("model/config.json", "problem_type", "multi_label_classification"), "model/config.json: changed"),
    "labels renamed": (put("model/config.json", "id2label", {"0": "a", "1": "b", "2": "c"}), "model/config.json: changed"),
    "activation": (put("model/config.json", "hidden_act", "relu"), "model/config.json: changed"),
    "code named": (put("model/config.json", "auto_map", {"AutoModel": "x.Y"}), "model/config.json: changed"),
    "words swapped": (edit_json("model/tokenizer.json", swap_words), "model/tokenizer.json: changed"),
    "vocabulary cut": (edit_json("model/tokenizer.json", cut_vocabulary), "model/tokenizer.json: changed"),
    "length limit": (put("model/tokenizer_config.json", "model_max_length", 4), "model/tokenizer_config.json: changed"),
    "padding side": (put("model/tokenizer_config.json", "padding_side", "left"), "model/tokenizer_config.json: changed"),
    "number format": (put("model/config.json", "dtype", "float16"), "model/config.json: changed"),
    "pad token": (put("model/config.json", "pad_token_id", 3), "model/config.json: changed"),
    "labels of hubtune": (edit_json("model/hubtune.json", lambda found: found["facts"]["labels"].reverse()), "model/hubtune.json: changed"),
    "another task": (edit_json("model/hubtune.json", lambda found: found["task"].update(name="no-such")), "model/hubtune.json: changed"),
    "hubtune.json emptied": (empty("model/hubtune.json"), "model/hubtune.json: changed"),
    "nan in the embedding": (edit_weights(set_nan), "model/model.safetensors: changed"),
    "head zeroed": (edit_weights(zero_head), "model/model.safetensors: changed"),
    "head dropped": (edit_weights(drop_head), "model/model.safetensors: changed"),
    "layers scaled": (edit_weights(scale_layers), "model/model.safetensors: changed"),
    "weights truncated": (truncate, "model/model.safetensors: changed"),
    "a bit flipped": (flip_byte, "model/model.safetensors: changed"),
    "the adapter changed": (edit_weights(lambda tensors: next(iter(tensors.values())).add_(1), "model/adapter/adapter_model.safetensors"),
                            "model/adapter/adapter_model.safetensors: changed"),
    "weights missing": (remove("model/model.safetensors"), "model/model.safetensors: missing"),
    "tokenizer missing": (remove("model/tokenizer.json"), "model/tokenizer.json: missing"),
    "hubtune.json missing": (remove("model/hubtune.json"), "model/hubtune.json: missing"),
    "a link for a file": (link_out("model/config.json"), "model/config.json: replaced by a symbolic link"),
    "a link for a folder": (link_out("model/adapter"), "model/adapter/adapter_config.json: behind the symbolic link model/adapter"),
    "a link for the model": (link_out("model"), "model: a symbolic link"),
    "a hard link": (hard_link, "model/config.json: changed"),
    "a folder for a file": (make_folder("model/config.json"), "model/config.json: replaced by something that is no file"),
    "the card edited": (append("model/README.md", "\n# The best model in the world\n"), "model/README.md: changed"),
    "accuracy": (edit_json("run.json", lambda found: found["metrics"]["validation"].update(accuracy=0.999)), "run.json: 'metrics' was changed"),
    "interval": (edit_json("run.json", lambda found: found["intervals"]["validation"].clear()), "run.json: 'intervals' was changed"),
    "licence": (edit_json("run.json", lambda found: found["base"].update(license="mit")), "run.json: 'base' was changed"),
    "data": (edit_json("run.json", lambda found: found["data"].update(repo="squad")), "run.json: 'data' was changed"),
    "usage": (put("run.json", "usage", "import os"), "run.json: 'usage' was changed"),
    "proof": (put("run.json", "proof", {"examples": 64, "largest_difference": 0.0}), "run.json: 'proof' was changed"),
    "a figure removed": (edit_json("run.json", lambda found: found.pop("reports")), "run.json: 'reports' is missing"),
    "a figure added": (put("run.json", "praise", 1), "run.json: 'praise' was added"),
    "the seal removed": (edit_json("run.json", lambda found: found.pop("seal")), "run.json: its seal is missing"),
    "the seal cut": (edit_json("run.json", lambda found: found["seal"].pop("files")), "run.json: its seal is incomplete"),
    "recorded outputs": (empty("proof.safetensors"), "proof.safetensors: changed"),
    "recorded answers": (edit_json("proof/calls.json", lambda found: found["calls"].clear()), "proof/calls.json: changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_run_is_refused_before_anything_is_sent(name: str, run_folder: Path, logged_in: Any, capsys: Any) -> None:
    change, message = CHANGES[name]
    change(run_folder)
    before = len(logged_in.requests)
    assert commands.main(["publish", str(run_folder), "me/never", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)["error"]
    assert said["kind"] == "seal-error"
    assert message in said["message"]
    assert "hubtune train" in said["hint"]
    assert not [served for served in logged_in.requests[before:] if served.method in WRITING]
    assert not HfApi().repo_exists("me/never")


@pytest.mark.parametrize("content", [b"null", b"5", b"{", b"\xff", b"[" * 100_000, b'{"recipe": 5}'])
def test_a_record_that_is_none_is_one_error(content: bytes, run_folder: Path, capsys: Any) -> None:
    (run_folder / "run.json").write_bytes(content)
    assert commands.main(["publish", str(run_folder), "me/never", "--dry-run", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["message"][:31]) == ("resume-error", "it is not the record of a run: ")


def test_deep_folders_and_names_without_an_encoding_are_left_out(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run_folder / "model/deep").mkdir()
    monkeypatch.chdir(run_folder / "model/deep")
    for _ in range(1500):
        os.mkdir("y")
        os.chdir("y")
    monkeypatch.undo()
    try:
        with open(os.fsencode(run_folder) + b"/model/\xff\n.json", "w", encoding="utf-8") as file:
            file.write("{}")
    except OSError:
        pytest.skip("this file system takes no such name")
    done = hubtune.Run(run_folder).publish("me/never", dry_run=True)
    assert len(done["left_out"]) == 2
    assert all(name.isprintable() for name in done["left_out"])
    subprocess.run(["rm", "-rf", str(run_folder / "model/deep")], check=True)  # too deep for shutil


@pytest.mark.parametrize("content", [None, b"123"])
def test_recorded_outputs_that_cannot_be_read_are_one_error(content: bytes | None, run_folder: Path, logged_in: Any) -> None:
    record = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    del record["seal"]
    (run_folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(run_folder / "proof")
    (run_folder / "proof.safetensors").unlink()
    if content:
        (run_folder / "proof.safetensors").write_bytes(content)
    with pytest.raises(hubtune.ProofError, match="outputs cannot be read"):
        hubtune.Run(run_folder).publish("me/never")


MODEL_CHANGES = [
    "labels swapped", "problem type", "labels renamed", "activation", "words swapped", "vocabulary cut", "length limit",
    "padding side", "number format", "pad token", "nan in the embedding", "head zeroed", "head dropped", "layers scaled", "weights truncated",
]


@pytest.mark.parametrize("name", MODEL_CHANGES)
def test_the_proof_alone_finds_a_changed_model_under_a_forged_seal(name: str, run_folder: Path, logged_in: Any) -> None:
    CHANGES[name][0](run_folder)
    record = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    record["seal"] = seal.make(run_folder, record)
    (run_folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    before = len(logged_in.requests)
    with pytest.raises(hubtune.HubtuneError) as refused:
        hubtune.Run(run_folder).publish("me/never")
    assert isinstance(refused.value, hubtune.ProofError), refused.value
    assert refused.value.message.endswith("Nothing was sent.")
    assert not [served for served in logged_in.requests[before:] if served.method in WRITING]


@pytest.mark.parametrize(("name", "change"), [
    ("preprocessor_config.json", lambda found: found.update(image_mean=[0.1, 0.2, 0.3])),
    ("preprocessor_config.json", lambda found: found.update(rescale_factor=0.01)),
])
def test_the_proof_alone_finds_a_changed_image_processor(
    name: str, change: Callable[[Any], None], images: Path, tmp_path: Path, logged_in: Any
) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "run"))
    file = next(path for path in (folder / "model").glob("*processor_config.json"))
    edit_json(str(file.relative_to(folder)), lambda found: change(found.get("image_processor", found)))(folder)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["seal"] = seal.make(folder, record)
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(hubtune.ProofError, match="asked as its users ask it"):
        hubtune.Run(folder).publish("me/never")


def test_what_hubtune_did_not_write_is_not_published_and_named(run_folder: Path, logged_in: Any) -> None:
    model = run_folder / "model"
    (run_folder.parent / "secret.txt").write_text("secret", encoding="utf-8")
    for name in (".env", "optimizer.pt", "config.json~", ".git/config", ".git/HEAD", "notes/a.json", "notes/b.json", "training_args.bin"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("secret", encoding="utf-8")
    (model / "link.json").symlink_to(run_folder.parent / "secret.txt")
    (model / "linked").symlink_to(run_folder.parent)
    os.link(run_folder.parent / "secret.txt", model / "hard.json")
    said: list[str] = []
    told = hubtune.Callbacks()
    told.on_warning = said.append  # type: ignore[method-assign]
    done = hubtune.Run(run_folder).publish("me/allowed", callbacks=told)
    assert done["left_out"] == [".env", ".git/ (2 files)", "config.json~", "hard.json", "link.json", "linked", "notes/ (2 files)",
                                "optimizer.pt", "training_args.bin"]
    assert any(all(name in line for name in done["left_out"]) for line in said)
    assert set(HfApi().list_repo_files("me/allowed")) - {".gitattributes"} == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "hubtune.json",
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}


def test_a_forged_seal_sends_no_hidden_file_and_no_pickle(run_folder: Path, logged_in: Any) -> None:
    for name in (".env", "optimizer.pt"):
        (run_folder / "model" / name).write_text("secret", encoding="utf-8")
    record = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    record["seal"] = seal.make(run_folder, record)
    (run_folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    done = hubtune.Run(run_folder).publish("me/forged", dry_run=True)
    assert done["left_out"] == [".env", "optimizer.pt"]
    assert not {".env", "optimizer.pt"} & {file["path"] for file in done["files"]}


def test_an_untouched_run_and_a_missing_card_are_published_with_both_proofs(run_folder: Path, logged_in: Any) -> None:
    (run_folder / "model/README.md").unlink()
    run = hubtune.Run(run_folder)
    done = run.publish("me/untouched")
    proof = run.record["published"]["proof"]
    assert proof["asked"]["ways"] == ["pipeline"]
    assert proof["asked"]["rows"] == 6
    assert proof["asked"]["largest_difference"] <= 1e-4
    assert HfApi().model_info("me/untouched").sha == done["commit"]
    assert hubtune.Run(run_folder).publish("me/untouched")["commit"] == done["commit"]  # the seal holds after publishing


def test_the_proof_keeps_rows_in_the_run_and_publishes_none(run_folder: Path, logged_in: Any) -> None:
    texts = [call["inputs"] for call in json.loads((run_folder / "proof/calls.json").read_text(encoding="utf-8"))["calls"]]
    assert all(isinstance(text, str) and text for text in texts)
    longest = max(texts, key=len)
    for file in (run_folder / "model").rglob("*.json"):
        if file.name != "tokenizer.json":
            assert longest not in file.read_text(encoding="utf-8")


def test_a_file_that_changes_after_the_proof_is_not_sent(run_folder: Path, logged_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubtune.runs import publishing

    prove = publishing.prove

    def prove_then_change(folder: Path, record: Any, base: Any, staged: publishing.Staged, *given: Any) -> Any:
        found = prove(folder, record, base, staged, *given)
        (staged.folder / "config.json").write_text("{}", encoding="utf-8")
        return found

    monkeypatch.setattr(publishing, "prove", prove_then_change)
    before = len(logged_in.requests)
    with pytest.raises(hubtune.SealError, match=r"config\.json changed while it was being published"):
        hubtune.Run(run_folder).publish("me/never")
    assert not [served for served in logged_in.requests[before:] if served.method in WRITING]


def test_a_run_of_a_version_without_seals_is_published_with_a_warning(run_folder: Path, logged_in: Any) -> None:
    record = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    del record["seal"]
    (run_folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(run_folder / "proof")
    (run_folder / "model/.env").write_text("secret", encoding="utf-8")
    said: list[str] = []
    told = hubtune.Callbacks()
    told.on_warning = said.append  # type: ignore[method-assign]
    done = hubtune.Run(run_folder).publish("me/earlier", callbacks=told)
    assert done["left_out"] == [".env"]
    assert any("did not seal runs" in line for line in said)
    weights = load_file(run_folder / "model/model.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, run_folder / "model/model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(hubtune.ProofError, match="Nothing was sent"):
        hubtune.Run(run_folder).publish("me/earlier")
