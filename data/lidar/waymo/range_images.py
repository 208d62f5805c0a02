"""From range images to points, in NumPy.

A range image holds what one lidar saw in one turn: a row for each beam, the
highest first, and a column for each azimuth, from behind the vehicle clockwise
round to behind it. Its channels are range, intensity, elongation and the
no-label-zone flag; a pixel with a range above 0 is a point.

Angles are float32 from the start, as in the official utilities: rounded
elsewhere they would move points by 2e-5 m.
"""

import dataclasses
import zlib

import numpy as np

from data.lidar import examples

_CHANNELS = ("range", "intensity", "elongation", "no-label zone")
_POSE_CHANNELS = ("roll", "pitch", "yaw", "x", "y", "z")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The mounting of a lidar and the directions of its beams.

    Attributes:
        extrinsic: Takes points from the lidar to the vehicle, `[4, 4]`.
        inclinations: Of the beams in radians, the lowest first, `[H]`; empty
            where the beams lie evenly in `inclination_range`.
        inclination_range: The lower and the upper end.
    """

    extrinsic: np.ndarray
    inclinations: np.ndarray
    inclination_range: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Rays:
    """The rays of the pixels of a range image, in the vehicle frame.

    Attributes:
        origins: Where the rays start, `[3]` for all or `[H, W, 3]`, float32.
        directions: Vectors of length 1, `[H, W, 3]`, float32.
    """

    origins: np.ndarray
    directions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of one return of one lidar.

    Attributes:
        values: x, y, z in the vehicle frame, intensity, elongation, `[N, 5]`,
            float32.
        in_no_label_zone: Which of them lie in a no-label zone, `[N]`, bool.
    """

    values: np.ndarray
    in_no_label_zone: np.ndarray


