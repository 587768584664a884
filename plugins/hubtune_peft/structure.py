"""What in a model a PEFT method wraps and what it saves whole, told from the structure, not from names."""

from hubtune import ModelError


def saved_whole(model, fresh):
    """The modules that own the fresh parameters, none of them inside another: PEFT trains and saves them whole.

    PEFT itself knows heads by the names `classifier` and `score` only, and silently loses the others.
    """
    owners = sorted({name.rpartition(".")[0] for name in fresh} - {""})
    return [owner for owner in owners if not any(owner.startswith(f"{other}.") for other in owners)]


def linear_layers(model, head, endings):
    """The linear layers by full name, outside the head, routers and towers for other senses.

    endings: keep only names that end in one of these; empty: all.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    def outside(name):
        parts = name.split(".")
        aside = {"router", "gate", "vision_tower", "vision_model", "audio_tower"} & set(parts)
        return not aside and not any(name == module or name.startswith(f"{module}.") for module in head)

    layers = {n: part for n, part in model.named_modules() if isinstance(part, (Linear, Conv1D)) and outside(n)}
    chosen = {name: layer for name, layer in layers.items() if not endings or name.endswith(tuple(endings))}
    if not chosen:
        known = sorted({name.rpartition(".")[2] for name in layers})
        raise ModelError(
            f"no linear layer's name ends in {endings}." if endings else "it has no linear layers to put LoRA beside.",
            hint=f"Names there are: {', '.join(known)}. Set strategy.targets to some of them." if known else
            "Tune it whole: --strategy full",
        )
    return chosen
