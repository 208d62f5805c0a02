"""Decodes a frame by the official package, for comparison."""

import numpy as np


def decode(frame) -> dict[str, np.ndarray]:
    """Computes the points of a frame by the official utilities.

    Args:
        frame: The `Frame`.

    Returns:
        `points`, `returns` and `in_no_label_zone` as `frames.decode` gives
        them, in the same order.
    """
    from waymo_open_dataset.utils import frame_utils

    images, projections, _, poses = (
        frame_utils.parse_range_image_and_camera_projection(frame)
    )
    points, returns, flags = [], [], []
    for index in range(2):
        clouds, _ = frame_utils.convert_range_image_to_point_cloud(
            frame, images, projections, poses, index, keep_polar_features=True
        )
        for name, cloud in zip(sorted(images), clouds, strict=True):
            image = np.reshape(
                images[name][index].data, images[name][index].shape.dims
            )
            points.append(cloud[:, [3, 4, 5, 1, 2]])
            returns.append(np.full(len(cloud), index + 1, np.uint8))
            flags.append(image[image[..., 0] > 0.0][:, 3] > 0.0)
    return {
        "points": np.concatenate(points),
        "returns": np.concatenate(returns),
        "in_no_label_zone": np.concatenate(flags),
    }
