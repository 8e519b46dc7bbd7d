"""Optimizers: by name, parameter groups, the guarded update, and state that comes back to the bit, matched by name."""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from transformers.optimization import Adafactor

from whisper_ft.config.training import OptimConfig
from whisper_ft.runtime.errors import ResumeError, UsageError

Named = Mapping[str, torch.nn.Parameter]

NUMBERS: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""How a plain number in an optimizer's state is kept among tensors: without dimensions, and with every bit."""


def build_optimizer(parameters: Named, settings: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer `settings.name` over these parameters, each in the group of its weight decay and learning rate.

    Updates are computed by one kernel for all weights where there is one (`fused`). UsageError where bitsandbytes is
    asked for and cannot be loaded.
    """
    groups, lr, betas, eps = groups_of(parameters, settings), settings.lr, settings.betas, settings.eps
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, fused=True)
    optimizer: torch.optim.Optimizer  # what follows has no types
    if settings.name == "adafactor":
        # Not torch.optim.Adafactor: its updates are always relative to the size of the weights and never above
        # 1/sqrt(step), so that `lr` and the schedule would mean something else than for every other optimizer.
        optimizer = Adafactor(groups, lr=lr, scale_parameter=False, relative_step=False, warmup_init=False)
        return optimizer
    eight_bit = _bitsandbytes(settings.name).optim
    _keep_embeddings_in_32_bits(eight_bit.GlobalOptimManager.get_instance(), parameters)
    build = eight_bit.PagedAdamW8bit if settings.name == "paged_adamw_8bit" else eight_bit.AdamW8bit
    optimizer = build(groups, lr=lr, betas=betas, eps=eps)
    return optimizer


def groups_of(parameters: Named, settings: OptimConfig) -> list[dict[str, Any]]:
    """Parameter groups of one weight decay and one `lr_factor` each, the highest factor first."""
    factor_of = lr_factors(parameters, settings.layer_decay)
    members: dict[tuple[float, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        members[factor_of[name], decays(name, parameter)].append(parameter)
    return [
        {
            "params": members[factor, decay],
            "weight_decay": settings.weight_decay if decay else 0.0,
            "lr_factor": factor,
            "lr": settings.lr * factor,
        }
        for factor, decay in sorted(members, reverse=True)
    ]


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """True for what weight decay is meant for: weights that multiply inputs, not norms, biases or positions."""
    return parameter.ndim > 1 and "embed_positions" not in name


def lr_factors(parameters: Named, layer_decay: float) -> dict[str, float]:
    """Factor of each parameter's learning rate: `layer_decay` to the number of layers above it in encoder or decoder.

    The top layer that is trained, and all that is in neither of the two or, as the final norms, above their layers,
    has 1. Convolutions, token embedding and positions lie below the first layer of L and have layer_decay ** L.
    """
    place: dict[str, tuple[str, int]] = {}
    for name in parameters:
        if found := re.search(r"\b(encoder|decoder)\.(?:layers\.(\d+)\.|conv|embed_)", name):
            place[name] = found[1], int(found[2]) + 1 if found[2] else 0
    layers = {side: max(layer for of, layer in place.values() if of == side) for side, _ in place.values()}
    return {
        name: layer_decay ** (layers[place[name][0]] - place[name][1]) if name in place else 1.0 for name in parameters
    }


def _bitsandbytes(wanted_by: str) -> Any:
    """The package, loaded only where it is used, for that takes seconds."""
    said = logging.getLogger("bitsandbytes")
    said.setLevel(logging.ERROR)  # it recommends a kernel for inference in 4 bits, of no use here
    try:
        import bitsandbytes
    except (ImportError, OSError, RuntimeError) as error:  # OSError: a library that it loads is not there
        raise UsageError(
            f"--optim.name {wanted_by}: bitsandbytes cannot be loaded ({' '.join(str(error).split())}); "
            "install it (pip install bitsandbytes), or choose adamw or adafactor"
        ) from error
    return bitsandbytes


def _keep_embeddings_in_32_bits(manager: Any, parameters: Named) -> None:
    """What bitsandbytes advises: the gradients of embeddings are too uneven for 8 bits.

    It knows parameters by `id`, and that of one that is gone may be the `id` of another: so they are all told anew.
    """
    for parameter in parameters.values():
        manager.pid2config.pop(id(parameter), None)
    embeddings = [parameter for name, parameter in parameters.items() if "embed_" in name]
    manager.override_config(embeddings, "optim_bits", 32)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the coming update; each group has its own share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def complete_gradients(parameters: Named) -> None:
    """Zero for what took no part in a step: with layerdrop, a layer that every micro-batch passed by.

    Without, an optimizer would leave its moments as they are, and one that never took part would have no state.
    """
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def apply_update(optimizer: torch.optim.Optimizer, grad_norm: torch.Tensor) -> bool:
    """Update the weights unless the gradient is not finite; True if it did.

    Judged by the norm, which is the same on all ranks after the all-reduce. One NaN let through makes every weight NaN.
    """
    finite = bool(torch.isfinite(grad_norm))
    if finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return finite


def keeps_state(saved: Mapping[str, Any], now: OptimConfig) -> bool:
    """True if what was kept under the saved settings (`optim` of a checkpoint's config) is what is kept under these.

    Otherwise the run goes on with empty moments. Whether they are paged makes no difference to what they are.
    """

    def kind(name: str, momentum: float) -> tuple[str, bool]:
        return name.removeprefix("paged_"), name == "sgd" and momentum > 0

    return kind(saved["name"], saved.get("momentum", now.momentum)) == kind(now.name, now.momentum)


def state_tensors(optimizer: torch.optim.Optimizer, parameters: Named) -> dict[str, torch.Tensor]:
    """The optimizer's state as `parameter name/state name` -> tensor, in the memory the optimizer uses.

    Numbers become tensors without dimensions. What several parameters share (the maps from 8 bits to values) is copied
    for each of them: safetensors refuses memory that has two names.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=NUMBERS[type(value)])
            tensors[f"{name}/{key}"] = tensor.clone() if tensor.data_ptr() in seen else tensor
            seen.add(tensor.data_ptr())
    return tensors


def load_state_tensors(
    optimizer: torch.optim.Optimizer, parameters: Named, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Take back what `state_tensors` gave. Learning rates, decays and the like stay as configured now.

    torch's own `load_state_dict` matches by position, checks neither names, shapes nor types, takes the saved rates and
    makes paged memory plain, so it is not used. Nothing saved is an optimizer before its first update. ResumeError.
    """
    saved: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise ResumeError(f"the optimizer state has {name}, which this model does not train")
        saved[name][key] = tensor
    optimizer.state.clear()
    if not saved:
        return
    names = {id(parameter): name for name, parameter in parameters.items()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            state = _first_state(optimizer, group, parameter)
            _fill(state, saved[name], name)


def _first_state(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], parameter: torch.nn.Parameter
) -> dict[str, Any]:
    """The state of a parameter after a first update, as the optimizer itself lays it out; weights stay as they are.

    Which keys there are, of what shape, type and kind of memory (paged, say), only the optimizer knows.
    """
    weights, groups = parameter.detach().clone(), optimizer.param_groups
    optimizer.param_groups = [{**group, "params": [parameter]}]
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.param_groups, parameter.grad = groups, None
    with torch.no_grad():
        parameter.copy_(weights)
    state: dict[str, Any] = optimizer.state.get(parameter, {})
    return state


def _fill(state: dict[str, Any], saved: Mapping[str, torch.Tensor], name: str) -> None:
    """Write saved values over those of a state. ResumeError if they are not the values of such a state."""
    if surplus := sorted(set(saved) - set(state)):
        raise _misfit(name, f"has {surplus[0]}, which this optimizer does not keep for it")
    if absent := sorted(set(state) - set(saved)):
        raise _misfit(name, f"lacks {absent[0]}, which this optimizer keeps for it")
    for key, mine in state.items():
        value, is_tensor = saved[key], isinstance(mine, torch.Tensor)
        shape, dtype = (mine.shape, mine.dtype) if is_tensor else (torch.Size(), NUMBERS[type(mine)])
        if value.shape != shape:
            raise _misfit(name, f"has {key} of shape {tuple(value.shape)}, this optimizer's is {tuple(shape)}")
        if value.dtype != dtype:
            raise _misfit(name, f"has {key} in {value.dtype}, this optimizer's is {dtype}")
        if is_tensor:
            mine.copy_(value)
        else:
            state[key] = value.item()


def _misfit(name: str, what: str) -> ResumeError:
    return ResumeError(
        f"the optimizer state of {name} {what}: it is of another optimizer, or of another version of its library; "
        "go on with that one, or start anew in another --run_dir"
    )
