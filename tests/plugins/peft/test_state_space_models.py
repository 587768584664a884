"""LoRA on state-space models, on hybrids of these with attention, and on DeepSeek-V4's compressed
attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hubtune
from hubtune.testing.models import tiny_tokenizer

ROWS = [{"text": f"{word} day number {number}"} for number in range(8) for word in ("good", "bad")]
SIZES: dict[str, dict[str, Any]] = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 2},
    "falcon_h1": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "deepseek_v4": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "qk_rope_head_dim": 2,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "q_lora_rank": 8,
        "o_lora_rank": 8,
        "index_head_dim": 8,
        "index_n_heads": 2,
        "index_topk": 8,
        "sliding_window": 16,
        "mlp_layer_types": ["hash_moe", "moe"],
        "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"],
    },
}


@pytest.fixture(scope="module", params=SIZES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny model of a type, with a tokenizer, in a folder."""
    if request.param not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES:
        pytest.skip(f"transformers {transformers.__version__} has no {request.param}")
    tokenizer = tiny_tokenizer("llama")
    ids = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    config = transformers.AutoConfig.for_model(
        request.param, vocab_size=len(tokenizer), **ids, **SIZES[request.param]
    )
    folder = tmp_path_factory.mktemp(request.param)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("strategy", ["lora", "peft"])
def test_it_trains_and_its_merged_weights_are_the_trained_model(
    strategy: str, model: Path, tmp_path: Path
) -> None:
    run = hubtune.train(
        "text-generation",
        model=model,
        data={"train": ROWS, "validation": ROWS[:8]},
        strategy=strategy,
        out=tmp_path / "run",
        set={"train.max_steps": 2, "train.precision": "fp32"},
    )
    assert run.record["proof"]["largest_difference"] <= 1e-4
    assert run.record["loads_with"] == "transformers"
