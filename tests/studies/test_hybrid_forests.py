"""Forests as ONNX decide as scikit-learn's do, at ties and thresholds too; and files that are none are refused."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier

from tombola.errors import DataError, ModelError, RunFailure
from tombola.studies.hybrid import forests
from tombola.studies.hybrid.forests import LAST_BITS, TOLERANCE, Forest, comparisons, fit_forest, fit_pca
from tombola.studies.hybrid.trees import to_onnx

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]


@pytest.fixture(scope="module")
def digits() -> tuple[Floats, Whole, Floats, Whole]:
    pixels, targets = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    return pixels[:900], targets[:900], pixels[900:], targets[900:]


def noisy(classes: int, examples: int = 200, seed: int = 0) -> tuple[Floats, Whole]:
    """Targets that features hardly tell, so that trees disagree."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(examples, 4)).astype(np.float32)
    return features, (features[:, 0] + random.normal(size=examples) * 2 > 0) + random.integers(0, classes - 1, examples)


def classifier_of(features: Floats, targets: Whole, trees: int, seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(trees, random_state=seed).fit(features, targets)


class TestAgreement:
    @pytest.mark.parametrize("classes", [2, 3, 10])
    @pytest.mark.parametrize("trees", [22, 50])
    def test_labels_at_ties_are_scikit_learns(self, classes: int, trees: int) -> None:
        """With shares of 1/22 in float32, eleven of them are more than a half."""
        features, targets = noisy(classes)
        unseen, _ = noisy(classes, 3000, seed=1)
        forest, peer = fit_forest(features, targets, classes, trees, seed=5), classifier_of(features, targets, trees, 5)
        expected = peer.predict_proba(unseen)
        tied = np.sort(expected, 1)[:, -1] - np.sort(expected, 1)[:, -2] < LAST_BITS
        assert tied.sum() > 20
        np.testing.assert_array_equal(forest.predict(unseen), peer.predict(unseen))
        assert np.abs(forest.probabilities(unseen) - expected).max() <= TOLERANCE

    def test_one_at_a_time_is_the_same(self) -> None:
        features, targets = noisy(3)
        forest = fit_forest(features, targets, 3, 30, seed=1)
        alone = np.concatenate([forest.probabilities(features[i : i + 1]) for i in range(50)])
        np.testing.assert_array_equal(alone, forest.probabilities(features[:50]))

    def test_thresholds_between_neighbouring_numbers(self) -> None:
        """Midpoints of float32 neighbours are no float32; rounded up they would let the wrong one pass."""
        values = [np.float32(10)]  # whose neighbours lie further apart than scikit-learn's 1e-7
        for _ in range(63):
            values.append(np.nextafter(values[-1], np.float32(11)))
        features = np.array(values, dtype=np.float32)[:, None]
        targets = np.arange(64) % 2
        forest, peer = fit_forest(features, targets, 2, 25, seed=0), classifier_of(features, targets, 25, 0)
        inner = [tree.tree_.threshold[tree.tree_.feature >= 0] for tree in peer.estimators_]
        thresholds = np.concatenate(inner)
        assert (thresholds != thresholds.astype(np.float32)).any()
        np.testing.assert_allclose(forest.probabilities(features), peer.predict_proba(features), rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(forest.predict(features), peer.predict(features))

    @settings(max_examples=30)
    @given(st.data())
    def test_whatever_the_data(self, data: st.DataObject) -> None:
        """Few values, so that leaves hold several classes; classes may be missing, even all but one."""
        classes = data.draw(st.integers(2, 5))
        examples, trees = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 24))
        random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        features = random.integers(-2, 3, (examples, 3)).astype(np.float32) / np.float32(3)
        present = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True))
        targets = random.choice(present, examples)
        forest, peer = fit_forest(features, targets, classes, trees, 7), classifier_of(features, targets, trees, 7)
        unseen = random.uniform(-1, 1, (50, 3)).astype(np.float32)
        expected = np.zeros((50, classes))
        expected[:, peer.classes_] = peer.predict_proba(unseen)
        given = forest.probabilities(unseen)
        assert given.shape == (50, classes)
        assert np.abs(given - expected).max() <= TOLERANCE
        assert (expected.max(1) - expected[np.arange(50), forest.predict(unseen)] <= LAST_BITS).all()

    def test_another_forest_fails_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        features, targets = noisy(3)
        other = to_onnx(classifier_of(features, targets, 9, 2), 3)
        monkeypatch.setattr(forests, "to_onnx", lambda *_: other)
        with pytest.raises(RunFailure, match=r"\d+ of 200 labels differ") as caught:
            fit_forest(features, targets, 3, 9, seed=1)
        assert "\n" not in str(caught.value)


