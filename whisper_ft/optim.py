"""Optimizers: parameter groups, the guarded update, and state that comes back to the bit, matched by name."""

from collections.abc import Mapping
from typing import Any

import torch

from whisper_ft import config
from whisper_ft.failure import ResumeError

Named = Mapping[str, torch.nn.Parameter]


def build_optimizer(parameters: Named, settings: config.Optim) -> torch.optim.Optimizer:
    """AdamW over two groups: matrices, which decay, and norms, biases and positions, which do not."""
    groups = [
        {"params": [p for name, p in parameters.items() if decays(name, p)], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in parameters.items() if not decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """True for what weight decay is meant for: weights that multiply inputs, not norms, biases or positions."""
    return parameter.ndim > 1 and "embed_positions" not in name


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the coming update."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def apply_update(optimizer: torch.optim.Optimizer, grad_norm: torch.Tensor) -> bool:
    """Update the weights unless the gradient is not finite; True if it did.

    Judged by the norm, which is the same on all ranks after the all-reduce. One NaN let through makes every weight NaN.
    """
    finite = bool(torch.isfinite(grad_norm))
    if finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return finite


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Named) -> dict[str, torch.Tensor]:
    """The optimizer's state as `parameter name/state name` -> tensor, in the memory the optimizer uses."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Named, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Take back what `state_tensors` gave. Learning rates, decays and the like stay as configured now.

    torch's own `load_state_dict` matches by position and checks no shape, so that is done here. ResumeError.
    """
    state: dict[str, dict[str, Any]] = {}
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise ResumeError(f"the optimizer state has {name}, which this model does not train")
        if tensor.ndim and tensor.shape != parameters[name].shape:
            shapes = f"{tuple(tensor.shape)}, the model has {tuple(parameters[name].shape)}"
            raise ResumeError(f"the optimizer state of {name} has shape {shapes}")
        state.setdefault(name, {})[key] = tensor
    if state and (absent := set(parameters) - set(state)):
        raise ResumeError(f"the optimizer state lacks {sorted(absent)[0]} and {len(absent) - 1} more parameters")
    names = {id(parameter): name for name, parameter in parameters.items()}
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {i: state[name] for i, name in enumerate(ordered) if name in state}, "param_groups": groups}
    )
