"""Reads KITTI's object detection frames from their original folders.

    training/velodyne/000000.bin    float32: x, y, z, reflectance of each point
    training/label_2/000000.txt     an object a line, in the camera's frame
    training/calib/000000.txt       from the lidar to the camera to its image

Examples are those of `data.lidar.examples`, in the lidar's frame; the
elongation is 0. Objects are labelled only where the left colour camera sees
them, so all points outside of its image count as in a no-label zone. KITTI has
no difficulty of Waymo's kind: it comes from the number of points alone.

A Van is the neighbour of a Car, and a Person_sitting that of a Pedestrian. As
in KITTI's own evaluation, a detection that matches one is left out. In training
both are background, as all other objects are.

Geiger et al., "Are we ready for autonomous driving? The KITTI vision benchmark
suite", CVPR 2012; the layout is that of its object development kit.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from data.lidar import examples, labels

# The rest (Truck, Tram, Misc) is UNKNOWN: it matches none of Waymo's types.
TYPES = {
    "Car": labels.VEHICLE,
    "Van": labels.VEHICLE_NEIGHBOUR,
    "Pedestrian": labels.PEDESTRIAN,
    "Person_sitting": labels.PEDESTRIAN_NEIGHBOUR,
    "Cyclist": labels.CYCLIST,
}
IMAGE_SIZE = (1242, 375)
_IGNORED = "DontCare"
_NUM_LABEL_FIELDS = 15
_POINT_BYTES = 16
_BYTES_OF_FIVE_COLUMNS = 20


def frame_names(directory: str | os.PathLike) -> list[str]:
    """Lists the frames of a folder.

    Args:
        directory: The folder `training` or `testing`.

    Returns:
        Names such as `000000`, in order.

    Raises:
        LidarDataError: If there are none.
    """
    folder = pathlib.Path(directory) / "velodyne"
    names = sorted(path.stem for path in folder.glob("*.bin"))
    if not names:
        raise examples.LidarDataError(
            f"{folder}: got no *.bin files, expected KITTI's lidar frames; "
            "give the folder that holds velodyne, label_2 and calib."
        )
    return names


def read_scan(path: pathlib.Path) -> np.ndarray:
    """Reads the points of a scan as an example has them, `[N, 5]`.

    Raises:
        LidarDataError: If it is missing or damaged.
    """
    return np.pad(_scan(path), ((0, 0), (0, 1)))


def calibration_path(scan: pathlib.Path) -> pathlib.Path:
    """Returns where KITTI's layout has the calibration of a scan."""
    return scan.absolute().parent.parent / "calib" / f"{scan.stem}.txt"


def read_seen_points(scan: pathlib.Path) -> np.ndarray:
    """Reads the points of a scan in the camera's image, `[N, 5]`.

    Raises:
        LidarDataError: If the scan or its calibration is missing or damaged.
    """
    points = read_scan(scan)
    calibration = _calibration(calibration_path(scan))
    return points[_in_image(points, calibration, IMAGE_SIZE)]


def read_frame(
    directory: str | os.PathLike,
    name: str,
    image_size: tuple[int, int] = IMAGE_SIZE,
) -> examples.Example:
    """Reads a frame.

    Args:
        directory: The folder `training`, or `testing`, which has no labels.
        name: Such as `000000`.
        image_size: Width and height of the camera's images; they differ from
            drive to drive by up to 18 and 6 pixels.

    Returns:
        The example.

    Raises:
        LidarDataError: If a file is missing or damaged; the message names the
            file, and the line if there is one.
    """
    directory = pathlib.Path(directory)
    calibration = _calibration(directory / "calib" / f"{name}.txt")
    path = directory / "velodyne" / f"{name}.bin"
    points = read_scan(path)
    label_folder = directory / "label_2"
    types, boxes = [], np.zeros((0, 7), np.float32)
    if label_folder.is_dir():
        types, boxes = _labels(label_folder / f"{name}.txt", calibration)
    num_points = labels.count_points(points, boxes)
    with examples.located(str(path)):
        return examples.check(
            {
                "points": points,
                "returns": np.full(
                    len(points), examples.FIRST_RETURN, np.uint8
                ),
                "in_no_label_zone": ~_in_image(points, calibration, image_size),
                "boxes": boxes,
                "types": np.array(types, np.int32),
                "difficulties": labels.difficulties(
                    np.zeros(len(boxes), np.int32), num_points
                ),
                "num_points": num_points,
                "segment": "kitti",
                "frame": name,
            }
        )


