"""The trees of a forest as arrays, and as an ONNX graph that decides exactly as scikit-learn does.

scikit-learn compares float32 features with float64 thresholds and adds up the trees in float64. The graph does the
same, in the same order, so that labels agree even where classes are tied. (A graph with float32 thresholds and votes of
1/trees, such as skl2onnx writes, gives other labels at ties: two classes, 22 trees, half of them for each.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tombola.compression.onnx_packages import required
from tombola.errors import ModelError

INPUT, PROJECTED, LABEL, PROBABILITIES = "features", "projected", "label", "probabilities"
OPSET, TREE_OPSET, IR_VERSION = 18, 3, 8
"""Of ONNX 1.13, which every onnxruntime of the extra reads; trees have float64 since their version 3."""
LEAST_CLASSES = 3
"""onnxruntime takes two classes for one score and its complement; with a third, which no tree votes for, it counts."""
LEAF = -1


@dataclass(frozen=True)
class Projection:
    """Principal components: features (n, d) become (features - mean (d,)) · components.T (d, k), all float32."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((features - self.mean) @ self.components.T, dtype=np.float32)

    @property
    def flops(self) -> int:
        """Of one example, 2·d·k."""
        return 2 * self.components.size


@dataclass(frozen=True)
class Trees:
    """All nodes of a forest, tree by tree. An example goes `left` where its feature is at most the threshold.

    `starts` (trees,) are the roots; `left` and `right` (nodes,) count within the whole forest and are -1 at leaves.
    """

    starts: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    @property
    def of_node(self) -> NDArray[np.int64]:
        """The number of each node's tree."""
        return np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.left)))


def trees_of(classifier: Any) -> Trees:
    """The trees of a fitted scikit-learn RandomForestClassifier."""
    trees = [estimator.tree_ for estimator in classifier.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])

    def children(side: str) -> NDArray[np.int64]:
        own = [getattr(tree, side) for tree in trees]
        return np.concatenate([np.where(part < 0, LEAF, part + at) for part, at in zip(own, starts, strict=True)])

    feature = np.concatenate([tree.feature for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    return Trees(starts, feature, threshold, children("children_left"), children("children_right"))


def to_onnx(classifier: Any, classes: int, projection: Projection | None = None) -> bytes:
    """A fitted scikit-learn RandomForestClassifier, behind a projection if there is one, as an ONNX file.

    Takes `features` (n, d) float32; gives `label` (n,) and `probabilities` (n, classes) in the order 0, 1, ..., also
    of classes that were not there to learn from; and `projected` (n, k), if anything is.
    """
    onnx = required("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    nodes, constants, outputs = [], {}, []
    inputs, given = classifier.n_features_in_, INPUT
    if projection is not None:
        constants = {"mean": projection.mean, "components": np.ascontiguousarray(projection.components.T)}
        nodes = [
            helper.make_node("Sub", [INPUT, "mean"], ["centred"]),
            helper.make_node("MatMul", ["centred", "components"], [PROJECTED]),
        ]
        outputs = [helper.make_tensor_value_info(PROJECTED, types.FLOAT, [None, inputs])]
        inputs, given = len(projection.mean), PROJECTED
    constants |= {
        "trees": np.array(len(classifier.estimators_), dtype=np.float32),
        "first": np.array([0]),
        "last": np.array([classes]),
        "axis": np.array([1]),
    }
    nodes += [
        helper.make_node("Cast", [given], ["exact"], to=types.DOUBLE),
        helper.make_node(
            "TreeEnsembleClassifier",
            ["exact"],
            [LABEL, "votes"],
            domain="ai.onnx.ml",
            **_ensemble(onnx, classifier, classes),
        ),
        helper.make_node("Slice", ["votes", "first", "last", "axis"], ["counted"]),
        helper.make_node("Div", ["counted", "trees"], [PROBABILITIES]),
    ]
    outputs += [
        helper.make_tensor_value_info(LABEL, types.INT64, [None]),
        helper.make_tensor_value_info(PROBABILITIES, types.FLOAT, [None, classes]),
    ]
    graph = helper.make_graph(
        nodes,
        "forest",
        [helper.make_tensor_value_info(INPUT, types.FLOAT, [None, inputs])],
        outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="tombola")
    return bytes(model.SerializeToString())


def _ensemble(onnx: Any, classifier: Any, classes: int) -> dict[str, Any]:
    """The attributes of ONNX's TreeEnsembleClassifier. A leaf votes with its fractions of the classes it has."""
    trees = trees_of(classifier)
    of_node, leaf = trees.of_node, trees.left == LEAF
    within = np.arange(len(leaf)) - trees.starts[of_node]
    shares = np.concatenate([estimator.tree_.value[:, 0] for estimator in classifier.estimators_])
    voting, column = np.nonzero(shares * leaf[:, None])

    def inner(values: NDArray[Any]) -> NDArray[Any]:
        return np.where(leaf, 0, values)

    return {
        "nodes_treeids": of_node.tolist(),
        "nodes_nodeids": within.tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_featureids": inner(trees.feature).tolist(),
        "nodes_values_as_tensor": onnx.numpy_helper.from_array(inner(trees.threshold), "thresholds"),
        "nodes_truenodeids": inner(trees.left - trees.starts[of_node]).tolist(),
        "nodes_falsenodeids": inner(trees.right - trees.starts[of_node]).tolist(),
        "class_treeids": of_node[voting].tolist(),
        "class_nodeids": within[voting].tolist(),
        "class_ids": classifier.classes_[column].tolist(),
        "class_weights_as_tensor": onnx.numpy_helper.from_array(shares[voting, column], "shares"),
        "classlabels_int64s": list(range(max(classes, LEAST_CLASSES))),
        "post_transform": "NONE",
    }


def read_trees(content: bytes) -> tuple[Trees, int]:
    """The trees of an ONNX file that `to_onnx` wrote, and the FLOPs of the projection before them, 0 without one."""
    onnx = required("onnx")
    graph = onnx.load_model_from_string(content).graph
    nodes = [node for node in graph.node if node.op_type == "TreeEnsembleClassifier"]
    attributes = {attribute.name: attribute for node in nodes for attribute in node.attribute}
    if len(nodes) != 1 or "nodes_values_as_tensor" not in attributes:
        raise ModelError("this is an ONNX model, but no forest that tombola wrote")

    def numbers(name: str) -> NDArray[np.int64]:
        return np.array(attributes[name].ints, dtype=np.int64)

    starts = np.flatnonzero(numbers("nodes_nodeids") == 0)
    offset = starts[numbers("nodes_treeids")]
    leaf = np.array([mode == b"LEAF" for mode in attributes["nodes_modes"].strings])
    left, right = (np.where(leaf, LEAF, numbers(f"nodes_{side}nodeids") + offset) for side in ("true", "false"))
    thresholds = onnx.numpy_helper.to_array(attributes["nodes_values_as_tensor"].t)
    flops = sum(2 * int(np.prod(tensor.dims)) for tensor in graph.initializer if tensor.name == "components")
    return Trees(starts, numbers("nodes_featureids"), thresholds, left, right), flops
