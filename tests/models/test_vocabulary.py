"""Tokenizers that do not fit their model: refused with the token and the row, or the embedding is enlarged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hubtune
from hubtune.errors import ModelError, RecipeError

ROWS = [{"text": f"a good row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
LESS = {"train.max_steps": 2}
RESIZED = {"model.resize_embeddings": True}


def copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def with_tokens(folder: Path, *tokens: str, **special: str) -> Path:
    """Add tokens to the tokenizer of a model, and to it alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return folder


def check(folder: Path, rows: Any = ROWS, **settings: Any) -> dict[str, Any]:
    return hubtune.check("text-classification", model=folder, data=rows, out=folder.parent / "run", set=settings)


def test_a_model_without_tokenizer_files_is_refused(tiny_model: Any, tmp_path: Path) -> None:
    folder = copy(tiny_model("bert"), tmp_path / "model")
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(ModelError, match=r"its tokenizer (knows no words|cannot be loaded)"):
        check(folder)


def test_a_tokenizer_that_knows_none_of_the_rows_words_is_refused(tiny_model: Any) -> None:
    rows = [{**row, "text": "很好的一天 非常不错"} for row in ROWS]
    with pytest.raises(ModelError, match=r"does not know \d+% of the tokens in train: they all become '\[UNK\]'"):
        hubtune.check("text-classification", model=tiny_model("bert"), data=[
            {**row, "text": f"{row['text']} {n}"} for n, row in enumerate(rows)])


def test_a_share_of_unknown_tokens_is_warned_of(tiny_model: Any, tmp_path: Path) -> None:
    rows = [{**row, "text": f"what a lovely day 好 {n}"} for n, row in enumerate(ROWS)]
    found = hubtune.check("text-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run")
    assert [text for text in found["warnings"] if "does not know" in text]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_token_beyond_the_embedding_is_refused_with_its_row(split: str, tiny_model: Any, tmp_path: Path) -> None:
    folder = with_tokens(copy(tiny_model("bert"), tmp_path / "model"), "zyxword")
    data = {"train": [dict(row) for row in ROWS], "validation": [{**row, "text": f"{row['text']} too"} for row in ROWS]}
    data[split][6]["text"] = "the zyxword came"
    with pytest.raises(ModelError) as caught:
        check(folder, data)
    size = transformers.AutoConfig.from_pretrained(folder).vocab_size
    assert caught.value.message == (f"its embedding has {size} rows, and 1 tokens have ids beyond them: 'zyxword' ({size}); "
                                    f"'zyxword' is in row 7 of {split}.")
    assert "--set model.resize_embeddings=true" in str(caught.value.hint)


def test_the_row_of_such_a_token_is_numbered_as_in_the_data(tiny_model: Any, tmp_path: Path) -> None:
    folder = with_tokens(copy(tiny_model("bert"), tmp_path / "model"), "zyxword")
    rows = [{**row, "text": f"{row['text']} zyxword" if n == 20 else row["text"]} for n, row in enumerate(ROWS)]
    with pytest.raises(ModelError) as caught:  # some rows before it are held out
        check(folder, rows, **{"data.validation": 0.4, "train.seed": 3})
    if "of train" in caught.value.message:
        assert "row 21 of train" in caught.value.message


def test_a_pad_token_beyond_the_embedding_is_refused_without_any_row(tiny_model: Any, tmp_path: Path) -> None:
    folder = with_tokens(copy(tiny_model("bert"), tmp_path / "model"), pad_token="[NEWPAD]")
    with pytest.raises(ModelError, match=r"'\[NEWPAD\]' \(\d+\)"):
        check(folder)


def test_tokens_beyond_the_embedding_that_nothing_uses_are_warned_of(tiny_model: Any, tmp_path: Path) -> None:
    folder = with_tokens(copy(tiny_model("bert"), tmp_path / "model"), "zyxword")
    (warning,) = [text for text in check(folder)["warnings"] if "no row in the embedding" in text]
    assert "'zyxword'" in warning


@pytest.mark.parametrize(("model_type", "strategy"), [("bert", "full"), ("bert", "lora"), ("llama", "lora")])
def test_an_enlarged_embedding_is_trained_verified_and_answers_the_same_in_plain_transformers(
    model_type: str, strategy: str, tiny_model: Any, tmp_path: Path
) -> None:
    folder = with_tokens(copy(tiny_model(model_type), tmp_path / "model"), "zyxword", pad_token="[NEWPAD]")
    rows = [{**row, "text": f"{row['text']} zyxword" if n % 3 == 0 else row["text"]} for n, row in enumerate(ROWS)]
    run = hubtune.train("text-classification", model=folder, data=rows, strategy=strategy, out=tmp_path / "run",
                        set={**LESS, **RESIZED})
    assert run.record["proof"]
    saved = run.folder / "model"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(saved)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    before = transformers.AutoConfig.from_pretrained(folder).vocab_size
    assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == len(tokenizer) == before + 2
    assert model.config.pad_token_id == tokenizer.pad_token_id == before + 1
    texts = ["a zyxword", "a good row that is longer"]
    (first, _) = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    answers = hubtune.load(run.folder).predict(texts)
    assert list(answers[0]["probabilities"].values()) == pytest.approx(first.tolist(), abs=1e-4)


def test_an_embedding_that_is_large_enough_stays(tiny_model: Any, tmp_path: Path) -> None:
    run = hubtune.train("text-classification", model=tiny_model("bert"), data=ROWS, out=tmp_path / "run",
                        set={**LESS, **RESIZED, "train.verify": False})
    weights = transformers.AutoModel.from_pretrained(run.folder / "model").get_input_embeddings().weight
    assert weights.shape == transformers.AutoModel.from_pretrained(tiny_model("bert")).get_input_embeddings().weight.shape
    assert torch.isfinite(weights).all()


def test_labels_of_words_are_no_unknown_tokens(tiny_model: Any, tmp_path: Path) -> None:
    rows = [{"words": ["what", "a", "day"], "labels": ["B", "A", "A"]} for _ in range(24)]  # 1 is also the id of [UNK]
    found = hubtune.check("token-classification", model=tiny_model("bert"), data=rows, out=tmp_path / "run")
    assert [text for text in found["warnings"] if "does not know" in text] == []


def test_an_adapter_over_the_base_cannot_enlarge_it(tiny_model: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = with_tokens(copy(tiny_model("bert"), tmp_path / "model"), pad_token="[NEWPAD]")
    with pytest.raises(RecipeError, match="published as an adapter"):
        hubtune.check("text-classification", model=folder, data=ROWS, strategy="prompt-tuning", out=tmp_path / "run", set=RESIZED)