def read(
    directory: str | os.PathLike, names: Sequence[str] | None = None
) -> Iterator[examples.Example]:
    """Reads frames one by one.

    Args:
        directory: See `read_frame`.
        names: Which frames; None for all.

    Yields:
        The example of each.

    Raises:
        LidarDataError: See `read_frame`.
    """
    for name in frame_names(directory) if names is None else names:
        yield read_frame(directory, name)


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise examples.LidarDataError(
            f"{path}: cannot be read ({error.strerror})."
        ) from error


def _scan(path: pathlib.Path) -> np.ndarray:
    """Reads points `[N, 4]`, float32."""
    raw = _bytes(path)
    if _has_five_columns(raw):
        raise examples.LidarDataError(
            f"{path}: got five numbers for each point, as in nuScenes, "
            "expected KITTI's four: x, y, z, reflectance."
        )
    if len(raw) % _POINT_BYTES:
        raise examples.LidarDataError(
            f"{path}: got {len(raw)} bytes, expected {_POINT_BYTES} for each "
            "point; get the file again."
        )
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(-1, 4)


def _has_five_columns(raw: bytes) -> bool:
    """Returns whether points have x, y, z, an intensity and one number more.

    KITTI's reflectance is in [0, 1]. Read with the wrong number of columns, the
    fourth one has coordinates in it, which are not, and some are negative.
    """
    if len(raw) % _BYTES_OF_FIVE_COLUMNS:
        return False
    numbers = np.frombuffer(raw, "<f4")
    if not np.isfinite(numbers).all():
        return False
    fits_four = (
        numbers.size % 4 == 0
        and ((numbers[3::4] >= 0.0) & (numbers[3::4] <= 1.0)).all()
    )
    return not fits_four and bool((numbers[3::5] >= 0.0).all())


def _numbers(texts: Sequence[str], count: int) -> np.ndarray:
    try:
        numbers = np.array(texts, np.float64)
    except ValueError:
        numbers = np.full(count, np.nan)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise examples.LidarDataError(
            f"got {' '.join(texts)!r}, expected {count} finite numbers."
        )
    return numbers


def _calibration(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the matrices that take points to the camera and its image."""
    lines = dict(
        line.split(":", 1)
        for line in _bytes(path).decode(errors="replace").splitlines()
        if ":" in line
    )
    shapes = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
    matrices = {}
    for key, shape in shapes.items():
        with examples.located(f"{path}, {key}"):
            matrix = np.eye(4)
            matrix[: shape[0], : shape[1]] = _numbers(
                lines.get(key, "").split(), shape[0] * shape[1]
            ).reshape(shape)
            matrices[key] = matrix
    return matrices


def _camera_from_lidar(calibration: dict[str, np.ndarray]) -> np.ndarray:
    return calibration["R0_rect"] @ calibration["Tr_velo_to_cam"]


def _in_image(scan, calibration, image_size) -> np.ndarray:
    """Returns which points the camera sees, `[N]`."""
    projection = calibration["P2"] @ _camera_from_lidar(calibration)
    u, v, depth = (scan[:, :3] @ projection[:3, :3].T + projection[:3, 3]).T
    width, height = image_size
    return (
        (depth > 0.0)
        & (u >= 0.0)
        & (u < width * depth)
        & (v >= 0.0)
        & (v < height * depth)
    )


def _labels(
    path: pathlib.Path, calibration: dict[str, np.ndarray]
) -> tuple[list[int], np.ndarray]:
    """Reads types and boxes in the lidar's frame, `[M, 7]`, float32.

    In the camera's frame x goes to the right, y down and z ahead; a label has
    the middle of the bottom, and turns about y from x away from z.
    """
    lidar_from_camera = np.linalg.inv(_camera_from_lidar(calibration))
    types, boxes = [], []
    lines = _bytes(path).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        kind, *texts = line.split() or [_IGNORED]
        if kind == _IGNORED:
            continue
        with examples.located(f"{path}, line {number}"):
            # A 16th field is the score of a detection.
            numbers = _numbers(
                texts[: _NUM_LABEL_FIELDS - 1], _NUM_LABEL_FIELDS - 1
            )
        height, width, length, x, y, z, turn = numbers[7:]
        center = lidar_from_camera @ (x, y - height / 2, z, 1.0)
        ahead = lidar_from_camera @ (np.cos(turn), 0.0, -np.sin(turn), 0.0)
        heading = np.arctan2(ahead[1], ahead[0])
        types.append(TYPES.get(kind, labels.UNKNOWN))
        boxes.append([*center[:3], length, width, height, heading])
    return types, np.array(boxes, np.float32).reshape(-1, 7)