def image_of(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Shapes a flat list of values.

    Args:
        values: All values, float32.
        shape: Rows, columns and channels.

    Returns:
        The image `[H, W, channels]`.

    Raises:
        LidarDataError: If the values do not fill the shape.
    """
    if len(shape) != 3 or min(shape) < 1 or values.size != np.prod(shape):
        raise examples.LidarDataError(
            f"got {values.size} values for the shape {list(shape)}, expected "
            "rows x columns x channels of them."
        )
    return values.reshape(shape)


def inflate(compressed: bytes) -> bytes:
    """Decompresses zlib data.

    Args:
        compressed: The compressed bytes.

    Returns:
        The bytes.

    Raises:
        LidarDataError: If they are damaged.
    """
    try:
        return zlib.decompress(compressed)
    except zlib.error as error:
        raise examples.LidarDataError(
            f"got {len(compressed)} bytes that zlib cannot read ({error})."
        ) from error


def row_inclinations(calibration: Calibration, num_rows: int) -> np.ndarray:
    """Lists the inclination of each row of a range image, the highest first.

    Args:
        calibration: The lidar's calibration.
        num_rows: Rows of the image, H.

    Returns:
        Radians, `[H]`, float32.

    Raises:
        LidarDataError: If the lidar has another number of beams, or none.
    """
    beams = calibration.inclinations.astype(np.float32)
    if not beams.size:
        low, high = np.float32(calibration.inclination_range)
        if not low < high:
            raise examples.LidarDataError(
                f"calibration: got beam inclinations from {low:g} to {high:g}, "
                "expected a range or a list of beams."
            )
        rows = np.arange(num_rows, dtype=np.float32)
        beams = (rows + np.float32(0.5)) / num_rows * (high - low) + low
    if beams.shape != (num_rows,):
        raise examples.LidarDataError(
            f"got an image of {num_rows} rows, expected {beams.size} as the "
            "calibration has beams."
        )
    return beams[::-1]


def column_azimuths(extrinsic: np.ndarray, num_columns: int) -> np.ndarray:
    """Lists the azimuth of each column, in the frame of the lidar.

    Args:
        extrinsic: Takes points from the lidar to the vehicle, `[4, 4]`.
        num_columns: Columns of the image, W.

    Returns:
        Radians, `[W]`, float32, falling. Whichever way the lidar is turned,
        the first column looks to the back of the vehicle.
    """
    x, y = extrinsic[:2, 0].astype(np.float32)
    columns = np.arange(num_columns, dtype=np.float32)
    share = (num_columns - columns - np.float32(0.5)) / num_columns
    return (share * 2.0 - 1.0) * np.float32(np.pi) - np.arctan2(y, x)


def decode(
    images: dict[int, np.ndarray],
    calibration: Calibration,
    pixel_poses: np.ndarray | None = None,
    vehicle_pose: np.ndarray | None = None,
) -> dict[int, Points]:
    """Computes the points of a lidar.

    Args:
        images: The range image of each return by its number, `[H, W, 4]`,
            float32.
        calibration: The lidar's calibration.
        pixel_poses: See `pixel_rays`.
        vehicle_pose: See `pixel_rays`.

    Returns:
        The points of each return.

    Raises:
        LidarDataError: If the shapes do not fit, or a range is not finite.
    """
    shapes = {image.shape[:2] for image in images.values()}
    if len(shapes) != 1:
        raise examples.LidarDataError(
            f"got returns of the shapes {sorted(shapes)}, expected one."
        )
    rays = pixel_rays(shapes.pop(), calibration, pixel_poses, vehicle_pose)
    points = {}
    for number, image in images.items():
        with examples.located(f"return {number}"):
            points[number] = returned_points(image, rays)
    return points


def pixel_rays(
    shape: tuple[int, int],
    calibration: Calibration,
    pixel_poses: np.ndarray | None = None,
    vehicle_pose: np.ndarray | None = None,
) -> Rays:
    """Computes the ray of each pixel of a range image.

    With the inclination i of the row and the azimuth a of the column, and with
    the extrinsic's rotation R and translation t, the ray starts at t and goes
    along `R (cos i cos a, cos i sin a, sin i)`. Where each pixel has a pose of
    its own, that takes the ray on to the world, and the inverse of the
    vehicle's pose takes it back to the vehicle.

    Args:
        shape: Rows and columns, H and W.
        calibration: The lidar's calibration.
        pixel_poses: The vehicle's roll, pitch, yaw, x, y, z in the world when
            each pixel was measured, `[H, W, 6]`, or None.
        vehicle_pose: Takes points from the vehicle to the world, `[4, 4]`;
            needed with `pixel_poses`.

    Returns:
        The rays.

    Raises:
        LidarDataError: If the shapes do not fit.
    """
    rows = row_inclinations(calibration, shape[0])[:, None]
    columns = column_azimuths(calibration.extrinsic, shape[1])[None, :]
    level, up = np.cos(rows), np.sin(rows)
    extrinsic = calibration.extrinsic.astype(np.float32)
    directions = _rotated(
        extrinsic, (level * np.cos(columns), level * np.sin(columns), up)
    )
    origins = extrinsic[:3, 3]
    if pixel_poses is not None:
        expected = (*shape, len(_POSE_CHANNELS))
        if pixel_poses.shape != expected:
            raise examples.LidarDataError(
                f"got pixel poses of the shape {list(pixel_poses.shape)}, "
                f"expected {list(expected)}."
            )
        origins, directions = _through_world(
            origins, directions, pixel_poses, vehicle_pose
        )
        origins = np.stack(origins, axis=-1)
    return Rays(origins, np.stack(directions, axis=-1))


def returned_points(image: np.ndarray, rays: Rays) -> Points:
    """Computes the points of a range image.

    Args:
        image: The range image `[H, W, 4]`, float32.
        rays: The rays of its pixels.

    Returns:
        The points of all pixels with a range above 0, row by row.

    Raises:
        LidarDataError: If the image has no such channels, or a range that is
            not finite.
    """
    if image.shape[2] < len(_CHANNELS):
        raise examples.LidarDataError(
            f"got {image.shape[2]} channels, expected {', '.join(_CHANNELS)}."
        )
    ranges = np.ascontiguousarray(image[..., 0])
    if not np.isfinite(ranges).all():
        row, column = np.argwhere(~np.isfinite(ranges))[0]
        raise examples.LidarDataError(
            f"row {row}, column {column}: got the range "
            f"{ranges[row, column]}, expected a finite number."
        )
    seen = np.flatnonzero(ranges > 0.0)
    # np.take copies rows at twice the speed of an index.
    pixels = np.take(image.reshape(-1, image.shape[2]), seen, axis=0)
    xyz = np.take(rays.directions.reshape(-1, 3), seen, axis=0)
    xyz *= pixels[:, :1]
    if rays.origins.ndim == 1:
        xyz += rays.origins
    else:
        xyz += np.take(rays.origins.reshape(-1, 3), seen, axis=0)
    values = np.concatenate([xyz, pixels[:, 1:3]], axis=1)
    return Points(values, pixels[:, 3] > 0.0)


def _rotated(matrix, vector) -> list[np.ndarray]:
    """Multiplies the rotation of a matrix with x, y and z."""
    x, y, z = vector
    return [a * x + b * y + c * z for a, b, c in matrix[:3, :3]]


def _through_world(origins, directions, poses, vehicle_pose):
    """Moves rays from the pose of their pixel to that of the vehicle.

    The rotations are float32; the places in the world, thousands of metres
    from its origin, are subtracted from each other first, in float64.
    """
    roll, pitch, yaw = np.ascontiguousarray(np.moveaxis(poses[..., :3], -1, 0))
    turns = [(np.cos(a), np.sin(a)) for a in (roll, pitch, yaw)]
    back = vehicle_pose[:3, :3].T.astype(np.float32)
    moved = (poses[..., 3:] - vehicle_pose[:3, 3]).astype(np.float32)
    vectors = []
    for (x, y, z), offset in (
        (origins, np.moveaxis(moved, -1, 0)),
        (directions, (0.0, 0.0, 0.0)),
    ):
        (cos_roll, sin_roll), (cos_pitch, sin_pitch), (cos_yaw, sin_yaw) = turns
        y, z = cos_roll * y - sin_roll * z, sin_roll * y + cos_roll * z
        x, z = cos_pitch * x + sin_pitch * z, cos_pitch * z - sin_pitch * x
        x, y = cos_yaw * x - sin_yaw * y, sin_yaw * x + cos_yaw * y
        world = [a + b for a, b in zip((x, y, z), offset, strict=True)]
        vectors.append(_rotated(back, world))
    return vectors