class TestForest:
    def test_raw_pixels_tell_digits(self, digits: tuple[Floats, Whole, Floats, Whole]) -> None:
        pixels, targets, unseen, truth = digits
        forest = fit_forest(pixels, targets, 10, trees=100, seed=42)
        assert forest.difference is not None
        assert 0 <= forest.difference <= TOLERANCE
        assert (forest.predict(unseen) == truth).mean() > 0.9
        given = forest.probabilities(unseen)
        assert given.dtype == np.float32
        np.testing.assert_allclose(given.sum(1), 1, atol=1e-6)
        assert (forest.features, forest.classes, forest.trees, forest.flops) == (64, 10, 100, 0)

    def test_nodes_and_comparisons_are_scikit_learns(self, digits: tuple[Floats, Whole, Floats, Whole]) -> None:
        """A path of so many nodes has one comparison less."""
        pixels, targets, unseen, _ = digits
        forest, peer = fit_forest(pixels, targets, 10, 30, seed=1), classifier_of(pixels, targets, 30, 1)
        assert forest.nodes == sum(tree.tree_.node_count for tree in peer.estimators_)
        paths, _ = peer.decision_path(unseen)
        assert comparisons(forest, unseen) == (paths.nnz - 30 * len(unseen)) / len(unseen)
        assert comparisons(forest, unseen[:1]) == paths[0].nnz - 30

    def test_a_forest_of_leaves_compares_nothing(self) -> None:
        forest = fit_forest(np.zeros((5, 2)), np.ones(5, dtype=int), 3, 4)
        assert (forest.nodes, comparisons(forest, np.zeros((2, 2), np.float32))) == (4, 0)
        np.testing.assert_array_equal(forest.probabilities(np.zeros((2, 2), np.float32)), [[0, 1, 0]] * 2)

    def test_a_class_that_was_not_there_has_its_column(self) -> None:
        features, targets = noisy(2)
        forest = fit_forest(features, np.where(targets == 0, 1, 4), 6, 11, seed=0)
        given = forest.probabilities(features)
        assert given.shape == (200, 6)
        assert not given[:, [0, 2, 3, 5]].any()
        assert set(forest.predict(features)) == {1, 4}

    def test_the_seed_makes_the_bytes(self) -> None:
        features, targets = noisy(3)
        first = fit_forest(features, targets, 3, 10, seed=2**62 + 1)
        np.random.seed(9)
        again = fit_forest(features.astype(np.float64), list(targets), 3, 10, seed=2**62 + 1)
        assert again.content == first.content
        assert fit_forest(features, targets, 3, 10, seed=2).content != first.content

    def test_a_file_is_the_forest(self) -> None:
        features, targets = noisy(4)
        fitted = fit_forest(features, targets, 4, 10, seed=0)
        read = Forest(fitted.content)
        np.testing.assert_array_equal(read.probabilities(features), fitted.probabilities(features))
        assert (read.nodes, read.trees, read.classes, read.difference) == (fitted.nodes, 10, 4, None)
        assert comparisons(read, features) == comparisons(fitted, features)
        onnx.checker.check_model(onnx.load_model_from_string(fitted.content), full_check=True)


