"""What a forest's ONNX file is checked for before onnxruntime sees it, which takes trees and sizes at their word."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.compression.onnx_packages import required
from tombola.errors import ModelError

OPERATIONS = ("Cast", "TreeEnsembleClassifier", "Slice", "Div")
"""Of every forest; behind a projection `Sub` and `MatMul` come first."""
OF_NODES = ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")


def check_forest(content: bytes) -> None:
    """ModelError unless `content` is a forest as `to_onnx` writes them: these operations, trees that end, no more."""
    onnx = required("onnx")
    try:
        model = onnx.load_model_from_string(content)
        _check_graph(onnx, model)
        _check_trees(onnx, model.graph)
    except ModelError:
        raise
    except Exception as error:  # protobuf, onnx and numpy meet damage with many kinds of error
        raise ModelError(f"this is no forest in ONNX: {str(error)[:200] or type(error).__name__}") from None


def _check_graph(onnx: Any, model: Any) -> None:
    graph = model.graph
    operations = tuple(node.op_type for node in graph.node)
    if not operations:
        raise ModelError("this is no forest in ONNX: nothing in it computes")
    if operations not in (OPERATIONS, ("Sub", "MatMul", *OPERATIONS)) or model.functions or graph.sparse_initializer:
        raise ModelError("this is an ONNX model, but no forest that tombola wrote")
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    if any(attribute.HasField("g") or attribute.graphs for attribute in attributes):
        raise ModelError("this is an ONNX model, but no forest that tombola wrote")
    for tensor in (*graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError("this is no forest in ONNX: its numbers lie in another file, which is not opened")
        onnx.numpy_helper.to_array(tensor)  # an error where there are fewer numbers than it says


def _check_trees(onnx: Any, graph: Any) -> None:
    """Children come after their parents, in the same tree; leaves vote for classes that there are."""
    (ensemble,) = (node for node in graph.node if node.op_type == "TreeEnsembleClassifier")
    attributes = {attribute.name: attribute for attribute in ensemble.attribute}

    def numbers(name: str) -> NDArray[np.int64]:
        return np.array(attributes[name].ints, dtype=np.int64)

    def count(name: str) -> int:
        return int(onnx.numpy_helper.to_array(attributes[name].t).size)

    tree, node, feature, left, right = (numbers(f"nodes_{name}") for name in OF_NODES)
    modes = attributes["nodes_modes"].strings
    leaf = np.array([mode == b"LEAF" for mode in modes], dtype=bool)
    starts = np.flatnonzero(node == 0)
    sizes = np.diff(starts, append=len(node))
    alike = {len(part) for part in (tree, node, feature, left, right, leaf)} | {count("nodes_values_as_tensor")}
    whole = len(alike) == 1 and len(starts) > 0 and starts[0] == 0
    if not whole or set(modes) - {b"LEAF", b"BRANCH_LEQ"} or (tree != np.repeat(np.arange(len(starts)), sizes)).any():
        raise ModelError("this is no forest in ONNX: its trees do not follow one another")
    within = np.arange(len(node)) - np.repeat(starts, sizes)
    inner = ~leaf
    for child in (left, right):
        if (child[inner] <= within[inner]).any() or (child[inner] >= np.repeat(sizes, sizes)[inner]).any():
            raise ModelError("this is no forest in ONNX: a tree of it does not end")
    if (node != within).any() or feature[inner].min(initial=0) < 0 or feature.max(initial=0) >= _inputs(graph):
        raise ModelError("this is no forest in ONNX: its trees ask for features that there are not")
    in_tree, at, voted = (numbers(f"class_{name}") for name in ("treeids", "nodeids", "ids"))
    labels = numbers("classlabels_int64s")
    if not len(in_tree) == len(at) == len(voted) == count("class_weights_as_tensor") or not len(voted):
        raise ModelError("this is no forest in ONNX: its leaves have no votes")
    bounded = ((in_tree >= 0) & (in_tree < len(starts))).all() and ((voted >= 0) & (voted < len(labels))).all()
    if not bounded or (at < 0).any() or (at >= sizes[in_tree]).any() or not leaf[starts[in_tree] + at].all():
        raise ModelError("this is no forest in ONNX: it votes for classes that there are not")


def _inputs(graph: Any) -> int:
    """How many numbers the trees are given: the features, or as many as the projection makes of them."""
    components = [tensor for tensor in graph.initializer if tensor.name == "components"]
    (given,) = graph.input
    features = int(given.type.tensor_type.shape.dim[1].dim_value)
    if components and components[0].dims[0] != features:
        raise ModelError("this is no forest in ONNX: its projection is for other features")
    return int(components[0].dims[1]) if components else features
