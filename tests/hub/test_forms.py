"""Repositories of other forms than transformers' safetensors: refused from their files, with what to do."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hubtune
from hubtune.errors import HubtuneError, ModelError, Unsafe
from hubtune.hub.forms import check_form, require_loadable
from hubtune.hub.origin import local_origin

ROWS = [{"text": f"row {n}", "label": "yes" if n % 2 else "no"} for n in range(24)]
WHOLE = ["config.json", "model.safetensors"]

FORMS: dict[str, tuple[list[str], type[HubtuneError], str, str]] = {
    "GGUF": (["model-Q4_K_M.gguf"], ModelError, "GGUF weights only (model-Q4_K_M.gguf)", "--strategy qlora"),
    "GGUF beside a config": (["config.json", "a.gguf"], ModelError, "GGUF weights only", "--strategy qlora"),
    "a subfolder": (["encoder/config.json", "encoder/model.safetensors"], ModelError, "in a subfolder: encoder", "/encoder"),
    "modules alone": (["modules.json", "README.txt"], ModelError, "sentence-transformers' modules", "hubtune show"),
    "diffusers": (["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"], ModelError,
                  "a pipeline of diffusers", "hubtune search"),
    "an adapter": (["adapter_config.json", "adapter_model.safetensors"], ModelError, "an adapter (PEFT) over 'org/base'",
                   "hubtune train merges it"),
    "an adapter beside a config": ([*WHOLE, "adapter_config.json"], ModelError, "an adapter (PEFT)", "merge_and_unload"),
    "a pickle": (["config.json", "pytorch_model.bin"], Unsafe, "a pickle can run code", "convert"),
    "another library": (["config.json", "tf_model.h5", "flax_model.msgpack"], ModelError, "weights of Flax, Keras only", "convert"),
    "other names": (["config.json", "consolidated.safetensors"], ModelError, "do not have the names that transformers loads",
                    "save_pretrained"),
    "a distributed checkpoint": (["config.json", "shard-00000-model-00001-of-00001.safetensors"], ModelError,
                                 "do not have the names", "save_pretrained"),
    "no weights": (["config.json"], ModelError, "has no weights", "as a whole"),
    "nothing": (["notes.txt"], ModelError, "it has no config.json", "hubtune show"),
}


def make(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        text = {"base_model_name_or_path": "org/base"} if name == "adapter_config.json" else {}
        (folder / name).write_text(json.dumps(text), encoding="utf-8")
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_is_not_loaded_is_refused_with_its_reason_and_what_to_do(form: str, tmp_path: Path) -> None:
    names, kind, says, does = FORMS[form]
    with pytest.raises(kind) as caught:
        require_loadable(local_origin(make(tmp_path / "model", names)))
    assert says in caught.value.message
    assert does in str(caught.value.hint)


@pytest.mark.parametrize("names", [
    WHOLE, [*WHOLE, "pytorch_model.bin", "model.onnx"], [*WHOLE, "model.fp16.safetensors"], [*WHOLE, "model-Q4.gguf"],
    [*WHOLE, "modules.json", "1_Pooling/config.json"], ["config.json", "model-00001-of-00001.safetensors"],
    ["config.json", "model.fp16.safetensors"], ["config.json", "model.bf16-00001-of-00002.safetensors"],
])
def test_a_whole_model_is_taken_whatever_lies_beside_it(names: list[str], tmp_path: Path) -> None:
    require_loadable(local_origin(make(tmp_path / "model", names)))


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "GPTQ": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized (gptq, 4 bits)"),
    "AWQ": ({"quantization_config": {"quant_method": "awq", "w_bit": 4}}, "quantized (awq, 4 bits)"),
    "compressed-tensors": ({"quantization_config": {"quant_method": "compressed-tensors"}}, "quantized (compressed-tensors)"),
    "torchao": ({"quantization_config": {"quant_method": "torchao"}}, "can be run by torchao, but not trained"),
    "MXFP4": ({"quantization_config": {"quant_method": "mxfp4"}}, "can be run by kernels, on a GPU"),
    "an unknown method": ({"quantization_config": {"quant_method": "new"}}, "quantized (new): they can be run, but"),
    "bitsandbytes": ({"quantization_config": {"load_in_4bit": True}}, "quantized (bitsandbytes)"),
    "fp8": ({"quantization_config": {"quant_method": "fp8"}}, "quantized (fp8)"),
    "MLX": ({"quantization": {"group_size": 64, "bits": 4}}, "quantized (MLX, 4 bits)"),
    "weights elsewhere": ({"transformers_weights": "../x.safetensors"}, "'../x.safetensors'"),
    "timm": ({"architecture": "resnet18", "pretrained_cfg": {}}, "a model of timm"),
    "timm's wrapper": ({"model_type": "timm_wrapper"}, "a model of timm"),
}


@pytest.mark.parametrize("form", CONFIGS)
def test_what_the_configuration_says_of_the_weights_is_refused(form: str, tmp_path: Path) -> None:
    config, says = CONFIGS[form]
    with pytest.raises(ModelError) as caught:
        check_form(config, local_origin(make(tmp_path / "model", WHOLE)))
    assert says in caught.value.message
    assert caught.value.hint


def test_the_model_that_a_quantized_one_was_made_from_is_named(tmp_path: Path) -> None:
    (make(tmp_path / "model", ["a.gguf"]) / "README.md").write_text("---\nbase_model: org/whole\n---\n", encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        require_loadable(local_origin(tmp_path / "model"))
    assert "org/whole" in str(caught.value.hint)


def test_quantized_weights_are_refused_on_the_hub_before_they_are_fetched(hub: Any, tiny_model: Any, tmp_path: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    shutil.copytree(tiny_model("bert"), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}}), encoding="utf-8")
    hub.add_model("tiny/gptq", tmp_path / "model")
    with pytest.raises(ModelError, match="quantized"):
        hubtune.check("text-classification", model="tiny/gptq", data=ROWS, out=tmp_path / "run")
    assert try_to_load_from_cache("tiny/gptq", "model.safetensors") is None


def test_a_download_shorter_than_listed_is_fetched_again_and_then_refused(
    hub: Any, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubtune.errors import Corrupt
    from hubtune.hub import origin

    download = importlib.import_module("hubtune.hub.download")  # the package has a function of this name

    hub.add_model("tiny/short", tiny_model("bert"))
    fetched: list[int] = []
    real = download.download_snapshot

    def shortened(pinned: Any, patterns: Any) -> Path:
        folder = real(pinned, patterns)
        fetched.append(1)
        path = (folder / "model.safetensors").resolve()
        if len(fetched) <= damage:
            path.write_bytes(path.read_bytes()[:-9])
        return folder

    monkeypatch.setattr(download, "download_snapshot", shortened)
    damage = 1
    found = origin.fetch(origin.locate("tiny/short"), ["model.safetensors"])
    assert len(fetched) == 2
    assert (found / "model.safetensors").stat().st_size == (tiny_model("bert") / "model.safetensors").stat().st_size
    damage = 9
    with pytest.raises(Corrupt, match=r"model\.safetensors differed"):
        origin.fetch(origin.locate("tiny/short"), ["model.safetensors"])
