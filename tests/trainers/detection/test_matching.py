import numpy as np
import pytest

from trainers.detection import matching

_NUM_CUTOFFS = 12


def _best(weights, predictions, used=frozenset()):
    """Tries all matchings of predictions: (summed weight, pairs)."""
    if not predictions:
        return 0, frozenset()
    first, *rest = predictions
    best = _best(weights, rest, used)
    for (prediction, box), weight in weights.items():
        if prediction == first and box not in used:
            total, pairs = _best(weights, rest, used | {box})
            if total + weight > best[0]:
                best = total + weight, pairs | {(prediction, box)}
    return best


def _random_overlaps(rng, num_pairs, num_predictions, num_boxes):
    cells = rng.choice(num_predictions * num_boxes, num_pairs, replace=False)
    prediction, box = np.divmod(cells, num_boxes)
    kept = rng.integers(1, _NUM_CUTOFFS, num_predictions)
    weight = rng.permutation(10**6)[:num_pairs] + 1
    return matching.Overlaps(prediction, box, weight, kept[prediction])


@pytest.mark.parametrize("seed", range(20))
def test_equals_trying_all_matchings_at_each_cutoff(seed):
    rng = np.random.default_rng(seed)
    # From separate pairs to one large tangle.
    overlaps = _random_overlaps(rng, 4 + seed // 2, 7, 6)
    weights = {(int(p), int(g)): int(w) for p, g, w, _ in zip(*overlaps)}
    kept_at = dict(
        zip(overlaps.prediction.tolist(), overlaps.num_cutoffs.tolist())
    )
    matches = matching.match(overlaps)
    assert (matches.start < matches.stop).all()
    for cutoff in range(_NUM_CUTOFFS):
        kept = [p for p, number in kept_at.items() if number > cutoff]
        _, expected = _best(weights, kept)
        now = (matches.start <= cutoff) & (cutoff < matches.stop)
        found = list(zip(matches.prediction[now], matches.ground_truth[now]))
        assert len(found) == len(set(found))
        assert set(found) == expected


def test_a_better_match_of_a_lower_score_takes_over_below_it():
    # IoU .9 with score 0 (cutoff 0 only), IoU .6 with score .5.
    overlaps = matching.Overlaps(
        *np.array([[0, 1], [0, 0], [900_000, 600_000], [1, 51]])
    )
    found = {tuple(map(int, match)) for match in zip(*matching.match(overlaps))}
    assert found == {(0, 0, 0, 1), (1, 0, 1, 51)}


def test_of_two_with_equal_scores_the_better_is_matched():
    overlaps = matching.Overlaps(
        *np.array([[0, 1, 2], [0, 0, 0], [6, 9, 8], [5, 5, 5]])
    )
    found = {tuple(map(int, match)) for match in zip(*matching.match(overlaps))}
    assert found == {(1, 0, 0, 5)}


def test_the_sum_decides_and_not_the_best_pair():
    # 0-0 is the best pair, but 0-1 and 1-0 weigh more together.
    overlaps = matching.Overlaps(
        *np.array([[0, 0, 1], [0, 1, 0], [90, 60, 70], [5, 5, 3]])
    )
    found = {tuple(map(int, match)) for match in zip(*matching.match(overlaps))}
    assert found == {(0, 1, 0, 3), (1, 0, 0, 3), (0, 0, 3, 5)}


def test_nothing_to_match():
    empty = np.zeros(0, np.int64)
    matches = matching.match(matching.Overlaps(empty, empty, empty, empty))
    assert all(values.shape == (0,) for values in matches)


def test_pairs_within_groups():
    rng = np.random.default_rng(0)
    first, second = rng.integers(-3, 5, 30), rng.integers(0, 7, 20)
    found = zip(*matching.pairs_within_groups(first, second))
    expected = [
        (i, j)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if a == b
    ]
    assert expected
    assert sorted(tuple(map(int, pair)) for pair in found) == expected
