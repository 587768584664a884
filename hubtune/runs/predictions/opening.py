"""A tuned model of a run, a folder or the Hub: its files, its base, its weights and the code that may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, Strategy, Task, registry
from hubtune.contract.validation import checked
from hubtune.devices import memory
from hubtune.errors import ModelError, listing
from hubtune.hub.origin import Origin, fetch, locate, pinned_address
from hubtune.hub.trust import TrustCode, named_code, needs_no_code, with_code
from hubtune.models import configuration, loading, peft_adapters
from hubtune.models.foreign import model_errors
from hubtune.models.heads import publishing
from hubtune.recipe import PluginChoice
from hubtune.record import RECORD

if TYPE_CHECKING:
    from torch.nn import Module


class OpenedModel:
    """A tuned model; its weights are loaded when they are needed."""

    def __init__(
        self, origin: Origin, record: Mapping[str, Any], task: Task[Any], name: str,
        base: str | None = None, trust_code: TrustCode = None,
    ) -> None:
        """Describe a model; its weights are loaded when they are needed.

        Args:
            record: its `hubtune.json`; empty for a model that another tool has tuned.
            name: as the user gave it.
            base: folder or id of the base model, for an adapter over a local one.
            trust_code: `REPO@COMMIT` or the folder whose code may run.
        """
        self.trust_code = trust_code
        self.origin, self.task, self.name = origin, task, name
        self._record, self._base = record, base
        self._loaded: tuple[Module, Base] | None = None

    @property
    def decisions(self) -> Mapping[str, Any]:
        """Decisions that were fitted when the model was trained."""
        found = self._record.get("decisions")
        return found if isinstance(found, Mapping) else {}

    @property
    def model_record(self) -> Mapping[str, Any]:
        """The contents of `hubtune.json`; empty for a model that another tool has tuned."""
        return self._record

    def load_weights(self) -> tuple[Module, Base]:
        """Return the model and its base; weights are loaded at the first call."""
        if self._loaded is None:
            base = self.open_base()
            memory.resume_collection()
            model = self._load_module(base)
            limit = configuration.length_limit(base, model) if self.task.unit == "tokens" else None
            # A strategy may have taken some of the model's positions.
            limit = self._record.get("limit", limit)
            self._loaded = move_to_best_device(model), replace(base, max_length=limit)
        return self._loaded

    def open_base(self) -> Base:
        """Open configuration and processor, with the task's settings applied; without weights.

        `task` is the one for this model afterwards, where the task has several kinds of model.

        Raises:
            ModelError: the task has no model of this architecture.
        """
        self.check_code()
        base_origin = self.locate_base()
        self.task = configuration.task_for_model(self.origin, self.task, base_origin)
        base = configuration.open_base(self.origin, self.task, base_origin)
        reason = configuration.unsupported_reason(base.config, self.task)
        if reason:
            raise ModelError(f"the task '{self.task.name}' does not fit: {reason}.",
                             where=self.origin.repo)
        with model_errors(f"its {RECORD} does not fit the task '{self.task.name}'",
                          self.origin.repo, "Fetch the model again, or name the task with --task."):
            setup = self.task.model_config(self._record.get("facts", {}), base)
        base = configuration.apply_setup(base, checked(self.task, "model_config", setup))
        return replace(base, max_length=self._record.get("limit"))

    def locate_base(self) -> Origin | None:
        """Locate the base model of a PEFT adapter that loads over it; None for a whole model.

        Raises:
            ModelError: it was a local folder that is not known here, or it has changed.
        """
        if self._record.get("loads_with") != "peft":
            return None
        base = self._record["base"]
        if self._base is None and base["local"]:
            raise ModelError(
                "it is an adapter over a model that was a local folder "
                f"({base['repo']}, {base['commit'][:19]}).", where=self.origin.repo,
                hint="Name the run's folder, which knows where that is.",
            )
        origin = locate(self._base or pinned_address(base), None if base["local"] else base["commit"])
        if origin.commit != base["commit"]:
            raise ModelError(
                f"its base model is at {origin.commit[:19]}, and it was made for "
                f"{base['commit'][:19]}.", where=self.origin.repo,
                hint="Put the old files of the base model back.",
            )
        return origin

    def _load_module(self, base: Base) -> Module:
        """Load the model: a whole one, or an adapter over its base."""
        base_origin = self.locate_base()
        if base_origin is not None:
            model = loading.load(base_origin, base, self.task, Strategy(), seed=0).model
            files = [*self.origin.small, "adapter_model.safetensors"]
            return peft_adapters.attach_adapter(model, fetch(self.origin, files), self.origin.repo)
        loaded = loading.load(self.origin, base, self.task, Strategy(), seed=0)
        if loaded.missing:
            raise ModelError(
                f"it has not been tuned for '{self.task.name}': "
                f"{listing(sorted(loaded.missing), 4)} would be random.", where=self.origin.repo,
                hint=f"Tune it with: hubtune train {self.task.name} --model {self.origin.repo} "
                "--data SOURCE",
            )
        return loaded.model

    def needs_code(self) -> bool:
        """Return whether the model loads with the code beside its weights.

        Without a record of hubtune, a configuration that names code (`auto_map`) means it.
        """
        if needs_no_code(self.origin):
            return False
        if self._record:
            return bool(self._record.get("loads_with") == "code")
        return bool(named_code(self.origin))

    def check_code(self) -> None:
        """Let the code beside the weights run, if the model needs it.

        Raises:
            ModelError: it does, and the user did not name it (`trust_code`).
        """
        if self.needs_code():
            self.origin = self.trusted_origin()

    def trusted_origin(self) -> Origin:
        """Return the origin whose code may run. Raises ModelError unless the user trusts it."""
        return with_code(self.origin, self.trust_code)

    def check_code_of_proof(self) -> None:
        """As `check_code`, for a clean process: it runs the copy of our own code, if it is this version's."""
        if needs_no_code(self.origin) and not publishing.is_own_code(self.origin):
            self.trusted_origin()
        self.check_code()


def move_to_best_device(model: Module) -> Module:
    """Move a model to the device where it computes fastest."""
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def choose_task(origin: Origin, record: Mapping[str, Any], wanted: str | None) -> Task[Any]:
    """Return the task that a model was tuned for; without a record, the one of its architecture."""
    plugins = registry.load()
    if wanted:
        return plugins.task(PluginChoice(wanted))
    if choice := record.get("task"):
        options = choice.get("options", {})
        return plugins.task(PluginChoice(choice["name"], options), choice.get("plugin"))
    config = configuration.open_config(fetch(origin, origin.small), origin)
    by_fit = sorted(plugins.tasks.items(), key=lambda item: item[0] != item[1].pipeline_tag)
    for name, kind in by_fit:
        if configuration.matches_architecture(config, kind):
            return plugins.task(PluginChoice(name))
    architectures = listing(config.architectures or ["(none named)"])
    raise ModelError(
        f"no task fits its architecture {architectures}: it has not been tuned for one.",
        where=origin.repo,
        hint=f"See which it can be tuned for with: hubtune show {origin.repo}",
    )
