"""AdaLoRA's budget of ranks, by PEFT's allocator: what it remembers of every weight is kept where checkpoints see it."""

KEPT = ("exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator remembers of every weight, in dicts that no checkpoint sees: kept here in buffers."""


def adapted(model):
    """Every vector and matrix of the updates: PEFT's name, the parameter, its layer, and a key such as `importance_A`."""
    inner = model.base_model.model
    for name, parameter in inner.named_parameters():
        if "lora_" in name and ".default" in name:
            place, _, rest = name.rpartition(".lora_")
            yield name, parameter, inner.get_submodule(place), f"importance_{rest.partition('.')[0]}"


def remember(model):
    """Give every layer the buffers for what the allocator remembers, at zero."""
    import torch

    for _, parameter, owner, key in adapted(model):
        for kind in KEPT:
            owner.register_buffer(f"{key}_{kind}", torch.zeros_like(parameter))


def allocate(model, step):
    """Score every weight by its gradient and cut ranks to the budget of a step, with memories in buffers."""
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


def orthogonality(model):
    """How far an update's vectors are from orthogonal: the mean over all A and B of the Frobenius norm of A A' - I
    (B' B - I)."""
    import torch

    total, count = 0.0, 0
    for _, parameter, _, key in adapted(model):
        if not key.endswith("E"):
            square = parameter @ parameter.T if key.endswith("A") else parameter.T @ parameter
            total = total + torch.linalg.norm(square - torch.eye(len(square)).to(square))
            count += 1
    return total / count


def ranks_of(model):
    """Which ranks of every update are in use, as PEFT's configuration says it: {name of its vector E: [bool]}."""
    return {name: (parameter != 0).view(-1).tolist() for name, parameter, _, key in adapted(model) if key.endswith("E")}
