"""AdaLoRA: low-rank updates whose ranks are a budget, moved during training to where they matter."""

from dataclasses import dataclass

from hubtune import hookimpl, option
from hubtune_peft.lora import Lora
from hubtune_peft.structure import merged

KEPT = ("exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator remembers of every weight, in dicts that no checkpoint sees: kept here in buffers."""


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


class AdaLora(Lora):
    """Low-rank updates with a shared budget of ranks, with the head trained whole; published as plain weights."""

    name = "adalora"
    summary = "low-rank updates with ranks where they matter (AdaLoRA)"
    paper = "Zhang et al., Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, arXiv:2303.10512"
    Options = AdaLoraOptions
    defaults = {"train.lr": 3e-3}

    def prepare(self, model, fresh, task, plan):
        import torch

        wrapped = super().prepare(model, fresh, task, plan)
        for _, parameter, owner, key in adapted(wrapped):
            for kind in KEPT:
                owner.register_buffer(f"{key}_{kind}", torch.zeros_like(parameter))
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

    def penalty(self, model):
        """Mean over all A and B of the Frobenius norm of A A' - I (B' B - I), weighted."""
        import torch

        total, count = 0.0, 0
        for _, parameter, _, key in adapted(model):
            if not key.endswith("E"):
                square = parameter @ parameter.T if key.endswith("A") else parameter.T @ parameter
                total = total + torch.linalg.norm(square - torch.eye(len(square)).to(square))
                count += 1
        return self.adapter.orth_reg_weight * total / count

    def after_step(self, model, step, steps):
        """Score every weight by its gradient and cut ranks to the budget, with memories in buffers."""
        import torch

        allocator = model.base_model.rankallocator
        known = list(adapted(model))
        for name, parameter, owner, key in known:
            if parameter.grad is None:  # a layer that this step did not use
                parameter.grad = torch.zeros_like(parameter)
            allocator.ipt[name] = parameter
            for kind in KEPT:
                getattr(allocator, kind)[name] = getattr(owner, f"{key}_{kind}")
        model.base_model.update_and_allocate(step)
        for name, _, owner, key in known:
            for kind in KEPT:
                if name in getattr(allocator, kind):
                    getattr(owner, f"{key}_{kind}").copy_(getattr(allocator, kind)[name])

    def state(self):
        return {"ranks": self.adapter.rank_pattern}

    def restore(self, state):
        self.adapter.rank_pattern = state["ranks"]

    def export(self, model):
        """The ranks of the weights that are published, which may be from before the last cut."""
        self.adapter.rank_pattern = {name: (parameter != 0).view(-1).tolist() for name, parameter, _, key in adapted(model)
                                     if key.endswith("E")}
        return merged(model, self.head)


def adapted(model):
    """Every vector and matrix of the updates: PEFT's name, the parameter, its layer, and a key such as `own_A`."""
    inner = model.base_model.model
    for name, parameter in inner.named_parameters():
        if "lora_" in name and ".default" in name:
            place, _, rest = name.rpartition(".lora_")
            yield name, parameter, inner.get_submodule(place), f"importance_{rest.partition('.')[0]}"


@hookimpl
def hubtune_strategies():
    return [AdaLora]
