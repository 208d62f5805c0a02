"""Paints the hair, and the hat over it.

The canvas is that of `parts.py`.
"""

import numpy as np

from data.drawn_faces.canvas import Canvas, Colour, between, curve, mix, shade
from data.drawn_faces.face import CROWN, DARK, WHITE, Face

_ANGLES = np.linspace(np.pi, 2.0 * np.pi, 41)
_DOME = curve(np.cos(_ANGLES), np.sin(_ANGLES))
_DOWN = np.linspace(0.0, 1.0, 9)
_NUM_STRANDS = 14


def paint_hair_behind(canvas: Canvas, face: Face) -> None:
    """Paints the hair behind the head: long, or to the chin, or none."""
    if face.has["Bald"] or face.has["Male"]:
        return
    styled = face.has["Wavy_Hair"] or face.has["Straight_Hair"]
    end = (98.0 if styled else 48.0) + 5.0 * face.normal["length"]
    spread = face.width + 11.0 + 2.0 * face.normal["volume"]
    y = np.linspace(4.0, end, 25)
    if face.has["Wavy_Hair"]:
        x = spread + 4.5 * np.sin(y / 5.5 + 2.0 * np.pi * face.uniform["wave"])
    elif face.has["Straight_Hair"]:
        x = np.full_like(y, spread)
    else:
        x = spread - 12.0 * (y / end) ** 3
    canvas.polygon(
        np.concatenate([_DOME * [spread, 74.0], between(y, x, -x)[:, ::-1]]),
        face.hair,
    )
    if styled:
        for side in canvas.pair():
            for number, inset in enumerate((3.0, 8.0, 13.0, 18.0, 26.0)):
                strand = curve(x - inset, y)
                side.line(strand, 1.5, _strand_colour(face, number))


def paint_hair(canvas: Canvas, face: Face) -> None:
    """Paints the hair on the head down to the hairline."""
    has = face.has
    if has["Bald"]:
        return
    volume = 6.0 + 1.2 * face.normal["volume"]
    bumps = np.zeros_like(_ANGLES)
    if has["Wavy_Hair"]:
        bumps = 4.0 * np.abs(np.sin(6.0 * _ANGLES))
    elif has["Straight_Hair"]:
        bumps = 3.0 * (np.arange(bumps.size) % 2)
    radii = curve(face.width + volume + bumps, 1.6 * volume - CROWN + bumps)
    x = (face.width + 1.0) * np.linspace(1.0, -1.0, 33)
    y = _hairline(face, x)
    if has["Bangs"]:
        y += 2.5 * (np.arange(y.size) % 2)
    canvas.polygon(
        np.concatenate([_DOME * radii + [0.0, 4.0], curve(x, y)]), face.hair
    )
    if has["Wavy_Hair"] or has["Straight_Hair"]:
        _paint_strands(canvas, face)
    else:
        shine = mix(face.hair, WHITE, 0.5)
        canvas.glow((-8.0, -60.0), (34.0, 11.0), shine, 0.6)


def _hairline(face: Face, x: np.ndarray) -> np.ndarray:
    has, shift = face.has, face.normal["hairline"]
    place = np.abs(x) / (face.width + 1.0)
    if has["Bangs"]:
        return -18.0 + shift + 18.0 * place**12
    middle = -44.0 + shift
    if has["Receding_Hairline"]:
        corners = 9.0 * np.exp(-(((np.abs(x) - 22.0) / 9.0) ** 2))
        return middle - 9.0 - corners + (9.0 - middle) * place**6
    return middle + 0.06 * shift * x + (2.0 - middle) * place**4


def _paint_strands(canvas: Canvas, face: Face) -> None:
    place = np.linspace(-0.92, 0.92, _NUM_STRANDS)[:, np.newaxis]
    x = (0.45 + 0.55 * _DOWN) * place * face.width
    if face.has["Wavy_Hair"]:
        phases = np.arange(_NUM_STRANDS)[:, np.newaxis]
        x += 3.5 * _DOWN * np.sin(8.0 * _DOWN + phases)
    roots = -72.0 * np.sqrt(1.0 - 0.5 * place**2)
    ends = _hairline(face, place * face.width)
    y = roots + (ends - roots) * _DOWN
    for number in range(_NUM_STRANDS):
        strand = curve(x[number], y[number])
        canvas.line(strand, 1.5, _strand_colour(face, number))


def _strand_colour(face: Face, number: int) -> Colour:
    if number % 2:
        return mix(face.hair, DARK, 0.4)
    return mix(face.hair, WHITE, 0.2)


def paint_hat(canvas: Canvas, face: Face) -> None:
    """Paints a woollen cap or a hat with a brim."""
    if not face.has["Wearing_Hat"]:
        return
    colour, edge = face.colours["hat"], face.width
    if face.uniform["hat"] < 0.5:
        canvas.polygon(_DOME * [edge + 8.0, 56.0] + [0.0, -30.0], colour)
        cuff = np.array([[0, -47], [edge + 9, -45], [edge + 8, -25], [0, -28]])
        for side in canvas.pair():
            side.polygon(cuff, shade(colour, 0.7))
        canvas.ellipse((0.0, -88.0), (9.0, 8.0), shade(colour, 1.25))
    else:
        crown = np.array([[0, -82], [edge - 6, -87], [edge + 4, -34], [0, -34]])
        band = np.array([[0, -48], [edge + 3, -48], [edge + 4, -36], [0, -36]])
        for side in canvas.pair():
            side.polygon(crown, colour)
            side.polygon(band, shade(colour, 0.45))
        canvas.ellipse((0.0, -34.0), (edge + 26.0, 8.0), shade(colour, 0.85))
