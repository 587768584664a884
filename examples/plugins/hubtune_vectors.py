"""A strategy in one file: the vectors of a model learn, and its head; the matrices stay as they are."""

from dataclasses import dataclass

from hubtune import Strategy, hookimpl, option


@dataclass(frozen=True)
class VectorsOptions:
    norms: bool = option(True, "the scales of normalisation layers learn, too")


class Vectors(Strategy[VectorsOptions]):
    """Biases and the scales of norms learn, and the head: about one weight in a thousand."""

    contract = 2
    name = "vectors"
    summary = "only biases, norms and the head learn (after BitFit)"
    paper = "Ben Zaken et al., BitFit, arXiv:2106.10199"
    Options = VectorsOptions
    defaults = {"train.learning_rate": 1e-3}

    def prepare(self, model, newly_initialized, task, plan):
        for name, parameter in model.named_parameters():
            vector = name.endswith("bias") or (self.options.norms and parameter.ndim == 1)
            parameter.requires_grad = vector or name in newly_initialized
        return model


@hookimpl
def hubtune_strategies():
    return [Vectors]
