"""Draws a face that shows its attributes.

A face is painted from back to front. The attributes decide what is painted;
all else (pose, light, colours, proportions) is drawn from a generator, in a
way that does not depend on the attributes: the same state of the generator
gives the same face with an attribute on or off. How each attribute is shown
is told in README.md of this folder.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageFilter

from data.drawn_faces import hair, parts
from data.drawn_faces.canvas import Canvas, fading_disc, ink
from data.drawn_faces.face import Face

HEIGHT = 218
WIDTH = 178
LANDMARKS = tuple(
    f"{part}_{axis}"
    for part in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
    for axis in "xy"
)

_ACROSS = np.repeat(np.linspace(-1.0, 1.0, WIDTH, dtype=np.float32), 3)
_LIGHT = fading_disc(110, 110, 0.7)
_LAMP = fading_disc(WIDTH + 70, HEIGHT + 50, 0.95).crop(
    (35, 50, WIDTH + 35, HEIGHT + 50)
)
_LAMP_COLOUR = (255, 246, 214)
_DOWN = np.linspace(-1.0, 1.0, HEIGHT, dtype=np.float32)[:, np.newaxis]


def draw_face(
    attributes: Mapping[str, bool], generator: np.random.Generator
) -> tuple[np.ndarray, dict[str, int]]:
    """Draws one face.

    Args:
        attributes: A bool for each name of `attributes.NAMES`. Where two
            cannot be seen together, a hat hides the top of the hair, and
            `Bald` leaves none.
        generator: Decides the rest.

    Returns:
        The image, `[218, 178, 3]` uint8, and the landmarks in pixels under
        CelebA's names, `lefteye_x`, `lefteye_y` and so on, where left is the
        left of the image.
    """
    face = Face.draw(attributes, generator)
    normal = face.normal
    head = Canvas.new(
        _background(face),
        origin=(
            88.5 + 3.0 * normal["shift_x"],
            103.0 + 3.0 * normal["shift_y"],
        ),
        scale=0.96 + 0.04 * normal["scale"],
        angle=0.06 * normal["tilt"],
    )
    # Turning the head moves the parts that stand out.
    features = head.moved(2.0 * normal["turn"])
    nose = head.moved(3.5 * normal["turn"])
    hair.paint_hair_behind(head, face)
    parts.paint_body(head, face)
    parts.paint_head(head, face)
    parts.paint_skin(features, face)
    parts.paint_beard(head, face)
    parts.paint_mouth(features, face)
    parts.paint_nose(nose, face)
    parts.paint_eyes(features, face)
    hair.paint_hair(head, face)
    hair.paint_hat(head, face)
    parts.paint_eyeglasses(features, face)
    parts.paint_earrings(head, face)
    image = _photograph(head.finish(), face, generator)
    return image, _find_landmarks(features, nose, face)


def _find_landmarks(features: Canvas, nose: Canvas, face: Face):
    corner = parts.half_mouth(face)
    points = [
        features.pixels((-parts.EYE, 0.0)),
        features.pixels((parts.EYE, 0.0)),
        nose.pixels((0.0, parts.NOSE)),
        features.pixels((-corner, parts.MOUTH)),
        features.pixels((corner, parts.MOUTH)),
    ]
    levels = np.round(points).astype(int).ravel().tolist()
    return dict(zip(LANDMARKS, levels, strict=True))


def _background(face: Face) -> Image.Image:
    """Paints a wall with lights, and for Attractive a portrait's lamp."""
    colours = face.colours
    rows = np.linspace(colours["top"], colours["bottom"], HEIGHT)
    image = Image.fromarray(rows[:, np.newaxis].astype(np.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.NEAREST
    )
    for number, (x, y) in enumerate(face.lights.tolist(), 1):
        colour = ink(colours[f"light_{number}"])
        image.paste(colour, (round(x), round(y)), _LIGHT)
    if face.has["Attractive"]:
        image.paste(_LAMP_COLOUR, (0, 0), _LAMP)
    return image


def _photograph(
    image: Image.Image, face: Face, generator: np.random.Generator
) -> np.ndarray:
    """Blurs, lights and grains an image."""
    if face.has["Blurry"]:
        image = image.filter(ImageFilter.GaussianBlur(3.2))
    uniform = face.uniform
    pixels = np.asarray(image).reshape(HEIGHT, 3 * WIDTH).astype(np.float32)
    pixels *= 1.0 + 0.24 * (uniform["light_x"] - 0.5) * _ACROSS
    pixels *= (
        0.9 + 0.2 * uniform["light"] + 0.16 * (uniform["light_y"] - 0.5) * _DOWN
    )
    grain = generator.integers(-128, 128, pixels.shape, np.int8)
    pixels += grain * np.float32(0.02 + 0.07 * uniform["grain"])
    np.clip(pixels, 0.0, 255.0, out=pixels)
    return pixels.astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
