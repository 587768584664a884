"""A transformers model with bottleneck adapters (Houlsby et al., arXiv:1902.00751; Pfeiffer et al., arXiv:2005.00247).

This file lies beside the weights of models that hubtune tuned, and needs nothing but torch and transformers.
`config.json` says under `hubtune_adapters` of which class the model is and which of its modules have an adapter.
"""


def insert(model, said):
    """Put an adapter behind each of the modules that `said["layers"]` names: h becomes h + up(act(down(h))).

    said: {"model": class, "layers": {module: [width, bottleneck]}, "nonlinearity": name, "dropout": probability}.
    The up projection begins at zero, so that the model begins as it was. Returns the adapters.
    """
    from torch import nn

    class WithAdapter(nn.Module):
        def __init__(self, layer, adapter):
            super().__init__()
            self.layer, self.adapter = layer, adapter

        def forward(self, *inputs, **named):
            out = self.layer(*inputs, **named)
            if isinstance(out, tuple):  # such as a mixture of experts with what its router chose
                return (out[0] + self.adapter(out[0]), *out[1:])
            return out + self.adapter(out)

        def __getattr__(self, name):  # what a model asks of its layer, such as the number format of its weight
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(self.layer, name)

    activation = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}[said["nonlinearity"]]
    layers = {name: model.get_submodule(name) for name in said["layers"]}
    made = {}
    for name, (width, bottleneck) in said["layers"].items():
        weight = next(layers[name].parameters())
        make = {"device": weight.device, "dtype": weight.dtype}
        if isinstance(layers[name], nn.Conv2d):
            down, up = nn.Conv2d(width, bottleneck, 1, **make), nn.Conv2d(bottleneck, width, 1, **make)
        else:
            down, up = nn.Linear(width, bottleneck, **make), nn.Linear(bottleneck, width, **make)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        parts = {"down": down, "activation": activation(), "dropout": nn.Dropout(said["dropout"]), "up": up}
        made[name] = nn.Sequential()
        for part, module in parts.items():
            made[name].add_module(part, module)
    wrapped = {id(layers[name]): WithAdapter(layers[name], adapter) for name, adapter in made.items()}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if id(child) in wrapped and not isinstance(parent, WithAdapter):
                setattr(parent, name, wrapped[id(child)])
    return made


class Adapted:
    """What `auto_map` names: the model's own class in transformers, with adapters put in before weights are read."""

    @classmethod
    def of(cls, config):
        """The class for a configuration."""
        import transformers

        said = config.hubtune_adapters
        known = getattr(transformers, said["model"])

        def begin(self, config, *inputs, **named):
            known.__init__(self, config, *inputs, **named)
            insert(self, said)

        return type(known.__name__, (known,), {"__init__": begin, "__module__": known.__module__})

    @classmethod
    def register_for_auto_class(cls, auto_class=None):
        """Asked by the `Auto` classes; there is nothing to note."""

    @classmethod
    def from_pretrained(cls, name, *inputs, config, **named):
        """The model with its weights, as `AutoModel....from_pretrained(..., trust_remote_code=True)` asks for it."""
        return cls.of(config).from_pretrained(name, *inputs, config=config, **named)

    @classmethod
    def _from_config(cls, config, **named):
        return cls.of(config)._from_config(config, **named)
