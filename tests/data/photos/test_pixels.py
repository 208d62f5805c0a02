"""Every image file becomes what TensorFlow decodes to the same pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import prepared
from data.photos import pixels
from tests.data.photos.drawn import draw


def decode(content):
    return tf.io.decode_image(content, channels=3).numpy()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".gif"])
def test_files_without_loss_keep_their_pixels(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    options = {".webp": {"lossless": True}}.get(suffix, {})
    drawn = draw(path, **options)
    found = pixels.decoded(path)
    if suffix == ".gif":
        # 256 colours of its own.
        with Image.open(path) as image:
            drawn = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(found, drawn)
    np.testing.assert_array_equal(decode(pixels.encoded(path)), drawn)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_file_is_kept_as_it_is(tmp_path, mode):
    path = tmp_path / "a.jpg"
    draw(path, mode=mode)
    assert pixels.encoded(path) == path.read_bytes()
    assert pixels.decoded(path).shape == (7, 9, 3)


def test_a_grey_image_has_three_equal_channels(tmp_path):
    drawn = draw(tmp_path / "a.png", mode="L")
    found = pixels.decoded(tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.stack([drawn] * 3, axis=-1))


def test_transparency_is_left_out(tmp_path):
    drawn = draw(tmp_path / "a.png", mode="RGBA")
    found = pixels.decoded(tmp_path / "a.png")
    np.testing.assert_array_equal(found, drawn[..., :3])


def test_a_file_of_four_inks_becomes_red_green_and_blue(tmp_path):
    path = tmp_path / "a.jpg"
    draw(path, mode="CMYK")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels.decoded(path), expected)


def test_a_photo_is_turned_upright(tmp_path):
    """Orientation 6: the camera was turned, the file says by how much."""
    upright = np.zeros([4, 6, 3], np.uint8)
    upright[0, :, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.rot90(upright))
    image.save(tmp_path / "a.png", exif=exif)
    found = pixels.decoded(tmp_path / "a.png")
    np.testing.assert_array_equal(found, upright)
    np.testing.assert_array_equal(
        decode(pixels.encoded(tmp_path / "a.png")), upright
    )


def test_sixteen_bits_keep_the_high_eight(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = pixels.decoded(tmp_path / "a.png")
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 1, 255])


def spoilt(path, kind):
    if kind == "text":
        path.write_text("no image")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        draw(path, (64, 64))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif"])
@pytest.mark.parametrize("kind", ["text", "empty", "cut", "folder", "missing"])
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, kind, suffix):
    path = spoilt(tmp_path / f"a{suffix}", kind)
    for read in (pixels.encoded, pixels.decoded):
        with pytest.raises(prepared.DataError) as caught:
            read(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: cannot be read as an image (")
        assert "\n" not in text


def test_a_file_is_read_from_memory_alone(tmp_path):
    """Pillow would keep it open."""
    content = io.BytesIO()
    Image.new("RGB", (3, 2)).save(content, "TIFF")
    (tmp_path / "a.tif").write_bytes(content.getvalue())
    assert pixels.decoded(tmp_path / "a.tif").shape == (2, 3, 3)
