"""A picture of many drawn faces with their rarest attributes."""

import collections
import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from data.drawn_faces import drawing, examples

_ROWS = 5
_COLUMNS = 10
_SIZE = (drawing.WIDTH * 4 // 7, drawing.HEIGHT * 4 // 7)
_GAP = 6
_NUM_WORDS = 4
_LINE_HEIGHT = 12
_FONT_SIZE = 10
_NUM_COLOURS = 256


def draw_grid(seed: int) -> bytes:
    """Draws the first fifty training faces of a seed.

    Args:
        seed: As for `examples.draw_example`.

    Returns:
        A PNG; below each face stand its rarest attributes.
    """
    drawn = [
        examples.draw_example(seed, "train", index)
        for index in range(_ROWS * _COLUMNS)
    ]
    captions = rarest([face["attributes"] for face in drawn], _NUM_WORDS)
    width = _SIZE[0] + _GAP
    height = _SIZE[1] + _GAP + _NUM_WORDS * _LINE_HEIGHT
    grid = Image.new("RGB", (_COLUMNS * width, _ROWS * height), "white")
    pen = ImageDraw.Draw(grid)
    font = ImageFont.load_default(_FONT_SIZE)
    for index, face in enumerate(drawn):
        row, column = divmod(index, _COLUMNS)
        x, y = column * width + _GAP // 2, row * height + _GAP // 2
        image = Image.fromarray(face["image"])
        grid.paste(image.resize(_SIZE, Image.Resampling.BOX), (x, y))
        caption = "\n".join(captions[index]).replace("_", " ")
        pen.text((x, y + _SIZE[1]), caption, "black", font, spacing=1)
    png = io.BytesIO()
    palette = grid.quantize(_NUM_COLOURS)
    grid.quantize(palette=palette).save(png, "PNG", optimize=True)
    return png.getvalue()


def rarest(
    faces: Sequence[Mapping[str, bool]], num_names: int
) -> list[list[str]]:
    """Names the rarest attribute of each face.

    Args:
        faces: Their attributes.
        num_names: How many names are enough for a face.

    Returns:
        For each face the attributes that it has, those of the fewest faces
        first.
    """
    counts = collections.Counter(
        name for face in faces for name, holds in face.items() if holds
    )
    names = [[name for name in face if face[name]] for face in faces]
    return [sorted(held, key=counts.get)[:num_names] for held in names]
