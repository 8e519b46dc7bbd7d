"""Optimizers: building one by name, parameter groups, updates that skip a bad gradient, and state by parameter name."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from whisper_ft.config.optimization import OptimConfig
from whisper_ft.runtime.bitsandbytes_package import import_bitsandbytes, quiet_bitsandbytes
from whisper_ft.runtime.errors import ResumeError

NamedParameters = Mapping[str, torch.nn.Parameter]

NUMBERS: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}
"""Type of the 0-dimensional tensor that stores a Python number of an optimizer's state without loss."""


def build_optimizer(parameters: NamedParameters, settings: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer `settings.name`, with parameters grouped by weight decay and learning rate.

    AdamW and SGD update all weights with one kernel (`fused`). Raises UsageError if bitsandbytes is needed and cannot
    be loaded.
    """
    groups, lr, betas, eps = groups_of(parameters, settings), settings.peak_lr, settings.betas, settings.eps
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, fused=True)
    optimizer: torch.optim.Optimizer  # the classes below have no types
    if settings.name == "adafactor":
        with quiet_bitsandbytes():
            from transformers.optimization import Adafactor  # imports peft and bitsandbytes, where they are installed

        # torch.optim.Adafactor scales updates by the size of the weights and bounds them by 1/sqrt(step). `lr` and the
        # schedule would then not mean the same as for the other optimizers.
        optimizer = Adafactor(groups, lr=lr, scale_parameter=False, relative_step=False, warmup_init=False)
        return optimizer
    eight_bit = import_bitsandbytes(f"--optim.name {settings.name}", "choose adamw or adafactor").optim
    _keep_embeddings_in_32_bits(eight_bit.GlobalOptimManager.get_instance(), parameters)
    build = eight_bit.PagedAdamW8bit if settings.name == "paged_adamw_8bit" else eight_bit.AdamW8bit
    optimizer = build(groups, lr=lr, betas=betas, eps=eps)
    return optimizer


def groups_of(parameters: NamedParameters, settings: OptimConfig) -> list[dict[str, Any]]:
    """Build the parameter groups, each with one weight decay and one `lr_factor`; the highest factor comes first.

    Within a factor, the group with weight decay comes first. Combinations without parameters have no group.
    """
    factor_of = lr_factors(parameters, settings.layer_decay)
    members: dict[tuple[float, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        members[factor_of[name], decays(name, parameter)].append(parameter)
    return [
        {
            "params": members[factor, decay],
            "weight_decay": settings.weight_decay if decay else 0.0,
            "lr_factor": factor,
            "lr": settings.peak_lr * factor,
        }
        for factor, decay in sorted(members, reverse=True)
    ]


def decays(name: str, parameter: torch.nn.Parameter) -> bool:
    """True for a weight that multiplies inputs. Norms, biases and positions have no weight decay."""
    return parameter.ndim > 1 and "embed_positions" not in name


def lr_factors(parameters: NamedParameters, layer_decay: float) -> dict[str, float]:
    """Factor of the learning rate of each parameter, by name.

    The factor is `layer_decay` to the power of the number of layers above the parameter, in encoder or decoder. It is 1
    for the top layer that is trained, the final norms, and all parameters outside encoder and decoder. Convolutions,
    token embedding and positions are below the first of L layers and have layer_decay ** L.
    """
    place: dict[str, tuple[str, int]] = {}
    for name in parameters:
        if match := re.search(r"\b(encoder|decoder)\.(?:layers\.(\d+)\.|conv|embed_)", name):
            place[name] = match[1], int(match[2]) + 1 if match[2] else 0
    layers = {side: max(layer for of, layer in place.values() if of == side) for side, _ in place.values()}
    return {
        name: layer_decay ** (layers[place[name][0]] - place[name][1]) if name in place else 1.0 for name in parameters
    }


def _keep_embeddings_in_32_bits(manager: Any, parameters: NamedParameters) -> None:
    """Exclude embeddings from 8-bit state, as bitsandbytes advises, because their gradients are too uneven.

    bitsandbytes knows parameters by `id`, and a new parameter may have the `id` of a deleted one. So the entries of all
    parameters are removed first. `manager` is the GlobalOptimManager of bitsandbytes.
    """
    for parameter in parameters.values():
        manager.pid2config.pop(id(parameter), None)
    embeddings = [parameter for name, parameter in parameters.items() if "embed_" in name]
    manager.override_config(embeddings, "optim_bits", 32)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next update; each group multiplies it by its `lr_factor`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def complete_gradients(parameters: NamedParameters) -> None:
    """Set a zero gradient for each parameter that has none, for example because layerdrop always skipped its layer.

    An optimizer skips a parameter without a gradient. The moments of that parameter would not decay, and a parameter
    that was never used would have no state.
    """
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def apply_update(optimizer: torch.optim.Optimizer, grad_norm: torch.Tensor) -> bool:
    """Update the weights if the gradient is finite, and clear the gradients. Returns True if the weights changed.

    `grad_norm` is the same on all ranks after the all-reduce, so all ranks decide alike. One NaN would make every
    weight NaN.
    """
    finite = bool(torch.isfinite(grad_norm))
    if finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return finite


def keeps_state(saved: Mapping[str, Any], now: OptimConfig) -> bool:
    """True if the optimizer state of a checkpoint fits the optimizer that is set now.

    `saved` is `optim` of the checkpoint's config. If the state does not fit, the run continues with empty moments.
    Paged and unpaged optimizers have the same state.
    """

    def kind(name: str, momentum: float) -> tuple[str, bool]:
        return name.removeprefix("paged_"), name == "sgd" and momentum > 0

    return kind(saved["name"], saved.get("momentum", now.momentum)) == kind(now.name, now.momentum)


def state_tensors(optimizer: torch.optim.Optimizer, parameters: NamedParameters) -> dict[str, torch.Tensor]:
    """Return the optimizer's state as `parameter name/state name` -> tensor.

    Tensors are not copied, so they change with the next update. A tensor that several parameters share (a map from 8
    bits to values) is copied for each parameter after the first, because safetensors refuses two names for one memory.
    Numbers become tensors without dimensions.
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
    optimizer: torch.optim.Optimizer, parameters: NamedParameters, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Load the tensors of `state_tensors`. Learning rates, decays and other settings stay as configured now.

    torch's own `load_state_dict` is not used. It matches parameters by position, and checks neither names, shapes nor
    types. It also restores the saved learning rates, and turns paged memory into plain memory.

    An empty mapping stands for the state before the first update. Raises ResumeError if the tensors are not those of
    this optimizer and these parameters.
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
    """Return the state that a parameter has after a first update. The weights are restored afterwards.

    The update is made by the optimizer, because it alone knows the keys, shapes, types and kind of memory (such as
    paged) of its state.
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
    """Copy saved values into a state. Raises ResumeError if keys, shapes or types differ."""
    if surplus := sorted(set(saved) - set(state)):
        raise _misfit(name, f"has {surplus[0]}, which this optimizer does not keep for it")
    if absent := sorted(set(state) - set(saved)):
        raise _misfit(name, f"lacks {absent[0]}, which this optimizer keeps for it")
    for key, current in state.items():
        value, is_tensor = saved[key], isinstance(current, torch.Tensor)
        shape, dtype = (current.shape, current.dtype) if is_tensor else (torch.Size(), NUMBERS[type(current)])
        if value.shape != shape:
            raise _misfit(name, f"has {key} of shape {tuple(value.shape)}, this optimizer's is {tuple(shape)}")
        if value.dtype != dtype:
            raise _misfit(name, f"has {key} in {value.dtype}, this optimizer's is {dtype}")
        if is_tensor:
            current.copy_(value)
        else:
            state[key] = value.item()


def _misfit(name: str, problem: str) -> ResumeError:
    return ResumeError(
        f"the optimizer state of {name} {problem}; it was saved by another optimizer, or by another version; "
        "continue with that one, or start a new run in another --run_dir"
    )
