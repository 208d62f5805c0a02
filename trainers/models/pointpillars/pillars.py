"""Groups points into pillars, and scatters pillars onto the grid.

A frame's pillars are a flat list of points that each name their pillar, and
not a block of (pillars x points of the fullest one): 200,000 points in place
of 3.2 million mostly empty slots. Everywhere, -1 marks padding.
"""

import tensorflow as tf

from trainers.models.pointpillars.presets import Grid, Preset


def pillarize(points, preset: Preset, seed) -> dict[str, tf.Tensor]:
    """Groups the points of a frame into pillars.

    Points outside of the grid are left out. Of a pillar with too many points,
    of too many pillars, and then of too many points in all, a random choice
    is kept.

    Args:
        points: `[N, F]` float32, x, y and z first; values beyond the preset's
            are left out.
        preset: Values of the detector.
        seed: Two integers, which decide all choices.

    Returns:
        `points` `[max_points, num_point_features]` float32; `pillars`
        `[max_points]` int32, the pillar of each point; and `cells`
        `[max_pillars]` int32, the place of each pillar on the grid, row by
        row.
    """
    seeds = tf.unstack(tf.random.split(seed, 3))
    points, cells = _points_on_grid(points, preset)
    rows, columns = preset.grid.shape
    counts = tf.math.unsorted_segment_sum(
        tf.ones_like(cells), cells, rows * columns
    )
    occupied = tf.cast(tf.where(counts > 0)[:, 0], tf.int32)
    occupied = _choose(occupied, preset.max_pillars, seeds[0])
    numbers = tf.tensor_scatter_nd_update(
        tf.fill([rows * columns], -1),
        occupied[:, None],
        tf.range(tf.size(occupied)),
    )
    pillars = tf.gather(numbers, cells)
    limit = preset.max_points_per_pillar
    crowded = (tf.gather(counts, cells) > limit) & (pillars >= 0)
    surplus = _surplus(pillars, tf.where(crowded)[:, 0], limit, seeds[1])
    pillars = tf.tensor_scatter_nd_update(
        pillars, surplus[:, None], tf.fill([tf.size(surplus)], -1)
    )
    kept = tf.where(pillars >= 0)[:, 0]
    kept = _choose(kept, preset.max_points, seeds[2])
    return {
        "points": _pad(tf.gather(points, kept), preset.max_points, 0.0),
        "pillars": _pad(tf.gather(pillars, kept), preset.max_points, -1),
        "cells": _pad(occupied, preset.max_pillars, -1),
    }


