"""The base of the methods that adapt layers: which ones, how they are wrapped, merged and
published."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hubtune import Base, Export, ModelError, Plan, Strategy, Task
from hubtune_plugins.peft.layer_trial import (
    FAULTS,
    first_line,
    merge_refusal,
    silence_deprecations,
    try_layers,
    without_weights,
)
from hubtune_plugins.peft.methods import config_class, fields_of
from hubtune_plugins.peft.prompts import adapter_usage
from hubtune_plugins.peft.structure import (
    Head,
    are_transposed,
    convolutions,
    embeddings,
    linear_layers,
    norms,
)

if TYPE_CHECKING:
    from torch.nn import Module

FINDERS = {"ln_tuning": norms, "trainable_tokens": embeddings}
"""Functions that find the layers to adapt, of methods for others than the linear ones."""
OWN_TARGETS = {"adaption_prompt", "shadow"}
"""Methods that adapt whole blocks, which PEFT finds by itself where `targets` names none."""
UNFIT = {"xlora": "it mixes adapters that are trained already, and learns none"}
"""Methods that cannot be trained here for a reason that PEFT does not give."""


class LayerMethod(Strategy[Any]):
    """Base of methods that adapt layers, with the head trained whole; published merged where PEFT
    can merge."""

    contract = 2
    requires: ClassVar[tuple[str, ...]] = ("peft",)
    extra = "hubtune[peft]"
    method: ClassVar[str]
    """PEFT's name of the method."""
    head: Head
    moved_weights: bool = False
    """True where the start moved parts of pretrained weights into the adapter, which then does not
    fit the base."""

    def settings(self) -> dict[str, Any]:
        """Return the user's options as arguments of PEFT's configuration."""
        raise NotImplementedError

    def derived_settings(self, config: Any, plan: Plan) -> dict[str, Any]:
        """Return arguments of PEFT's configuration that follow from the model's configuration or
        the run."""
        if self.method == "adaption_prompt":
            return {"adapter_len": 10, "adapter_layers": config.get_text_config().num_hidden_layers}
        return {}

    def target_settings(self, layers: Mapping[str, Module]) -> dict[str, Any]:
        """Return arguments of PEFT's configuration that say what is adapted.

        layers: by full name.
        """
        return {"target_modules": list(layers) or self.options.targets or None,
                "fan_in_fan_out": are_transposed(layers)}

    def config(
        self, model: Module, plan: Plan, layers: Mapping[str, Module], head: Head | None = None
    ) -> Any:
        """Make PEFT's configuration of the method for some layers and a head."""
        saved = {"modules_to_save": head.modules or None} if head else {}
        every = {
            "progressbar": False,
            **self.target_settings(layers),
            **self.derived_settings(model.config, plan),
            **saved,
            **self.settings(),
        }
        known = fields_of(self.method)
        return config_class(self.method)(
            **{name: value for name, value in every.items() if name in known}
        )

    def trial_config(self, model: Module, plan: Plan, layers: Mapping[str, Module]) -> Any:
        """Make PEFT's configuration to try layers with."""
        return self.config(model, plan, layers)

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        if self.method in UNFIT:
            return f"PEFT's {self.method} has nothing to train: {UNFIT[self.method]}."
        try:
            config_class(self.method)(
                **{**self.derived_settings(config, Plan(10, 1.0, 8)), **self.settings()}
            )
        except FAULTS as error:
            return f"PEFT refuses these options of {self.method}: {first_line(error)}"
        return None

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        self.head = Head(
            model, newly_initialized, whole="modules_to_save" in fields_of(self.method)
        )
        layers = {} if self.method in OWN_TARGETS else self.layers(model)
        named = keeps_names(model, self.config(model, plan, layers)) if layers else True
        with contextlib.nullcontext() if named else without_model_type(model):
            taken = self.find_targets(model, plan, layers) if layers else {}
            before = {name: fingerprint(layer) for name, layer in taken.items()}
            config = self.config(model, plan, taken, self.head)
            wrapped: Module = self.wrap(model, config, task, plan)
        self.moved_weights = any(
            fingerprint(layer) != before[name] for name, layer in taken.items()
        )
        if not layers:
            self.try_blocks(wrapped, task, plan)
        return wrapped

    def layers(self, model: Module) -> dict[str, Module]:
        """Find the layers to adapt, by full name."""
        if self.method in FINDERS:
            return FINDERS[self.method](model, self.head, self.options.targets)
        towers = getattr(self.options, "towers", "language")
        return linear_layers(model, self.head, self.options.targets, towers)

    def find_targets(
        self, model: Module, plan: Plan, layers: dict[str, Module]
    ) -> dict[str, Module]:
        """Find the layers that PEFT takes, by trying one of each kind."""
        trial = try_layers(model, layers, lambda some: self.trial_config(model, plan, some))
        if not trial.taken:
            name, said = next(iter(trial.refused.items()))
            raise ModelError(
                f"PEFT's {self.method} takes none of its layers; of {name} it says: {said}",
                hint="Set the option that it names, or use another strategy: --strategy lora",
            )
        if trial.unmerged:
            self.publish_adapter(model, trial.unmerged)
        return trial.taken

    def try_blocks(self, wrapped: Any, task: Task[Any], plan: Plan) -> None:
        """Refuse a model whose blocks PEFT has adapted but cannot run, and find out how to publish
        it."""
        import torch

        try:
            with torch.no_grad():
                for batch in itertools.islice(plan.batches(), 1):
                    task.forward(wrapped.eval(), batch)
        except torch.OutOfMemoryError:
            raise
        except FAULTS as error:
            raise ModelError(
                f"PEFT's {self.method} cannot run blocks of this architecture: {first_line(error)}",
                hint="Use another strategy: --strategy lora",
            ) from error
        unmerged = merge_refusal(without_weights(wrapped))
        if unmerged:
            self.publish_adapter(wrapped, unmerged)

    def publish_adapter(self, model: Module, unmerged: str) -> None:
        """Publish an adapter instead of merged weights, or refuse weights that PEFT's format cannot
        hold."""
        if has_own_head(model):
            raise ModelError(
                f"its adapter cannot be merged ({unmerged}), and PEFT loads no adapter over a head of hubtune's.",
                hint="Use a method that is merged: --strategy lora")
        self.loads_with = "peft"  # type: ignore[misc]  # of this run, whatever the class says
        if self.head.bare:
            raise ModelError(
                f"its adapter cannot be merged ({unmerged}), and PEFT's format cannot hold the new "
                "weights "
                f"{', '.join(self.head.bare[:3])}.",
                hint="Use a method that is merged: --strategy lora",
            )

    def wrap(self, model: Module, config: Any, task: Task[Any], plan: Plan) -> Any:
        """Put PEFT's layers around the model's own, and make the head trainable."""
        from peft import get_peft_model

        silence_deprecations()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", UserWarning
                )  # about kinds of layers, which were tried
                wrapped = get_peft_model(model, config)
        except FAULTS as error:
            raise ModelError(f"PEFT's {self.method} cannot adapt it: {first_line(error)}",
                             hint="Use another strategy: --strategy lora") from error
        for layer in convolutions(wrapped):  # which some models ask for their shape, to pad by it
            for name in ("stride", "kernel_size", "dilation", "padding"):
                setattr(layer, name, getattr(layer.base_layer, name))
        self.head.learn()
        return wrapped

    def export(self, model: Any) -> Export:
        if self.loads_with == "peft":
            model.peft_config["default"].modules_to_save = self.head.modules or None
            # Embeddings stay as they are; asked to look for them, PEFT fails at models that have
            # none.
            model.save_pretrained = functools.partial(
                model.save_pretrained, save_embedding_layers=False
            )
            return Export(root=model, loads_with="peft")
        return merge(model, self.head, beside=not self.moved_weights)

    def usage(self, task: Task[Any], repo: str, base: Base) -> str:
        return (
            adapter_usage(task, repo, base)
            if self.loads_with == "peft"
            else super().usage(task, repo, base)
        )


