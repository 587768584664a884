"""Base models: MiniLM from its package, others of their type's real proportions, with random weights, made once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import training
from benchmarks.rows import FOLDER

VOCABULARY = 8_000


def make(name: str, cache: Path) -> Path:
    """Return the folder of a base model."""
    if name == "minilm":
        return Path(training.default_model())
    folder = cache / "bases" / name
    if not folder.is_dir():
        import torch

        torch.manual_seed(0)
        unfinished = folder.with_name(name + ".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        MADE[name](unfinished)
        unfinished.rename(folder)
    return folder


def strings(path: Path, *columns: str) -> Iterator[str]:
    """Yield the texts of some columns of JSON lines or of a csv."""
    from benchmarks.whole.data import jsonl, table

    for line in jsonl(path) if path.suffix == ".jsonl" else table(path):
        yield from (line[column] for column in columns)


def tokenizer(texts: Iterator[str], **special: str) -> Any:
    """Train a byte-level BPE on the texts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, VOCABULARY, special_tokens=list(dict.fromkeys(special.values())), show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, model_max_length=1024, **special)


def llama(folder: Path) -> None:
    """A llama of 25 M parameters with grouped-query attention."""
    from transformers import LlamaConfig, LlamaForCausalLM

    own = tokenizer(strings(FOLDER / "gsm8k_preference" / "train.jsonl", "prompt", "chosen", "rejected"),
                    bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    config = LlamaConfig(
        vocab_size=len(own), hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    LlamaForCausalLM(config).save_pretrained(folder)
    own.save_pretrained(folder)


def bart(folder: Path) -> None:
    """An encoder-decoder of 4 + 4 layers of width 256."""
    from tokenizers.processors import TemplateProcessing
    from transformers import BartConfig, BartForConditionalGeneration

    own = tokenizer(strings(FOLDER / "tatoeba_en_zh" / "train.csv", "en", "zh"),
                    bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", own.bos_token_id), ("</s>", own.eos_token_id)])
    both = {f"{side}_{key}": value for side in ("encoder", "decoder")
            for key, value in {"layers": 4, "attention_heads": 4, "ffn_dim": 1024}.items()}
    config = BartConfig(
        vocab_size=len(own), d_model=256, **both, max_position_embeddings=1024, bos_token_id=own.bos_token_id,
        pad_token_id=own.pad_token_id, eos_token_id=own.eos_token_id, decoder_start_token_id=own.eos_token_id,
        forced_eos_token_id=own.eos_token_id)
    BartForConditionalGeneration(config).save_pretrained(folder)
    own.save_pretrained(folder)


def vit(folder: Path) -> None:
    """ViT-tiny: 12 layers of width 192, images of 224 pixels."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    ViTModel(ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768)).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)


def wav2vec2(folder: Path) -> None:
    """A wav2vec 2.0 of 6 layers of width 256 behind half-width convolutions, with letters for its vocabulary."""
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(letters)}), encoding="utf-8")
    config = Wav2Vec2Config(
        hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024, conv_dim=[256] * 7,
        vocab_size=len(letters), pad_token_id=0, ctc_loss_reduction="mean", mask_time_prob=0.0, layerdrop=0.0)
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))).save_pretrained(folder)


MADE: dict[str, Callable[[Path], None]] = {"llama": llama, "bart": bart, "vit": vit, "wav2vec2": wav2vec2}