class TestPca:
    def test_it_is_scikit_learns_before_a_forest(self, digits: tuple[Floats, Whole, Floats, Whole]) -> None:
        pixels, targets, unseen, truth = digits
        projection = fit_pca(pixels, 12, seed=3)
        forest = fit_forest(pixels, targets, 10, 60, 3, projection)
        expected = PCA(12, random_state=3).fit(pixels).transform(unseen)
        np.testing.assert_allclose(forest.projected(unseen), expected, atol=1e-5)
        np.testing.assert_allclose(projection(unseen), expected, atol=1e-5)
        assert forest.flops == projection.flops == 2 * 64 * 12
        assert (forest.features, forest.classes, forest.trees) == (64, 10, 60)
        assert (forest.predict(unseen) == truth).mean() > 0.85
        plain = fit_forest(projection(pixels), targets, 10, 60, 3)
        assert plain.nodes == forest.nodes
        assert comparisons(forest, unseen) == comparisons(plain, forest.projected(unseen))
        np.testing.assert_array_equal(Forest(forest.content).predict(unseen), plain.predict(forest.projected(unseen)))

    @pytest.mark.parametrize(("shape", "components"), [((5, 64), 6), ((50, 4), 5), ((64,), 1)])
    def test_too_few_examples_or_pixels_are_refused(self, shape: tuple[int, ...], components: int) -> None:
        with pytest.raises(DataError, match=f"{components} principal components need as many examples and pixels"):
            fit_pca(np.ones(shape), components)


class TestErrors:
    @pytest.mark.parametrize(
        ("features", "targets", "says"),
        [
            (np.ones((3, 2, 2)), [0, 1, 0], "not (3, 2, 2) and (3,)"),
            (np.ones((3, 2)), [0, 1], "not (3, 2) and (2,)"),
            (np.ones((0, 2)), [], "not (0, 2) and (0,)"),
            (np.full((3, 2), np.nan), [0, 1, 0], "not finite"),
            (np.full((3, 2), 1e300), [0, 1, 0], "not finite"),
            (np.ones((3, 2)), [0, 1, 2], "whole numbers from 0 to 1"),
            (np.ones((3, 2)), [0, -1, 1], "whole numbers from 0 to 1"),
            (np.ones((3, 2)), [0.5, 1, 1], "whole numbers from 0 to 1"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")
    def test_what_cannot_be_learnt_is_one_line(self, features: object, targets: object, says: str) -> None:
        with pytest.raises(DataError) as caught:
            fit_forest(features, targets, 2, 3)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_other_features_are_refused(self) -> None:
        forest = fit_forest(*noisy(2), 2, 3)
        for odd in (np.ones((2, 5), np.float32), np.ones(4, np.float32), np.ones((2, 4))):
            with pytest.raises(ModelError, match=r"takes float32 features \(n, 4\)"):
                forest.predict(odd)

    def test_files_that_are_no_forests_are_refused(self, capfd: pytest.CaptureFixture[str]) -> None:
        forest = fit_forest(*noisy(2), 2, 3)
        for content in (b"", b"forest", forest.content[:500], forest.content[100:], b"\x80\x04." * 50):
            with pytest.raises(ModelError, match="this is no forest in ONNX") as caught:
                Forest(content)
            assert "\n" not in str(caught.value)
        own = onnx.load_model_from_string(forest.content)
        own.graph.output.reverse()
        with pytest.raises(ModelError, match="no forest that tombola wrote"):
            Forest(own.SerializeToString())
        own.graph.node[0].attribute.pop()
        with pytest.raises(ModelError, match="this is no forest in ONNX"):
            Forest(own.SerializeToString())
        assert capfd.readouterr().err == ""  # onnxruntime would say it there again

    def test_a_model_without_trees_is_refused(self) -> None:
        helper, kind = onnx.helper, onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info("features", kind, [None, 4])]
        outputs = [helper.make_tensor_value_info("probabilities", kind, [None, 4])]
        node = helper.make_node("Identity", ["features"], ["probabilities"])
        graph = helper.make_graph([node], "none", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        with pytest.raises(ModelError, match="no forest that tombola wrote"):
            _ = Forest(model.SerializeToString()).nodes

    @pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
    def test_without_the_extra_the_way_to_it_is_said(self, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        features, targets = noisy(2)
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(ModelError, match=rf"{missing} is not installed: pip install 'tombola\[onnx\]'"):
            fit_forest(features, targets, 2, 3)
