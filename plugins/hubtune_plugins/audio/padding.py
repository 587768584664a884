"""Models that hear a sound's padding, and are kept from it: a sound's answer is the same alone and beside longer ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def unpadded(model: Any, inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Inputs under which no sound feels the silence that it was padded with."""
    mask = inputs.get("attention_mask")
    with masked(model, mask):
        yield {**inputs, "attention_mask": whole_steps(model, mask)} if mask is not None else dict(inputs)


def whole_steps(model: Any, mask: Tensor) -> Any:
    """Shorten a mask of samples (sounds, samples) so that it covers the steps that no padding reaches.

    Moonshine takes every 384th value of it as the mask of its steps, which keeps one or two that reach into the padding.
    """
    import torch

    for part in model.modules():
        if mask.ndim == 2 and isinstance(getattr(part, "groupnorm", None), torch.nn.GroupNorm):
            convolutions = [part.conv1, part.conv2, part.conv3]
            lengths = mask.sum(1).long()
            for layer in convolutions:
                lengths = steps_of(layer, lengths)
            kept = lengths.clamp(min=1) * math.prod(layer.stride[0] for layer in convolutions)
            return (torch.arange(mask.shape[1], device=mask.device) < kept[:, None]).to(mask.dtype)
    return mask


def steps_of(convolution: Any, lengths: Tensor) -> Any:
    """Return the steps that a convolution makes of sequences of these lengths."""
    return (lengths + 2 * convolution.padding[0] - convolution.kernel_size[0]) // convolution.stride[0] + 1


@contextmanager
def masked(model: Any, mask: Any) -> Iterator[None]:
    """Layers that look along a whole sound, and would see its padding, do not.

    mask: (sounds, samples or steps), or None where no sound is padded.
    """
    hooks: list[Any] = []
    if mask is not None and not bool(mask.all()):
        lengths = mask.sum(1).long()
        for layer in model.modules():
            hooks += [*norm_hooks(layer, lengths), *convolution_hooks(layer, lengths)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def norm_hooks(layer: Any, lengths: Tensor) -> list[Any]:
    """Let a group norm over time, as in wav2vec 2.0 base and Moonshine, take mean and variance over a sound without its padding."""
    from torch.nn import GroupNorm

    pairs = ((getattr(layer, "layer_norm", None), getattr(layer, "conv", None)),
             (getattr(layer, "groupnorm", None), getattr(layer, "conv1", None)))
    return [norm.register_forward_hook(normaliser(steps_of(convolution, lengths), norm.num_groups == 1))
            for norm, convolution in pairs
            if isinstance(norm, GroupNorm) and norm.num_groups in (1, norm.num_channels) and convolution is not None]


def convolution_hooks(layer: Any, lengths: Tensor) -> list[Any]:
    """Let the later of convolutions in a row, as in Speech2Text, read zeros behind a sound, as they do where it stands alone."""
    from torch.nn import Conv1d, ModuleList

    row = getattr(layer, "conv_layers", None)
    if not isinstance(row, ModuleList) or not all(isinstance(part, Conv1d) for part in row):
        return []
    hooks = []
    for before, convolution in pairwise(row):
        lengths = steps_of(before, lengths)
        hooks.append(convolution.register_forward_pre_hook(zeroer(lengths)))
    return hooks


def zeroer(lengths: Tensor) -> Any:
    """Return a hook that sets (batch, channels, time) to zero behind the first `lengths` (batch,) of each row."""
    import torch

    def hook(layer: Any, arguments: Any) -> Any:
        x, *rest = arguments
        inside = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
        return (x * inside[:, None], *rest)

    return hook


def normaliser(steps: Tensor, together: bool) -> Any:
    """A hook that normalises (batch, channels, time) over the first `steps` (batch,) of each row alone.

    together: over all channels, else each channel by itself.
    """
    import torch

    axes = (1, 2) if together else (2,)

    def hook(norm: Any, arguments: Any, output: Any) -> Any:
        x = arguments[0].to(torch.promote_types(arguments[0].dtype, torch.float32))
        inside = (torch.arange(x.shape[-1], device=x.device) < steps[:, None])[:, None]
        count = steps[:, None, None] * (x.shape[1] if together else 1)
        x = x - (x * inside).sum(axes, keepdim=True) / count
        x = x * ((x.square() * inside).sum(axes, keepdim=True) / count + norm.eps).rsqrt()
        return (x * norm.weight[:, None] + norm.bias[:, None]).to(output.dtype)

    return hook
