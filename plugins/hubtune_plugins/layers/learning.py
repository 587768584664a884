"""Which parameters of a model learn."""


def learn(model, names):
    """Let the parameters of these names learn, and no others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name in names and parameter.is_floating_point()


def owned(model, name):
    """The full names of the parameters in a submodule."""
    return [f"{name}.{inner}" for inner, _ in model.get_submodule(name).named_parameters()]