def has_own_head(model: Any) -> bool:
    """Return whether a model's head is hubtune's own, over which nobody else loads an adapter."""
    return type(model.config).__name__ == "HubtuneHeadConfig"


def fingerprint(layer: Module) -> tuple[float, ...]:
    """Sum the values of each of a layer's own parameters, adapters left out."""
    layer = getattr(layer, "base_layer", layer)
    return tuple(
        float(parameter.detach().double().sum()) for parameter in layer.parameters(recurse=False)
    )


def keeps_names(model: Module, config: Any) -> bool:
    """Return whether PEFT adapts the layers of these names.

    In some mixtures of experts it takes `gate_proj` for a name of transformers 4, and adapts the
    experts' joined weights in the place of that layer.
    """
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # a PEFT that leaves all names alone
        return True
    found = copy.deepcopy(config)
    try:
        convert_peft_config_for_transformers(found, model, None)
    except ValueError:  # it would need other layers as well
        return False
    return set(found.target_modules or ()) == set(config.target_modules or ())


@contextlib.contextmanager
def without_model_type(model: Any) -> Iterator[None]:
    """Hide the model's type from PEFT within a context."""
    model.config.model_type = ""
    try:
        yield
    finally:
        del model.config.model_type


def merge(model: Any, head: Head, beside: bool) -> Export:
    """Merge the adapter, and export it beside the model where PEFT alone can load it.

    Args:
        model: PEFT's model.
        head: The new parameters.
        beside: Whether the adapter fits the pretrained weights.
    """
    tied = getattr(model.config, "tie_word_embeddings", None)
    config = model.peft_config["default"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ranks of zero and ties, which are as they should be
        alone = beside and not head.bare and not convolutions(model) and keeps_names(model, config)
        alone = alone and not has_own_head(model)
        adapters = {"adapter": Adapter(model)} if alone else {}  # the merge leaves nothing of it
        root = unwrap(model.merge_and_unload())
    if tied is not None:
        root.config.tie_word_embeddings = (
            tied  # PEFT unties decoders whose input is not the encoder's
        )
    return Export(root=root, beside=adapters)


def unwrap(root: Module) -> Any:
    """Remove the wrappers that some methods leave around the head of a merged model."""
    from peft.utils import AuxiliaryTrainingWrapper

    for name, module in list(root.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            owner, _, last = name.rpartition(".")
            plain = module.unload_and_optionally_merge_module(
                merge=True, safe_merge=False, adapter_names=None
            )
            setattr(root.get_submodule(owner), last, plain)
    return root


class Adapter:
    """Adapter in PEFT's format, for those who load the base model themselves."""

    def __init__(self, model: Any) -> None:
        from peft import get_peft_model_state_dict

        self.config = model.peft_config["default"]
        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        self.tensors = {
            name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()
        }

    def save_pretrained(self, folder: Path) -> None:
        """Write the adapter's configuration and tensors into a folder."""
        from safetensors.torch import save_file

        self.config.inference_mode = True
        self.config.save_pretrained(folder)
        save_file(self.tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