def _points_on_grid(points, preset: Preset) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the points inside the ranges, and their cells."""
    grid = preset.grid
    ranges = (grid.x_range, grid.y_range, grid.z_range)
    inside = tf.fill([tf.shape(points)[0]], True)
    for axis, (low, high) in enumerate(ranges):
        inside &= (points[:, axis] >= low) & (points[:, axis] < high)
    points = points[:, : preset.num_point_features]
    points = tf.boolean_mask(points, inside)
    corner = tf.constant([grid.x_range[0], grid.y_range[0]])
    place = tf.cast((points[:, :2] - corner) / grid.pillar_size, tf.int32)
    rows, columns = grid.shape
    # The last float below a limit may round up to it.
    place = tf.minimum(place, [columns - 1, rows - 1])
    return points, place[:, 1] * columns + place[:, 0]


def _surplus(pillars, rows, limit: int, seed) -> tf.Tensor:
    """Chooses at random the rows that exceed the limit of their pillar."""
    pillars = tf.cast(tf.gather(pillars, rows), tf.int64)
    draws = tf.cast(_draw(tf.size(rows), seed), tf.int64)
    # Sorted by pillar, in random order within one.
    order = tf.argsort(pillars * 2**32 + draws)
    pillars = tf.gather(pillars, order)
    # A point is surplus if the one `limit` places before is of its pillar.
    is_surplus = pillars[limit:] == pillars[:-limit]
    return tf.gather(rows, tf.boolean_mask(order[limit:], is_surplus))


def _choose(values, limit: int, seed) -> tf.Tensor:
    """Chooses up to `limit` values at random, in their order."""
    count = tf.size(values)

    def choose():
        order = tf.argsort(_draw(count, seed))
        return tf.gather(values, tf.sort(order[:limit]))

    return tf.cond(count <= limit, lambda: values, choose)


def _draw(count, seed) -> tf.Tensor:
    return tf.random.stateless_uniform([count], seed, None, None, tf.uint32)


def _pad(values, size: int, filler) -> tf.Tensor:
    missing = [[0, size - tf.shape(values)[0]]]
    missing += [[0, 0]] * (values.shape.rank - 1)
    padded = tf.pad(values, missing, constant_values=filler)
    return tf.ensure_shape(padded, [size, *values.shape[1:]])


def describe_points(points, pillars, cells, grid: Grid) -> tf.Tensor:
    """Computes the features of each point for the pillar network.

    Args:
        points: `[batch, N, F]`: x, y, z, intensity, ...
        pillars: `[batch, N]`.
        cells: `[batch, P]`.
        grid: Where the cells lie.

    Returns:
        `[batch, N, F + 5]`: the point, its offset to the mean of its pillar's
        points (x, y, z) and to the pillar's centre (x, y). The intensity,
        which has no upper limit on Waymo, is given as its hyperbolic tangent.
        Zeros for padding.
    """
    xyz = points[..., :3]
    ids = _flat_ids(pillars, cells.shape[1])
    means = tf.math.unsorted_segment_mean(xyz, ids, tf.size(cells))
    means = tf.gather(means, tf.maximum(ids, 0))
    own_cells = tf.gather(cells, tf.maximum(pillars, 0), batch_dims=1)
    columns = grid.shape[1]
    place = tf.stack([own_cells % columns, own_cells // columns], axis=-1)
    corner = tf.constant([grid.x_range[0], grid.y_range[0]])
    centres = corner + (tf.cast(place, tf.float32) + 0.5) * grid.pillar_size
    described = tf.concat(
        [
            xyz,
            tf.tanh(points[..., 3:4]),
            points[..., 4:],
            xyz - means,
            xyz[..., :2] - centres,
        ],
        axis=-1,
    )
    return tf.where(pillars[..., None] >= 0, described, 0.0)


def max_over_points(features, pillars, num_pillars: int) -> tf.Tensor:
    """Computes the maximum over the points of each pillar.

    Args:
        features: `[batch, N, C]`.
        pillars: `[batch, N]`.
        num_pillars: P.

    Returns:
        `[batch, P, C]`; the lowest number there is for a pillar without
        points.
    """
    ids = _flat_ids(pillars, num_pillars)
    count = tf.shape(pillars)[0] * num_pillars
    maxima = tf.math.unsorted_segment_max(features, ids, count)
    return tf.reshape(maxima, [-1, num_pillars, features.shape[-1]])


def scatter(features, cells, shape: tuple[int, int]) -> tf.Tensor:
    """Scatters pillars onto the grid.

    Args:
        features: `[batch, P, C]`.
        cells: `[batch, P]`.
        shape: Rows and columns of the grid.

    Returns:
        `[batch, rows, columns, C]`, zeros where there is no pillar.
    """
    rows, columns = shape
    ids = _flat_ids(cells, rows * columns)
    count = tf.shape(cells)[0] * rows * columns
    laid = tf.math.unsorted_segment_sum(features, ids, count)
    return tf.reshape(laid, [-1, rows, columns, features.shape[-1]])


def _flat_ids(ids, count: int) -> tf.Tensor:
    """Numbers `[batch, n]` below `count` so that no two examples share one."""
    offsets = tf.range(tf.shape(ids)[0])[:, None] * count
    return tf.where(ids >= 0, ids + offsets, -1)
