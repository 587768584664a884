"""Quirks of libraries that models/compat relies on or mends: a failure here says which release changed which."""

import pytest
import torch
import transformers

from hubtune.models import compat


@pytest.mark.parametrize("auto", ["AutoModelForSequenceClassification", "AutoModelForImageClassification", "AutoModel"])
def test_auto_classes_have_a_private_table_of_model_classes(auto):
    table = getattr(getattr(transformers, auto), "_model_mapping", None)
    assert table is not None, f"{auto} of transformers {transformers.__version__} has no _model_mapping: mend models/compat"
    assert hasattr(table, "_model_mapping"), "its table has no _model_mapping by model type: mend compat.model_types"


def test_model_class_of_a_configuration():
    config = transformers.BertConfig()
    assert compat.model_class("AutoModelForSequenceClassification", config) is transformers.BertForSequenceClassification
    assert compat.model_classes("AutoModelForImageClassification", config) == ()
    assert compat.model_class("AutoModelForImageClassification", config) is None
    assert "bert" in compat.model_types("AutoModelForSequenceClassification")
    assert "bert" not in compat.model_types("AutoModelForImageClassification")


def test_configurations_have_a_public_name_or_path():
    config = transformers.BertConfig()
    config.name_or_path = "somewhere"
    assert config.name_or_path == "somewhere"


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm])
def test_batch_norms_are_found(kind):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), kind(2))
    assert compat.batch_norms(model) == [model[1]]


def test_4_bit_layers_have_the_attribute_that_packs_their_weights():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="4-bit layers come with: pip install 'hubtune[qlora]'")
    layer = bitsandbytes.nn.Linear4bit(64, 64)
    assert hasattr(layer, "support_avx512bf16_for_cpu"), \
        f"bitsandbytes {bitsandbytes.__version__} decides otherwise to pack weights: mend compat.correct_4bit_layers"
    model = torch.nn.Sequential(layer)
    layer.weight = torch.nn.Parameter(torch.ones(64, 64))  # as transformers leaves what a checkpoint lacks
    compat.correct_4bit_layers(model)
    assert type(model[0]) is torch.nn.Linear
    assert model[0].weight is layer.weight
    assert model(torch.ones(1, 64)).shape == (1, 64)


def test_client_errors_derive_from_its_http_library():
    from huggingface_hub.errors import HfHubHTTPError

    from hubtune.hub.errors import http_error

    assert issubclass(HfHubHTTPError, http_error())
    assert http_error().__module__.partition(".")[0] in ("httpx", "httpx2")


def release(module):
    return f"{module.__name__} {module.__version__}"


class WithoutStorage(torch.Tensor):
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was computed")


def test_tensors_without_storage_have_a_private_constructor():
    assert hasattr(torch.Tensor, "_make_wrapper_subclass"), (
        f"{release(torch)} has no Tensor._make_wrapper_subclass: change compat.make_wrapper")
    made = compat.make_wrapper(WithoutStorage, (2, 3), torch.float32, torch.device("cpu"))
    assert (type(made), made.shape, made.dtype) == (WithoutStorage, (2, 3), torch.float32)


def test_tensors_count_their_changes_in_a_private_attribute():
    tensor = torch.zeros(2)
    assert hasattr(tensor, "_version"), f"{release(torch)} has no Tensor._version: change compat.tensor_version"
    before = compat.tensor_version(tensor)
    tensor.add_(1)
    assert compat.tensor_version(tensor) == before + 1, f"{release(torch)} counts changes in another way"


def test_families_that_overflow_in_fp16_are_marked_by_a_private_attribute():
    model = transformers.T5PreTrainedModel
    assert getattr(model, "_keep_in_fp32_modules", None), (
        f"{release(transformers)} does not mark T5 in _keep_in_fp32_modules: change compat.fp16_overflow_reason")


def test_decoders_of_bart_find_the_embedding_that_a_whole_checkpoint_shares(tmp_path):
    from transformers import AutoModelForCausalLM, BartConfig, BartForConditionalGeneration

    config = BartConfig(vocab_size=16, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                        encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=16)
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert compat.mismatched_prefix(model, report) == ("model.shared.", "model.decoder.embed_tokens.")
