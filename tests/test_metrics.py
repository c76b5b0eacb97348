"""The confusion matrix and every figure derived from it, beside scikit-learn and torchmetrics."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional import classification as torchmetrics

from salakseg.classes import IGNORE_INDEX
from salakseg.evaluate.confusion import ConfusionMatrix
from salakseg.evaluate.formats import count_text, percent_text, points_text
from salakseg.evaluate.metrics import OVERALL, PER_CLASS, Metrics, compute_metrics, figures_of

Ids = NDArray[np.uint8]
Case = tuple[int, Ids, Ids]


def as_case(classes: int, label: list[int], prediction: list[int]) -> Case:
    return classes, np.array(label, dtype=np.uint8), np.array(prediction, dtype=np.uint8)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """K, label and prediction; classes are often absent, and now and then all is ignored."""
    classes = draw(st.integers(2, 8))
    size = draw(st.integers(0, 60))
    ids = st.integers(0, classes - 1)
    true_ids = draw(st.lists(ids, min_size=1, max_size=classes))
    guessed_ids = draw(st.lists(ids, min_size=1, max_size=classes))
    label = draw(st.lists(st.sampled_from([*true_ids, IGNORE_INDEX]), min_size=size, max_size=size))
    prediction = draw(st.lists(st.sampled_from(guessed_ids), min_size=size, max_size=size))
    return as_case(classes, label, prediction)


ADVERSARIAL = (
    as_case(3, [], []),
    as_case(3, [255, 255], [0, 2]),  # all ignored
    as_case(3, [1, 1], [1, 1]),  # one class, all right
    as_case(3, [1, 1], [2, 2]),  # all wrong, class 0 absent
    as_case(4, [0, 1, 255, 2], [0, 2, 3, 2]),  # class 3 only where ignored
    as_case(2, [0, 1], [1, 0]),
)


def against_adversaries(test: Callable[[Case], None]) -> Callable[[], None]:
    run = settings(max_examples=60, deadline=None)(given(cases())(test))
    for case in ADVERSARIAL:
        run = example(case)(run)
    return run


def measure(case: Case) -> tuple[ConfusionMatrix, Metrics]:
    classes, label, prediction = case
    matrix = ConfusionMatrix(classes)
    matrix.update(label, prediction)
    return matrix, compute_metrics(matrix)


@against_adversaries
def test_figures_equal_those_of_scikit_learn(case: Case) -> None:
    classes, label, prediction = case
    matrix, metrics = measure(case)
    truth, guess = label[label != IGNORE_INDEX], prediction[label != IGNORE_INDEX]
    if truth.size == 0:
        assert matrix.counts.sum() == 0
        assert np.isnan(
            [*metrics.iou, *metrics.precision, *metrics.recall, *metrics.f1, metrics.overall_accuracy]
        ).all()
        return
    ids = list(range(classes))
    np.testing.assert_array_equal(matrix.counts, sklearn_metrics.confusion_matrix(truth, guess, labels=ids))
    oracle = sklearn_metrics.precision_recall_fscore_support(truth, guess, labels=ids, zero_division=np.nan)
    for ours, theirs in zip((metrics.precision, metrics.recall, metrics.f1, metrics.support), oracle, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert metrics.overall_accuracy == pytest.approx(sklearn_metrics.accuracy_score(truth, guess))
    present = np.union1d(truth, guess)
    iou = np.full(classes, np.nan)
    iou[present] = sklearn_metrics.jaccard_score(truth, guess, labels=present, average=None, zero_division=0)
    np.testing.assert_allclose(metrics.iou, iou, rtol=1e-12)
    np.testing.assert_array_equal(metrics.predicted, np.bincount(guess, minlength=classes))


@against_adversaries
def test_agreement_figures_equal_those_of_scikit_learn(case: Case) -> None:
    _, label, prediction = case
    _, metrics = measure(case)
    truth, guess = label[label != IGNORE_INDEX], prediction[label != IGNORE_INDEX]
    if truth.size == 0:
        assert np.isnan([metrics.kappa, metrics.mcc, metrics.frequency_weighted_iou]).all()
        assert math.isnan(metrics.balanced_accuracy.value)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of classes without truth, which its mean leaves out like ours
        recall = sklearn_metrics.recall_score(truth, guess, labels=np.unique(truth), average="macro")
        kappa = sklearn_metrics.cohen_kappa_score(truth, guess)
    assert metrics.balanced_accuracy.value == pytest.approx(recall)
    assert metrics.balanced_accuracy.classes == len(np.unique(truth))
    assert metrics.kappa == pytest.approx(kappa, nan_ok=True)
    if len(np.unique(truth)) == 1 or len(np.unique(guess)) == 1:
        assert math.isnan(metrics.mcc)  # scikit-learn says 0, which would be as good as chance
    else:
        assert metrics.mcc == pytest.approx(sklearn_metrics.matthews_corrcoef(truth, guess))
    weighted = sklearn_metrics.jaccard_score(truth, guess, average="weighted", zero_division=0)
    assert metrics.frequency_weighted_iou == pytest.approx(weighted)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32))
def test_many_matrices_at_once_give_what_each_gives(classes: int, seed: int) -> None:
    counts = (
        np.random.default_rng(seed).integers(0, 3, (2, 4, classes, classes)) * np.array([1, 10**9])[:, None, None, None]
    )
    together = figures_of(counts)
    for place in np.ndindex(2, 4):
        alone = compute_metrics(ConfusionMatrix.from_counts(counts[place]))
        for name in PER_CLASS:
            np.testing.assert_allclose(together[name][place], getattr(alone, name))
        for name in OVERALL:
            np.testing.assert_allclose(together[name][place], alone.overall_value(name))


@against_adversaries
def test_figures_equal_those_of_torchmetrics(case: Case) -> None:
    classes, label, prediction = case
    matrix, metrics = measure(case)
    if matrix.counts.sum() == 0:
        return
    truth, guess = torch.from_numpy(label.astype(np.int64)), torch.from_numpy(prediction.astype(np.int64))
    counts = torchmetrics.multiclass_confusion_matrix(guess, truth, classes, ignore_index=IGNORE_INDEX)
    np.testing.assert_array_equal(matrix.counts, counts.numpy())
    for ours, theirs in (
        (metrics.iou, torchmetrics.multiclass_jaccard_index),
        (metrics.f1, torchmetrics.multiclass_f1_score),
    ):
        figures = theirs(guess, truth, num_classes=classes, average="none", ignore_index=IGNORE_INDEX).numpy()
        # It gives an absent class 0; ours is undefined there.
        np.testing.assert_allclose(np.nan_to_num(ours), figures, atol=1e-6)


@against_adversaries
def test_means_cover_the_defined_classes_and_count_them(case: Case) -> None:
    _, metrics = measure(case)
    for first, miou, mean_f1 in (
        (0, metrics.miou_with_background, metrics.f1_with_background),
        (1, metrics.miou_without_background, metrics.f1_without_background),
    ):
        present = [k for k in range(first, len(metrics.iou)) if metrics.support[k] + metrics.predicted[k] > 0]
        assert miou.classes == mean_f1.classes == len(present)
        if present:
            assert miou.value == pytest.approx(sum(metrics.iou[k] for k in present) / len(present))
            assert mean_f1.value == pytest.approx(sum(metrics.f1[k] for k in present) / len(present))
        else:
            assert math.isnan(miou.value) and math.isnan(mean_f1.value)


def test_by_hand() -> None:
    matrix, metrics = measure(as_case(4, [0, 0, 0, 1, 1, 2, 255], [0, 0, 1, 1, 0, 1, 3]))
    assert matrix.counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(metrics.iou, [2 / 4, 1 / 4, 0, np.nan])
    np.testing.assert_allclose(metrics.precision, [2 / 3, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(metrics.recall, [2 / 3, 1 / 2, 0, np.nan])
    assert metrics.miou_with_background.value == pytest.approx(0.25)
    assert metrics.miou_with_background.text == "0.250 (3 classes)"
    assert metrics.miou_without_background.value == pytest.approx(0.125)
    assert metrics.miou_without_background.classes == 2
    np.testing.assert_allclose(matrix.normalised()[:2], [[2 / 3, 1 / 3, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert np.isnan(matrix.normalised()[3]).all()


def test_a_class_invented_by_the_model_has_iou_0_and_counts() -> None:
    _, metrics = measure(as_case(3, [0, 1, 1], [0, 1, 2]))
    assert metrics.iou[2] == 0.0
    assert math.isnan(metrics.recall[2])
    assert metrics.miou_without_background.classes == 2


def test_an_ignored_pixel_may_be_predicted_as_anything() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[255, 1]]), np.array([[255, 1]]))
    matrix.update(np.array([255], np.uint8), np.array([-1]))
    assert matrix.counts.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int64, np.uint64])
def test_any_integer_dtype_and_shape(dtype: type[np.integer[Any]]) -> None:
    ids = np.arange(100).reshape(2, 5, 10)
    matrix = ConfusionMatrix(100)  # 99 * 100 + 99 overflows eight bits
    matrix.update(ids.astype(dtype), ids[::-1].astype(dtype))
    assert matrix.counts.dtype == np.int64
    assert matrix.counts[99, 49] == 1 and matrix.counts[0, 50] == 1 and matrix.counts.sum() == 100


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        ([0, 3], [0, 0], "label holds class id 3, outside 0 to 2"),
        ([0, 254], [0, 0], "label holds class id 254"),
        ([0, -1], [0, 0], "label holds class id -1"),
        ([0, 1], [0, 3], "prediction holds class id 3"),
        ([0, 1], [0, 255], "prediction holds class id 255"),
        ([0, 1], [-1, 0], "prediction holds class id -1"),
        ([0, 1], [0], "shape"),
        ([0, 1], [0.0, 1.0], "prediction is float64"),
        ([True, False], [0, 1], "label is bool"),
    ],
)
def test_impossible_ids_are_refused_and_change_nothing(label: list[Any], prediction: list[Any], message: str) -> None:
    matrix = ConfusionMatrix.from_counts(np.eye(3, dtype=np.int64))
    with pytest.raises(ValueError, match=message):
        matrix.update(np.array(label), np.array(prediction))
    assert matrix.counts.tolist() == np.eye(3).tolist()


def test_matrices_add_up() -> None:
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 4, (2, 8, 50))
    whole, parts = ConfusionMatrix(4), [ConfusionMatrix(4) for _ in range(8)]
    whole.update(label, prediction)
    for part, one_label, one_prediction in zip(parts, label, prediction, strict=True):
        part.update(one_label, one_prediction)
    total = parts[0] + parts[1]
    assert parts[0].counts.sum() == 50  # the sum is a matrix of its own
    for part in parts[2:]:
        total.merge(part)
    np.testing.assert_array_equal(total.counts, whole.counts)
    with pytest.raises(ValueError, match="4 and 5 classes"):
        total.merge(ConfusionMatrix(5))


def test_counts_cannot_be_written_to_from_outside() -> None:
    with pytest.raises(ValueError, match="read-only"):
        ConfusionMatrix(2).counts[0, 0] = 7


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, -1], [0, 0]], [[0.5, 1.0], [0.0, 0.0]], [1, 2], [[1, 2], [3]]])
def test_stored_counts_are_checked(counts: list[Any]) -> None:
    with pytest.raises(ValueError):
        ConfusionMatrix.from_counts(counts)


@pytest.mark.parametrize("classes", [0, -1, 255])
def test_impossible_numbers_of_classes(classes: int) -> None:
    with pytest.raises(ValueError, match="1 to 254"):
        ConfusionMatrix(classes)


@against_adversaries
def test_plain_values_are_json(case: Case) -> None:
    _, metrics = measure(case)
    record = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    restored = np.array([np.nan if value is None else value for value in record["iou"]], dtype=np.float64)
    np.testing.assert_array_equal(restored, metrics.iou)
    assert record["support"] == metrics.support.tolist()
    assert record["miou_with_background"]["classes"] == metrics.miou_with_background.classes
    assert (record["overall_accuracy"] is None) == math.isnan(metrics.overall_accuracy)


def test_figures_for_people() -> None:
    counts = (0, 999, 1000, 9_999, 99_999, 999_499, 999_999, 168_000_000, 10**15)
    assert [count_text(n) for n in counts] == ["0", "999", "1.00k", "10.0k", "100k", "999k", "1.00M", "168M", "1000T"]
    shares = (0.0, 0.0001, 0.5, 0.9994, 0.9996, 1.0, math.nan)
    assert [percent_text(share) for share in shares] == ["0", "0.0", "50.0", "99.9", "100", "100", "-"]
    assert [points_text(gap) for gap in (0.032, -0.1, -0.0001, math.nan)] == ["+3.2", "-10.0", "+0.0", ""]
