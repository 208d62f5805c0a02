"""The presets' values, and what they refuse."""

import dataclasses

import pytest

from trainers.models.pointpillars import anchors, presets
from trainers.models.pointpillars.augmentation import Augmentation

VEHICLE = (4.73, 2.08, 1.77, 0.82)
CAR = (3.9, 1.6, 1.56, -1.0)


@pytest.mark.parametrize(
    ("name", "grid", "shared_map", "anchor", "max_pillars"),
    [
        ("graddrop2020", (512, 512), (512, 512), VEHICLE, 32_000),
        ("kitti", (496, 432), (248, 216), CAR, 12_000),
        ("small", (128, 128), (128, 128), VEHICLE, 8_000),
    ],
)
def test_values(name, grid, shared_map, anchor, max_pillars):
    preset = presets.PRESETS[name]
    assert preset.grid.shape == grid
    assert preset.map_shape == shared_map
    assert (*preset.anchor_size, preset.anchor_z) == anchor
    assert preset.max_pillars == max_pillars
    assert preset.max_points_per_pillar == 100
    assert (preset.positive_iou, preset.negative_iou) == (0.6, 0.45)
    assert (preset.nms_iou, preset.max_detections) == (0.3, 512)
    assert preset.block_depths == (3, 5, 5)
    halved = 2 if name == "small" else 1
    assert [halved * c for c in preset.block_channels] == [64, 128, 256]
    assert halved * preset.pillar_channels == 64
    assert halved * 3 * preset.upsampled_channels == 384
    assert anchors.num_anchors(preset) == 2 * shared_map[0] * shared_map[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_depths": (3, 5)}, "one of each"),
        ({"block_strides": (2, 2, 3)}, "multiples of the product 12"),
        ({"negative_iou": 0.2}, "from 1/3 to positive_iou"),
        ({"negative_iou": 0.7}, "from 1/3 to positive_iou"),
    ],
)
def test_contradictions(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(presets.KITTI, **changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (((0, 4), (0, 4), (1, 1), 1.0), "z_range: got"),
        (((4, 0), (0, 4), (0, 1), 1.0), "x_range: got"),
        (((0, 4), (0, 4.1), (0, 1), 0.5), "y_range: got .* multiple"),
    ],
)
def test_no_grid(values, message):
    with pytest.raises(ValueError, match=message):
        presets.Grid(*values)


@pytest.mark.parametrize(
    "values",
    [
        {"flip_axes": ("z",)},
        {"scales": (1.0, 0.9)},
        {"scales": (0.0, 1.0)},
        {"max_rotation": -0.1},
        {"num_pasted": -1},
    ],
)
def test_no_augmentation(values):
    with pytest.raises(ValueError, match="got .* expected"):
        Augmentation(**values)
