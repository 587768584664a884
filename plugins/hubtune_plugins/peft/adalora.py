"""AdaLoRA: low-rank updates whose ranks are a budget, moved during training to where they matter."""

from dataclasses import dataclass

from hubtune import StepStrategy, hookimpl, option
from hubtune_plugins.peft.merging import Merged
from hubtune_plugins.peft.ranks import allocate, orthogonality, ranks_of, remember


@dataclass(frozen=True)
class AdaLoraOptions:
    start_rank: int = option(12, "rank of every update at the start")
    rank: int = option(8, "mean rank at the end")
    alpha: int = option(32, "scale of the updates")
    dropout: float = option(0.05, "dropout before the update")
    warmup: float = option(0.1, "share of the steps before the budget falls")
    settle: float = option(0.3, "share of the steps at the end in which ranks stay")
    orthogonality: float = option(0.5, "weight of the term that keeps an update's vectors orthogonal")
    targets: list[str] = option([], "only layers whose name ends in one of these; empty: all linear ones")


class AdaLora(Merged, StepStrategy):
    """Low-rank updates with a shared budget of ranks, with the head trained whole; published as plain weights."""

    name = "adalora"
    summary = "low-rank updates with ranks where they matter (AdaLoRA)"
    paper = "Zhang et al., Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, arXiv:2303.10512"
    Options = AdaLoraOptions
    defaults = {"train.learning_rate": 3e-3}

    def prepare(self, model, newly_initialized, task, plan):
        wrapped = super().prepare(model, newly_initialized, task, plan)
        remember(wrapped)
        self.adapter = wrapped.peft_config["default"]
        return wrapped

    def config(self, plan, **where):
        from peft import AdaLoraConfig

        options = self.options
        settle = min(max(1, round(options.settle * plan.steps)), plan.steps - 1)
        return AdaLoraConfig(
            init_r=options.start_rank, target_r=min(options.rank, options.start_rank), lora_alpha=options.alpha,
            lora_dropout=options.dropout, orth_reg_weight=options.orthogonality, total_step=plan.steps, tfinal=settle,
            tinit=min(round(options.warmup * plan.steps), plan.steps - settle - 1), **where,
        )

    def regularization(self, model):
        return self.adapter.orth_reg_weight * orthogonality(model)

    def after_step(self, model, step, steps):
        allocate(model, step)

    def state(self):
        return {"ranks": self.adapter.rank_pattern}

    def restore(self, state):
        self.adapter.rank_pattern = state["ranks"]

    def export(self, model):
        self.adapter.rank_pattern = ranks_of(model)  # of the weights published, which may be from before the last cut
        return super().export(model)


@hookimpl
def hubtune_strategies():
    return [AdaLora]
