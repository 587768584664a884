"""What the methods share whose updates are merged into the model's own weights when it is published."""

import contextlib
import copy
import warnings

from hubtune import Export, Strategy
from hubtune_plugins.peft.structure import Head, convolutions, linear_layers, transposed


class Merged(Strategy):
    """A method that wraps linear layers, with the head trained whole; published as plain weights."""

    contract = 2
    requires = ("peft",)
    extra = "hubtune[peft]"

    def config(self, plan, **where):
        """PEFT's configuration of the method; `where`: what it wraps and saves."""
        raise NotImplementedError

    def where(self, layers):
        """What is wrapped and saved, as arguments of PEFT's configuration. layers: those to adapt, by full name."""
        return {"target_modules": list(layers), "fan_in_fan_out": transposed(layers),
                "modules_to_save": self.head.modules or None}

    def prepare(self, model, newly_initialized, task, plan):
        self.head = Head(model, newly_initialized)
        layers = linear_layers(model, self.head, self.options.targets)
        return wrap(model, self.config(plan, **self.where(layers)), self.head)

    def export(self, model):
        return merged(model, self.head)


def wrap(model, config, head):
    """The model with PEFT's layers around its own, and the head learning."""
    from peft import get_peft_model

    quiet()
    with contextlib.nullcontext() if keeps_names(model, config) else nameless(model):
        wrapped = get_peft_model(model, config)
    for layer in convolutions(wrapped):  # which some models ask for their shape, to pad by it
        for name in ("stride", "kernel_size", "dilation", "padding"):
            setattr(layer, name, getattr(layer.base_layer, name))
    head.learn()
    return wrapped


def keeps_names(model, config):
    """Whether PEFT takes the layers that are named for what they are. In some mixtures of experts it takes `gate_proj` for a
    name of transformers 4, and wraps the experts' joined weights in the place of that layer."""
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # a PEFT that leaves all names alone
        return True
    found = copy.deepcopy(config)
    try:
        convert_peft_config_for_transformers(found, model, None)
    except ValueError:  # it would need other layers as well
        return False
    return set(found.target_modules) == set(config.target_modules)


@contextlib.contextmanager
def nameless(model):
    """A model of no type that PEFT knows, for a while."""
    model.config.model_type = ""
    try:
        yield
    finally:
        del model.config.model_type


def quiet():
    """PEFT asks transformers for an attribute by its old name: nothing that a user could mend."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def merged(model, head):
    """The trained model with the updates in its weights; beside it the adapter, where PEFT alone can load it."""
    tied = getattr(model.config, "tie_word_embeddings", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about ranks of zero and ties, which are as they should be
        alone = not head.bare and not convolutions(model) and keeps_names(model, model.peft_config["default"])
        beside = {"adapter": Adapter(model)} if alone else {}  # the merge leaves nothing of it
        root = model.merge_and_unload()
    if tied is not None:
        root.config.tie_word_embeddings = tied  # PEFT unties decoders whose input is not the encoder's
    return Export(root=root, beside=beside)


class Adapter:
    """What was learnt alone, in PEFT's format, for those who load the base model themselves."""

    def __init__(self, model):
        from peft import get_peft_model_state_dict

        self.config = model.peft_config["default"]
        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        self.tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    def save_pretrained(self, folder):
        from safetensors.torch import save_file

        self.config.inference_mode = True
        self.config.save_pretrained(folder)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
