"""Merge of the two passes of a decoder into one ONNX graph with an `If`, as transformers.js loads it."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

CACHE_SWITCH = "use_cache_branch"
"""Input (1,) bool: true for all passes but the first."""


def merge_decoders(first: Any, later: Any) -> Any:
    """Return a model that computes `later` if CACHE_SWITCH is true and `first` otherwise. Both are `onnx.ModelProto`.

    The weights, which both have, are stored once. After the first pass the caches of cross-attention are empty tensors:
    programs keep those of the first pass, because copying them each time would be slow.
    """
    from onnx import TensorProto, helper

    shared: dict[bytes, Any] = {}
    names = [value.name for value in first.graph.output]
    then_branch = _branch(later.graph, "later", shared, names)
    else_branch = _branch(first.graph, "first", shared, names)
    chosen = helper.make_node("If", [CACHE_SWITCH], names, then_branch=then_branch, else_branch=else_branch)
    switch = helper.make_tensor_value_info(CACHE_SWITCH, TensorProto.BOOL, [1])
    graph = helper.make_graph(
        [chosen],
        "decoder",
        [*later.graph.input, switch],
        [_without_shape(value) for value in first.graph.output],
        initializer=[*shared.values()],
    )
    opsets = {each.domain: each for each in (*first.opset_import, *later.opset_import)}
    merged = helper.make_model(graph, opset_imports=[*opsets.values()], functions=_functions(first, later))
    merged.ir_version = first.ir_version
    return merged


def _functions(*models: Any) -> list[Any]:
    return [*{(each.domain, each.name): each for model in models for each in model.functions}.values()]


def _branch(graph: Any, prefix: str, shared: dict[bytes, Any], names: Iterable[str]) -> Any:
    """Return a graph as a branch: without inputs, which it takes from outside, and with all outputs of `names`.

    Its weights move to `shared`. All other values get a prefix.
    """
    from onnx import helper

    renamed = {value.name: f"{prefix}/{value.name}" for value in graph.output}
    renamed |= {name: f"{prefix}/{name}" for node in graph.node for name in node.output if name}
    for weight in graph.initializer:
        renamed[weight.name] = _share(weight, prefix, shared)
    nodes = []
    for node in graph.node:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.name = f"{prefix}/{node.name}"
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        copy.output[:] = [renamed.get(name, name) for name in node.output]
        nodes.append(copy)
    own = {value.name for value in graph.output}
    outputs = []
    for name in names:
        if name not in own:
            nodes.append(_empty_cache(f"{prefix}/{name}"))
        outputs.append(helper.make_value_info(f"{prefix}/{name}", _float_type()))
    return helper.make_graph(nodes, prefix, [], outputs)


def _share(weight: Any, prefix: str, shared: dict[bytes, Any]) -> str:
    """Return the name of a weight outside of the branches. `shared` holds the weights by a digest of their content.

    The exporter names a transposed matrix by a number, so equal weights of both graphs may have different names.
    """
    content = type(weight)()
    content.CopyFrom(weight)
    content.ClearField("name")
    digest = sha256(content.SerializeToString()).digest()
    if digest not in shared:
        content.name = f"{prefix}/{weight.name}"
        shared[digest] = content
    return str(shared[digest].name)


def _empty_cache(name: str) -> Any:
    """Node that returns a tensor without values, of the rank of a cache."""
    import numpy as np
    from onnx import helper, numpy_helper

    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.zeros((0, 1, 1, 1), np.float32)))


def _float_type() -> Any:
    """Type of a float32 tensor of any shape."""
    from onnx import TensorProto, helper

    return helper.make_tensor_type_proto(TensorProto.FLOAT, None)


def _without_shape(value: Any) -> Any:
    from onnx import helper

    return helper.make_value_info(value.name, _float_type())
