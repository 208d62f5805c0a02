"""The values of the detector: one frozen preset for each kind of data."""

import dataclasses
import math

from trainers.models.pointpillars.augmentation import Augmentation

# The overlap of a box with anchors too far from it to be looked at is no
# larger; see `anchors.py`.
_LEAST_NEGATIVE_IOU = 1 / 3


@dataclasses.dataclass(frozen=True)
class Grid:
    """The pillars seen from above; rows run along y and columns along x.

    Attributes:
        x_range: First and last x in metres.
        y_range: First and last y in metres.
        z_range: Lowest and highest z in metres; a pillar holds all of it.
        pillar_size: Side of a pillar in metres.

    Raises:
        ValueError: Where a range is empty, or no multiple of the size.
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    z_range: tuple[float, float]
    pillar_size: float

    def __post_init__(self):
        """Validates the fields."""
        for name in ("x_range", "y_range", "z_range"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(
                    f"{name}: got {(low, high)}, expected a lower and a "
                    "higher limit."
                )
        for name in ("x_range", "y_range"):
            low, high = getattr(self, name)
            count = (high - low) / self.pillar_size
            if not math.isclose(count, round(count), abs_tol=1e-6):
                raise ValueError(
                    f"{name}: got {(low, high)}, expected a multiple of the "
                    f"pillar size {self.pillar_size}."
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (along y) and columns (along x)."""
        return (
            round((self.y_range[1] - self.y_range[0]) / self.pillar_size),
            round((self.x_range[1] - self.x_range[0]) / self.pillar_size),
        )


@dataclasses.dataclass(frozen=True)
class Preset:
    """All values of a detector.

    Attributes:
        grid: The pillars.
        num_point_features: How many of a point's values are used: x, y, z,
            intensity and, where the lidar has it, elongation.
        max_points: Points kept of a frame.
        max_pillars: Pillars kept of a frame.
        max_points_per_pillar: Points kept of a pillar.
        pillar_channels: Width of the pillar network.
        block_depths: 3 x 3 convolutions in each block of the backbone, after
            its strided one.
        block_strides: Stride of each block's first convolution.
        block_channels: Width of each block.
        upsampled_channels: Width that each block is upsampled to; the map of
            all of them is where the losses' gradients meet.
        anchor_size: Length, width and height in metres.
        anchor_z: Height of the anchors' centres in metres.
        batch_norm_momentum: Of the moving statistics.
        positive_iou: Anchors that overlap a box at least so much stand for it.
        negative_iou: Anchors below this with every box are background.
        min_num_points: Boxes with fewer points are not trained on.
        score_threshold: The lowest score of a detection.
        max_candidates: Anchors, by score, that suppression looks at.
        nms_iou: Detections that overlap a better one by more are dropped.
        max_detections: Detections kept of a frame.
        augmentation: Random changes of training frames.

    Raises:
        ValueError: Where values contradict each other.
    """

    grid: Grid
    anchor_size: tuple[float, float, float]
    anchor_z: float
    num_point_features: int
    max_points: int
    max_pillars: int
    max_points_per_pillar: int = 100
    pillar_channels: int = 64
    block_depths: tuple[int, ...] = (3, 5, 5)
    block_strides: tuple[int, ...] = (1, 2, 2)
    block_channels: tuple[int, ...] = (64, 128, 256)
    upsampled_channels: int = 128
    batch_norm_momentum: float = 0.99
    positive_iou: float = 0.6
    negative_iou: float = 0.45
    min_num_points: int = 6
    score_threshold: float = 0.05
    max_candidates: int = 4096
    nms_iou: float = 0.3
    max_detections: int = 512
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)

    def __post_init__(self):
        """Validates the fields."""
        sizes = {
            len(self.block_depths),
            len(self.block_strides),
            len(self.block_channels),
        }
        if len(sizes) > 1:
            raise ValueError(
                "block_depths, block_strides, block_channels: got "
                f"{self.block_depths}, {self.block_strides}, "
                f"{self.block_channels}, expected one of each for a block."
            )
        stride = math.prod(self.block_strides)
        if any(size % stride for size in self.grid.shape):
            raise ValueError(
                f"grid: got {self.grid.shape} pillars, expected multiples of "
                f"the product {stride} of block_strides."
            )
        if not _LEAST_NEGATIVE_IOU <= self.negative_iou <= self.positive_iou:
            raise ValueError(
                f"negative_iou: got {self.negative_iou}, expected a value "
                f"from 1/3 to positive_iou ({self.positive_iou})."
            )

    @property
    def map_stride(self) -> float:
        """Metres from one position of the map to the next."""
        return self.grid.pillar_size * self.block_strides[0]

    @property
    def map_shape(self) -> tuple[int, int]:
        """Rows and columns of the map that the heads see."""
        rows, columns = self.grid.shape
        return rows // self.block_strides[0], columns // self.block_strides[0]


# The GradDrop authors' own values are not public. At 512 x 512 x 384
# activations, purity over several replicas would sum 906 million floats in
# each step: use methods with `sync_replicas=False`, which is what Algorithm 1
# run on each device does.
GRADDROP_2020 = Preset(
    grid=Grid((-76.8, 76.8), (-76.8, 76.8), (-3.0, 3.0), 0.3),
    anchor_size=(4.73, 2.08, 1.77),
    anchor_z=0.82,
    num_point_features=5,
    max_points=200_000,
    max_pillars=32_000,
)

KITTI = Preset(
    grid=Grid((0.0, 69.12), (-39.68, 39.68), (-3.0, 1.0), 0.16),
    anchor_size=(3.9, 1.6, 1.56),
    anchor_z=-1.0,
    num_point_features=4,
    max_points=70_000,
    max_pillars=12_000,
    block_strides=(2, 2, 2),
    augmentation=Augmentation(flip_axes=("y",)),
)

SMALL = dataclasses.replace(
    GRADDROP_2020,
    grid=Grid((-38.4, 38.4), (-38.4, 38.4), (-3.0, 3.0), 0.6),
    max_points=40_000,
    max_pillars=8_000,
    pillar_channels=32,
    block_channels=(32, 64, 128),
    upsampled_channels=64,
    max_candidates=1024,
)

KITTI_SMALL = dataclasses.replace(
    KITTI,
    pillar_channels=32,
    block_channels=(32, 64, 128),
    upsampled_channels=64,
)

PRESETS = {
    "graddrop2020": GRADDROP_2020,
    "kitti": KITTI,
    "small": SMALL,
    "kitti_small": KITTI_SMALL,
}
