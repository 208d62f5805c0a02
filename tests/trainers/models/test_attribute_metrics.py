import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from trainers.models import attribute_metrics

_T = 3
_SIZES = (1, 7, 2, 30, 60)


def _predictions(count=100, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.random((count, _T)) < [0.5, 0.1, 0.9]
    logits = generator.normal(0.0, 3.0, (count, _T)) + labels
    return labels.astype(np.float32), logits.astype(np.float32)


def _stream(metric, labels, logits, weights=None):
    first = 0
    for size in _SIZES:
        part = slice(first, first + size)
        weight = None if weights is None else weights[part]
        metric.update_state(labels[part], logits[part], weight)
        first += size
    assert first == len(labels)
    return metric


def _best_f1(labels, logits, thresholds, weights=None):
    """The best F1 over given thresholds, of each attribute."""
    return [
        max(
            metrics.f1_score(
                labels[:, index],
                logits[:, index] >= threshold,
                sample_weight=None if weights is None else weights[:, index],
                zero_division=0.0,
            )
            for threshold in thresholds
        )
        for index in range(_T)
    ]


def test_error_rate_equals_scikit_learn():
    labels, logits = _predictions()
    metric = _stream(attribute_metrics.ErrorRate(_T), labels, logits)
    expected = [
        1.0 - metrics.accuracy_score(labels[:, i], logits[:, i] > 0.0)
        for i in range(_T)
    ]
    np.testing.assert_allclose(metric.per_attribute(), expected, atol=1e-6)
    np.testing.assert_allclose(metric.result(), np.mean(expected), atol=1e-6)


@pytest.mark.parametrize(
    "kind", [attribute_metrics.ErrorRate, attribute_metrics.MaxF1]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_missing_label_does_not_count(kind, weighted):
    """As one with a weight of 0, beside other weights."""
    labels, logits = _predictions()
    generator = np.random.default_rng(1)
    known = generator.random(labels.shape) < 0.7
    weights = generator.random(labels.shape) if weighted else None
    found = _stream(kind(_T), np.where(known, labels, -1), logits, weights)
    ones = np.ones(labels.shape) if weights is None else weights
    expected = _stream(kind(_T), labels, logits, ones * known)
    np.testing.assert_allclose(
        found.per_attribute(), expected.per_attribute(), rtol=1e-6
    )
    whole = _stream(kind(_T), labels, logits, weights)
    assert (found.per_attribute() != whole.per_attribute()).numpy().any()


def test_max_f1_equals_scikit_learn_over_the_same_thresholds():
    labels, logits = _predictions()
    logits[0, 0] = 50.0
    logits[1, 1] = -50.0
    metric = _stream(attribute_metrics.MaxF1(_T, 101), labels, logits)
    np.testing.assert_allclose(np.diff(metric.thresholds), 0.2, atol=1e-5)
    expected = _best_f1(labels, logits, metric.thresholds)
    np.testing.assert_allclose(metric.per_attribute(), expected, atol=1e-6)
    np.testing.assert_allclose(metric.result(), np.mean(expected), atol=1e-6)


def test_max_f1_equals_scikit_learn_over_all_thresholds():
    labels, logits = _predictions()
    # Logits on the metric's own grid: it then tries every threshold.
    logits = np.clip(np.round(logits, 1), -9.9, 9.9) - np.float32(0.01)
    metric = _stream(attribute_metrics.MaxF1(_T, 201), labels, logits)
    expected = []
    for index in range(_T):
        precision, recall, _ = metrics.precision_recall_curve(
            labels[:, index], logits[:, index]
        )
        sums = np.maximum(precision + recall, 1e-30)
        expected.append(np.max(2.0 * precision * recall / sums))
    np.testing.assert_allclose(metric.per_attribute(), expected, atol=1e-6)


@pytest.mark.parametrize("per_attribute", [False, True])
def test_weights_count(per_attribute):
    labels, logits = _predictions()
    shape = labels.shape if per_attribute else (len(labels), 1)
    weights = np.random.default_rng(1).integers(0, 3, shape).astype(np.float32)
    given = weights if per_attribute else weights[:, 0]
    full = np.broadcast_to(weights, labels.shape)
    error = _stream(attribute_metrics.ErrorRate(_T), labels, logits, given)
    wrong = (labels > 0.5) != (logits > 0.0)
    np.testing.assert_allclose(
        error.per_attribute(), (full * wrong).sum(0) / full.sum(0), atol=1e-6
    )
    best = _stream(attribute_metrics.MaxF1(_T, 41), labels, logits, given)
    expected = _best_f1(labels, logits, best.thresholds, full)
    np.testing.assert_allclose(best.per_attribute(), expected, atol=1e-6)


def test_before_data_and_without_positives_they_are_zero():
    for kind in (attribute_metrics.ErrorRate, attribute_metrics.MaxF1):
        assert float(kind(_T).result()) == 0.0
    metric = attribute_metrics.MaxF1(_T)
    metric.update_state(np.zeros((4, _T)), np.full((4, _T), -1.0))
    assert float(metric.result()) == 0.0
    metric.reset_state()
    assert not metric.variables[0].numpy().any()


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_evaluated_over_replicas_they_are_those_of_all(num_replicas, mirrored):
    labels, logits = _predictions(10)
    with mirrored(num_replicas).scope():
        model = keras.Sequential([keras.Input((_T,)), keras.layers.Identity()])
        model.compile(
            "sgd",
            "mse",
            metrics=[
                attribute_metrics.ErrorRate(_T),
                attribute_metrics.MaxF1(_T, 41),
            ],
        )
    data = tf.data.Dataset.from_tensor_slices((logits, labels)).batch(4)
    results = model.evaluate(data, verbose=0, return_dict=True)
    wrong = np.mean((labels > 0.5) != (logits > 0.0))
    thresholds = np.linspace(-10.0, 10.0, 41)
    best = np.mean(_best_f1(labels, logits, thresholds))
    np.testing.assert_allclose(results["error_rate"], wrong, atol=1e-6)
    np.testing.assert_allclose(results["max_f1"], best, atol=1e-6)
