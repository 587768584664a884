"""Learning rates that differ within a model."""


def rated(groups, model, rate_of):
    """Parameter groups split by learning rate; rate_of: what multiplies the run's, by the full name of a parameter."""
    rates = {id(parameter): rate_of(name) for name, parameter in model.named_parameters()}
    split = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            split.setdefault((index, rates[id(parameter)]), []).append(parameter)
    return [{**groups[index], "params": part, "rate": rate} for (index, rate), part in sorted(split.items(), key=first)]


def first(item):
    """What a pair begins with, to sort by."""
    return item[0]
