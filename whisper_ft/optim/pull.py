"""Pull of the weights towards their start values: a proximal step after each update, apart from the gradient."""

from collections.abc import Mapping

import torch

StartWeights = Mapping[torch.nn.Parameter, torch.Tensor]
"""Value of each trained parameter at the start of the run, in the memory of its device."""


def copies_of(parameters: Mapping[str, torch.nn.Parameter]) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Return a copy of the present value of each parameter."""
    return {parameter: parameter.detach().clone() for parameter in parameters.values()}


@torch.no_grad()
def pull_back(optimizer: torch.optim.Optimizer, start: StartWeights, share: float, peak_lr: float) -> None:
    """Take back a share of the distance between the weights and their start values, in place.

    The share of a parameter group is `share` times its present learning rate, divided by the peak rate. So it follows
    the schedule and the decay over layers, and not the size of the rate. Algorithm 2 of Loshchilov and Hutter (2017,
    arXiv 1711.05101) has such a decay, with zero in place of the start values.
    """
    for group in optimizer.param_groups:
        parameters = group["params"]
        now = share * group["lr"] / peak_lr
        torch._foreach_lerp_(parameters, [start[parameter] for parameter in parameters], now)


@torch.no_grad()
def distance(start: StartWeights) -> float:
    """Return the Euclidean distance between the weights and their start values, over all weights together."""
    norms = [torch.linalg.vector_norm(parameter - first) for parameter, first in start.items()]
    return float(torch.linalg.vector_norm(torch.stack(norms)))
