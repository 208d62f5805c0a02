"""The breakdowns of the Waymo detection metric, by their official names."""

import itertools
from collections.abc import Collection

from data.lidar import labels

LEVELS = (1, 2)
RANGES = ("[0, 30)", "[30, 50)", "[50, +inf)")
RANGE_BOUNDS = (30.0, 50.0)
OFFICIAL_IOU_THRESHOLDS = {
    "VEHICLE": 0.7,
    "PEDESTRIAN": 0.5,
    "SIGN": 0.5,
    "CYCLIST": 0.5,
}


def breakdown(type_name: str, level: int, range_name: str | None = None) -> str:
    """Returns the official name of a breakdown.

    Args:
        type_name: One of `labels.TYPES` but the first.
        level: One of `LEVELS`.
        range_name: One of `RANGES`, or None for all ranges together.
    """
    if range_name is None:
        return f"OBJECT_TYPE_TYPE_{type_name}_LEVEL_{level}"
    return f"RANGE_TYPE_{type_name}_{range_name}_LEVEL_{level}"


BREAKDOWNS = (
    *(breakdown(*row) for row in itertools.product(labels.TYPES[1:], LEVELS)),
    *(
        breakdown(type_name, level, range_name)
        for type_name, range_name, level in itertools.product(
            labels.TYPES[1:], RANGES, LEVELS
        )
    ),
)


def of_types(type_names: Collection[str]) -> list[str]:
    """Lists the breakdowns of some types, in the order of `BREAKDOWNS`."""
    ranges = (None, *RANGES)
    rows = {
        breakdown(*each)
        for each in itertools.product(type_names, LEVELS, ranges)
    }
    return [name for name in BREAKDOWNS if name in rows]


def row(type_name: str, level: int, range_name: str | None = None) -> int:
    """Returns the index of a breakdown in `BREAKDOWNS`."""
    return BREAKDOWNS.index(breakdown(type_name, level, range_name))
