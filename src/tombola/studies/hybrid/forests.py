"""Random forests on features: scikit-learn learns them, ONNX keeps and runs them. Nothing is ever pickled."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tombola.compression.onnx_packages import required
from tombola.errors import DataError, ModelError, RunFailure, one_line
from tombola.studies.hybrid.forest_files import check_forest
from tombola.studies.hybrid.trees import (
    INPUT,
    LABEL,
    LEAF,
    PROBABILITIES,
    PROJECTED,
    Projection,
    Trees,
    read_trees,
    to_onnx,
)

TREES = 300
CHECKED = 1_000
"""Examples on which ONNX must agree with scikit-learn."""
TOLERANCE = 2e-7
"""The largest difference of probabilities: ONNX gives float32, scikit-learn float64."""
LAST_BITS = 1e-12
WALKED = 256
"""Examples that go through all trees at once, to count their comparisons."""
SCIKIT_SEEDS = 2**32

Features = NDArray[np.float32]


class Forest:
    """A random forest, and the projection before it if there is one, as ONNX on one thread.

    `content` is the file. Of a forest that was just grown, `difference` is the largest to scikit-learn's probabilities,
    and `equal` of `checked` examples got its labels; None for a forest that was read.
    """

    def __init__(self, content: bytes) -> None:
        """Raises ModelError for a file that is no such forest, and where the extra `onnx` is not installed."""
        self.content = content
        self.difference: float | None = None
        self.checked: int | None = None
        self.equal: int | None = None
        check_forest(content)
        self._session = _session(content)
        self.features: int = self._session.get_inputs()[0].shape[1]
        self.classes: int = next(o.shape[1] for o in self._session.get_outputs() if o.name == PROBABILITIES)

    def probabilities(self, features: Features) -> NDArray[np.float32]:
        """(n, classes) for `features` (n, d): the mean over the trees; columns are the classes 0, 1, ..."""
        return self._run(PROBABILITIES, features)

    def predict(self, features: Features) -> NDArray[np.int64]:
        """The classes (n,) with the largest probabilities, the first among equals."""
        return self._run(LABEL, features)

    def projected(self, features: Features) -> Features:
        """What the trees are given."""
        outputs = {output.name for output in self._session.get_outputs()}
        return self._run(PROJECTED, features) if PROJECTED in outputs else features

    @property
    def nodes(self) -> int:
        """Of all trees, leaves included."""
        return len(self._read[0].left)

    @property
    def trees(self) -> int:
        return len(self._read[0].starts)

    @property
    def flops(self) -> int:
        """Of the projection, for one example; comparisons are no FLOPs and counted by `comparisons`."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Trees, int]:
        return read_trees(self.content)

    def _run(self, output: str, features: Features) -> Any:
        if features.ndim != 2 or features.shape[1] != self.features or features.dtype != np.float32:
            raise ModelError(
                f"this forest takes float32 features (n, {self.features}), not {features.dtype} {features.shape}"
            )
        return self._session.run([output], {INPUT: features})[0]


def fit_forest(
    features: ArrayLike,
    targets: ArrayLike,
    classes: int,
    trees: int = TREES,
    seed: int = 0,
    projection: Projection | None = None,
) -> Forest:
    """A forest of so many trees that learnt `features` (n, d) and classes `targets` (n,), behind the projection.

    The same seed gives the same bytes. Raises DataError for features and targets that cannot be learnt from,
    RunFailure if ONNX did not agree with scikit-learn.
    """
    from sklearn.ensemble import RandomForestClassifier  # a second of import

    given, labels = _checked(features, targets, classes)
    classifier = RandomForestClassifier(trees, random_state=seed % SCIKIT_SEEDS, n_jobs=1)
    classifier.fit(given if projection is None else projection(given), labels)
    forest = Forest(to_onnx(classifier, classes, projection))
    _compare(classifier, forest, given[:CHECKED])
    return forest


def fit_pca(pixels: ArrayLike, components: int, seed: int = 0) -> Projection:
    """The first principal components of `pixels` (n, d); DataError where there are too few examples or pixels."""
    from sklearn.decomposition import PCA

    given = np.asarray(pixels, dtype=np.float32)
    if given.ndim != 2 or components > min(given.shape):
        raise DataError(f"{components} principal components need as many examples and pixels, not {given.shape}")
    found = PCA(components, random_state=seed % SCIKIT_SEEDS).fit(given)
    return Projection(found.mean_.astype(np.float32), found.components_.astype(np.float32))


def comparisons(forest: Forest, features: Features) -> float:
    """How many thresholds an example is compared with, over all trees; the mean over `features` (n, d)."""
    given = forest.projected(features)
    parts = [_compared(forest._read[0], given[start : start + WALKED]) for start in range(0, len(given), WALKED)]
    return sum(parts) / len(given)


def _compared(trees: Trees, features: Features) -> int:
    """All comparisons of these examples: every pair of example and tree takes a step down, until it is at a leaf."""
    example = np.repeat(np.arange(len(features)), len(trees.starts))
    node = np.tile(trees.starts, len(features))
    compared = 0
    while True:
        inside = trees.left[node] != LEAF
        example, node = example[inside], node[inside]
        if not len(node):
            return compared
        compared += len(node)
        is_left = features[example, trees.feature[node]] <= trees.threshold[node]
        node = np.where(is_left, trees.left[node], trees.right[node])


def _checked(features: ArrayLike, targets: ArrayLike, classes: int) -> tuple[Features, NDArray[np.int64]]:
    given, labels = np.asarray(features, dtype=np.float32), np.asarray(targets)
    if given.ndim != 2 or labels.shape != given.shape[:1] or not given.size:
        raise DataError(f"a forest learns features (n, d) and classes (n,), not {given.shape} and {labels.shape}")
    if not np.isfinite(given).all():
        raise DataError("features hold numbers that are not finite: has the network diverged, or met such inputs?")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"targets are whole numbers from 0 to {classes - 1}")
    return given, labels.astype(np.int64)


def _compare(classifier: Any, forest: Forest, features: Features) -> None:
    """Notes the largest difference of probabilities between scikit-learn and ONNX, and how many labels are the same.

    All must be. That is: classes that scikit-learn finds most probable, up to the last bits of its sums.
    """
    given = forest.projected(features)
    expected = np.zeros((len(given), forest.classes))
    expected[:, classifier.classes_] = classifier.predict_proba(given)
    difference = float(np.abs(forest.probabilities(features) - expected).max())
    chosen = expected[np.arange(len(given)), forest.predict(features)]
    differing = int((expected.max(1) - chosen > LAST_BITS).sum())
    if differing or difference > TOLERANCE:
        raise RunFailure(
            f"the forest as ONNX is not scikit-learn's: {differing} of {len(given)} labels differ, probabilities by up "
            f"to {difference:.1e}; is this onnxruntime one of the versions in constraints.txt?"
        )
    forest.difference, forest.checked, forest.equal = difference, len(given), len(given) - differing


def _session(content: bytes) -> Any:
    runtime = required("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says of an error is raised, too
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds of errors, one for every way in which a file can be broken
        raise ModelError(f"this is no forest in ONNX: {one_line(error)}") from None
    if [i.name for i in session.get_inputs()] != [INPUT] or session.get_outputs()[-1].name != PROBABILITIES:
        raise ModelError("this is an ONNX model, but no forest that tombola wrote")
    return session
