"""The area under a precision/recall curve, by the official rules."""

import numpy as np
from scipy import integrate

AP_RULES = ("2022", "2020")
_LARGEST_GAP = 0.05
_TOLERANCE = 1e-6


def average_precision(
    precision: np.ndarray, recall: np.ndarray, rule: str = "2022"
) -> float:
    """Computes the area under a precision/recall curve.

    From the highest recall to the lowest, each precision is the best that was
    reached at this recall or a higher one. Gaps of more than 0.05 are filled
    with points at that precision; between points the curve is a straight line.

    Args:
        precision: `[n]`, in any order.
        recall: `[n]`.
        rule: "2022" ends the curve at its highest recall, as the official op
            does since February 2022; "2020" goes on to recall 1 with
            precision 0, as it did before.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: For another rule.

    Example:
        >>> average_precision(np.array([0.5, 1.0]), np.array([1.0, 0.5]))
        0.7625
    """
    if rule not in AP_RULES:
        raise ValueError(
            f"ap_rule: got {rule!r}, expected one of {', '.join(AP_RULES)}."
        )
    best = {0.0: 1.0}
    if rule == "2020":
        best[1.0] = 0.0
    for p, r in zip(precision.tolist(), recall.tolist(), strict=True):
        best[r] = max(best.get(r, 0.0), p)
    recalls, precisions = [], []
    highest = 0.0
    for r in sorted(best, reverse=True):
        while recalls and recalls[-1] - r > _LARGEST_GAP + _TOLERANCE:
            recalls.append(recalls[-1] - _LARGEST_GAP)
            precisions.append(highest)
        highest = max(highest, best[r])
        recalls.append(r)
        precisions.append(highest)
    # Precision 1 at recall 0 is a convention, not a measurement.
    if len(precisions) > 1:
        precisions[-1] = precisions[-2]
    return float(integrate.trapezoid(precisions[::-1], recalls[::-1]))
