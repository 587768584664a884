"""Shared by strategies that train a new head by itself: tasks without one, and models without one, are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune import ModelError, Plan, Strategy, Task

if TYPE_CHECKING:
    from torch.nn import Module

OWN_HEAD = ("", "ForCausalLM", "ForImageTextToText", "ForMaskedLM", "ForMultimodalLM", "ForPreTraining", "ForSeq2SeqLM",
            "ForSpeechSeq2Seq")
"""The kinds of transformers model that have no head, or one that was pretrained with the rest."""


class HeadFirst(Strategy[Any]):
    """A method that begins with the new head alone. `newly_initialized` holds the names of the head's parameters."""

    contract = 2

    def refuse(self, task: Task[Any], config: Any) -> str | None:
        if task.model.removeprefix("AutoModel") not in OWN_HEAD:
            return None
        return f"the task '{task.name}' tunes a pretrained model as it is, and there is no new head to train by itself."

    def prepare(
        self, model: Module, newly_initialized: frozenset[str], task: Task[Any], plan: Plan
    ) -> Module:
        if not newly_initialized:
            raise ModelError("all of its weights were pretrained: there is no new head to train by itself.",
                             hint="Tune it whole: --strategy full")
        self.newly_initialized = newly_initialized
        return super().prepare(model, newly_initialized, task, plan)
