"""The official message classes, if they are installed."""

import types

from data.lidar import examples

PACKAGE = "waymo-open-dataset-tf-2-12-0==1.6.7"


def load() -> types.ModuleType:
    """Imports the official `dataset_pb2`.

    Returns:
        The module with `Frame`, `MatrixFloat` and the other messages.

    Raises:
        LidarDataError: If the package is not installed, or not usable.
    """
    try:
        from waymo_open_dataset import dataset_pb2
    # With an incompatible protobuf it raises other errors than ImportError.
    except Exception as error:
        raise examples.LidarDataError(
            "Waymo frames need the official package, but importing it failed "
            f"({error}); run make setup, or pip install --no-deps {PACKAGE}."
        ) from error
    return dataset_pb2
