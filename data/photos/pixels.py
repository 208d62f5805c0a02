"""Image files, as TensorFlow decodes them."""

import io
import pathlib

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from data import prepared

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ORIENTATION = 0x0112
_UPRIGHT = 1
# Pillow fails in its own way for every format.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    tf.errors.OpError,
)


def encoded(path: pathlib.Path) -> bytes:
    """Reads an image file as JPEG or PNG.

    JPEG and PNG files are returned as they are, unless they are to be turned
    or are of CMYK; all others become a PNG of red, green and blue.

    Args:
        path: The file, in a format of `SUFFIXES`.

    Returns:
        What `tf.io.decode_image` decodes.

    Raises:
        prepared.DataError: If it cannot be read as an image.
    """
    return _read(path)[0]


def decoded(path: pathlib.Path) -> np.ndarray:
    """Reads an image file as `[height, width, 3]`, uint8.

    Args:
        path: The file, in a format of `SUFFIXES`.

    Raises:
        prepared.DataError: If it cannot be read as an image.
    """
    return _read(path)[1]


def _read(path: pathlib.Path) -> tuple[bytes, np.ndarray]:
    try:
        content = path.read_bytes()
        if not _is_plain(content):
            content = _to_png(content)
        pixels = tf.io.decode_image(
            content, channels=3, expand_animations=False
        ).numpy()
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or "damaged"
        if isinstance(error, UnidentifiedImageError):
            reason = "in no known format"
        raise prepared.DataError(
            f"{path}: cannot be read as an image ({reason})."
        ) from None
    return content, pixels


def _is_plain(content: bytes) -> bool:
    """Returns whether TensorFlow decodes a file to the same pixels."""
    with Image.open(io.BytesIO(content)) as image:
        upright = image.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT
        decodes = image.format == "PNG" or (
            image.format == "JPEG" and image.mode in ("L", "RGB")
        )
        return upright and decodes


def _to_png(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        png = io.BytesIO()
        ImageOps.exif_transpose(image).convert("RGB").save(png, "PNG")
        return png.getvalue()
