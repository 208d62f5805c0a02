"""Folders of small drawn image files."""

import numpy as np
from PIL import Image


def draw(path, size=(9, 7), seed=0, mode="RGB", **options):
    """Writes an image file of (width, height); returns its pixels."""
    generator = np.random.default_rng(seed)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    shape = (size[1], size[0], *channels)
    pixels = generator.integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path, **options)
    return pixels


def write_csv(path, *lines):
    """Writes a table, a text for each line; returns its path."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def draw_several(folder, names):
    """Writes images of sizes that differ."""
    for i, name in enumerate(names):
        draw(folder / name, (8 + i, 12 - i % 5), seed=i)
