"""Which prediction is matched to which box, at every score cutoff.

At each cutoff the official metric keeps the predictions of at least that
score and matches them to boxes so that the summed weight is greatest. What
is kept only grows as the cutoff falls, so a match holds for a range of
cutoffs, and the matching of one connected group of overlaps changes only
where the group gains a prediction.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import csgraph


class Overlaps(NamedTuple):
    """The pairs that may be matched, `[n]` each.

    Attributes:
        prediction: Indices of predictions.
        ground_truth: Indices of boxes.
        weight: Positive integers: what is gained by matching them.
        num_cutoffs: How many of the lowest cutoffs keep the prediction.
    """

    prediction: np.ndarray
    ground_truth: np.ndarray
    weight: np.ndarray
    num_cutoffs: np.ndarray

    def select(self, index: np.ndarray) -> "Overlaps":
        """Picks some of the pairs, by indices or a mask."""
        return Overlaps(*(values[index] for values in self))


class Matches(NamedTuple):
    """Matched pairs, `[n]` each; at one cutoff nothing is matched twice.

    Attributes:
        prediction: Indices of predictions.
        ground_truth: Indices of boxes.
        start: Index of the first cutoff at which they are matched.
        stop: Index after the last one.
    """

    prediction: np.ndarray
    ground_truth: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def pairs_within_groups(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Lists all pairs of elements of the same group.

    Args:
        first: The groups of some elements, integers `[n]`.
        second: The groups of others, integers `[m]`.

    Returns:
        Indices into `first` and into `second`, both `[number of pairs]`.
    """
    order = np.argsort(second, kind="stable")
    ordered = second[order]
    start = np.searchsorted(ordered, first, "left")
    count = np.searchsorted(ordered, first, "right") - start
    skipped = start - np.cumsum(count) + count
    position = np.arange(count.sum()) + np.repeat(skipped, count)
    return np.repeat(np.arange(first.size), count), order[position]


def match(overlaps: Overlaps) -> Matches:
    """Finds a matching of the greatest weight at every cutoff.

    Where several are the greatest, it takes any of them.

    Args:
        overlaps: The pairs that may be matched, each once.

    Returns:
        The matched pairs; a pair may come several times, for separate ranges
        of cutoffs.

    Example:
        Two predictions for one box; the better is kept at one cutoff only.

        >>> match(Overlaps(*np.array([[0, 1], [0, 0], [9, 6], [1, 50]])))
        Matches(prediction=array([0, 1]), ground_truth=array([0, 0]),
                start=array([0, 1]), stop=array([ 1, 50]))
    """
    shared = np.bincount(overlaps.prediction) > 1
    rivals = np.zeros(overlaps.ground_truth.max(initial=-1) + 1, bool)
    rivals[overlaps.ground_truth[shared[overlaps.prediction]]] = True
    is_tangled = rivals[overlaps.ground_truth]
    parts = [_match_stars(overlaps.select(~is_tangled))]
    parts += _match_tangles(overlaps.select(is_tangled))
    return Matches(*map(np.concatenate, zip(*parts, strict=True)))


def _match_stars(overlaps: Overlaps) -> Matches:
    """Matches predictions that each overlap with one box only.

    Each box takes the best prediction that is kept: in order of falling
    weight, each gets the cutoffs that keep it and no better one.
    """
    order = np.lexsort(
        (overlaps.prediction, -overlaps.weight, overlaps.ground_truth)
    )
    overlaps = overlaps.select(order)
    # With an offset for each box, the maximum so far never mixes two boxes.
    offset = overlaps.ground_truth * overlaps.num_cutoffs.max(initial=0)
    highest = np.maximum.accumulate(offset + overlaps.num_cutoffs)
    before = np.concatenate([[0], highest])[:-1]
    start = np.maximum(before - offset, 0)
    found = start < overlaps.num_cutoffs
    return Matches(
        overlaps.prediction[found],
        overlaps.ground_truth[found],
        start[found],
        overlaps.num_cutoffs[found],
    )


def _match_tangles(overlaps: Overlaps) -> list[Matches]:
    """Matches connected groups of overlaps, one after the other."""
    if not overlaps.weight.size:
        return []
    size = overlaps.prediction.max() + 1
    nodes = size + overlaps.ground_truth.max() + 1
    graph = sparse.coo_array(
        (overlaps.weight, (overlaps.prediction, size + overlaps.ground_truth)),
        shape=(nodes, nodes),
    )
    _, group = csgraph.connected_components(graph, directed=False)
    group = group[overlaps.prediction]
    order = np.argsort(group, kind="stable")
    bounds = np.flatnonzero(np.diff(group[order])) + 1
    return [
        matches
        for part in np.split(order, bounds)
        for matches in _match_tangle(overlaps.select(part))
    ]


def _match_tangle(overlaps: Overlaps) -> list[Matches]:
    predictions, first, row = np.unique(
        overlaps.prediction, return_index=True, return_inverse=True
    )
    ground_truths, column = np.unique(
        overlaps.ground_truth, return_inverse=True
    )
    table = np.zeros((predictions.size, ground_truths.size), np.int64)
    table[row, column] = overlaps.weight
    num_cutoffs = overlaps.num_cutoffs[first]
    found = []
    start = 0
    for stop in np.unique(num_cutoffs):
        kept = np.flatnonzero(num_cutoffs >= stop)
        rows, columns = optimize.linear_sum_assignment(
            table[kept], maximize=True
        )
        rows = kept[rows]
        real = table[rows, columns] > 0
        rows, columns = rows[real], columns[real]
        found.append(
            Matches(
                predictions[rows],
                ground_truths[columns],
                np.full(rows.size, start),
                np.full(rows.size, stop),
            )
        )
        start = stop
    return found
