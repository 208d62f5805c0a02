"""Paints the parts of a face, each with the attributes it shows.

The canvas has its zero between the eyes, x to the right, y down. Parts that
come in twos are painted on a pair of canvases with x away from the middle.
"""

import numpy as np

from data.drawn_faces.canvas import Canvas, between, curve, mix, shade, shape
from data.drawn_faces.face import DARK, WHITE, Face

EYE = 19.5
NOSE = 25.0
MOUTH = 44.0

_IRISES = ((88, 58, 34), (60, 100, 150), (76, 116, 74), (50, 38, 30))
_LIPSTICKS = ((196, 16, 44), (222, 44, 104), (146, 14, 60), (226, 66, 56))
_EYE_SHADOWS = ((122, 70, 160), (60, 104, 176), (60, 140, 120), (170, 60, 110))
_METALS = ((236, 198, 80), (218, 222, 230))
_FRAMES = ((24, 22, 26), (92, 46, 24), (150, 26, 40), (40, 50, 110))
_BLUSH = (232, 64, 80)
_STUBBLE = (60, 70, 90)
_INSIDE_OF_MOUTH = (70, 14, 20)

_ALONG = np.linspace(-1.0, 1.0, 15)
_ARC = 1.0 - _ALONG**2
_ROUND = np.sqrt(_ARC)
_OUTWARD = np.linspace(0.0, 1.0, 9)
_TURN = np.linspace(0.0, 2.0 * np.pi, 25)

_BOTTOM = 170.0
_TIE_KNOT = shape("-6,98 6,98 4,107 -4,107")
_TIE = shape("-4,107 4,107 9,170 -9,170")
_SHIRT = shape("-16,116 0,100 16,116 12,170 -12,170")
_FOREHEAD = np.linspace(-24.0, 24.0, 9)
_NASOLABIAL_FOLD = shape("11,25 18,31 23,39 24,47")
_CROWS_FEET = shape("32,-2 39,-5"), shape("33,0 40,0"), shape("32,2 39,5")
_DIMPLE = shape("2,-10 5,-5 3,0")
_SIDEBURN = shape("1,-16 -9,-14 -10,26 -2,30")
_SHADOW_TOP = shape("-34,22 -14,33 0,31 14,33 34,22")
_BEARD_TOP = shape("-30,40 -22,55 0,59 22,55 30,40")
_GOATEE = shape("-13,54 -4,57 4,57 13,54 14,70 7,86 0,92 -7,86 -14,70")
_MUSTACHE = shape("0,31 9,31 19,36 22,43 15,40 0,39")
_BRIDGE = shape("-4.5,0 0,-2.5 4.5,0")


def paint_body(canvas: Canvas, face: Face) -> None:
    """Paints neck, shoulders and what is worn there."""
    has = face.has
    neck, shoulder = (28.0, 92.0) if has["Male"] else (19.0, 74.0)
    neckline = 103.0 if has["Male"] else 112.0
    opening = [[neck, 88], [neck - 5, 99], [0, neckline]]
    skin = np.array([[0, 20], [neck, 20], *opening])
    coat = np.array(
        [
            *opening,
            [0, _BOTTOM],
            [shoulder + 14, _BOTTOM],
            [shoulder, 110],
            [neck + 8, 96],
        ]
    )
    for side in canvas.pair():
        side.polygon(skin, shade(face.skin, 0.8))
        side.polygon(coat, face.colours["coat"])
    if has["Wearing_Necktie"]:
        collar = np.array(
            [[0, 100], [neck, 84], [neck + 6, 96], [16, 122], [0, 104]]
        )
        canvas.polygon(_SHIRT, WHITE)
        for side in canvas.pair():
            side.polygon(collar, WHITE)
        tie = face.colours["tie"]
        canvas.polygon(_TIE_KNOT, shade(tie, 0.7))
        canvas.polygon(_TIE, tie)
    if has["Wearing_Necklace"]:
        metal = face.pick("metal", _METALS)
        chain = curve(neck * _ALONG, 88.0 + 16.0 * _ARC)
        canvas.line(chain, 3.4, shade(metal, 0.6))
        for bead in chain:
            canvas.ellipse(bead, (2.4, 2.4), metal)
        canvas.ellipse((0.0, 108.0), (4.5, 5.5), metal)


def paint_head(canvas: Canvas, face: Face) -> None:
    """Paints ears, chins and the bare head."""
    edge = shade(face.skin, 0.72)
    for ear in canvas.pair(face.width, 8.0):
        ear.ellipse((0.0, 0.0), (6.5, 12.0), edge)
        ear.ellipse((-0.5, 0.0), (5.0, 10.0), shade(face.skin, 0.92))
    if face.has["Double_Chin"]:
        chin = face.outline[:, 1].max()
        canvas.ellipse((0.0, chin - 6.0), (34.0, 20.5), edge)
        canvas.ellipse((0.0, chin - 8.0), (33.0, 19.5), face.skin)
    canvas.polygon(1.02 * face.outline, edge)
    canvas.polygon(face.outline, face.skin)
    canvas.glow((0.0, -6.0), (40.0, 54.0), mix(face.skin, WHITE, 0.2), 0.8)
    if face.has["Bald"]:
        canvas.glow((8.0, -46.0), (24.0, 14.0), WHITE, 0.8)


def paint_skin(canvas: Canvas, face: Face) -> None:
    """Paints cheeks, bags and wrinkles."""
    has = face.has
    dark = shade(face.skin, 0.62)
    sides = canvas.pair()
    if has["High_Cheekbones"]:
        for side in sides:
            side.glow((31.0, 29.0), (14.0, 12.0), shade(face.skin, 0.7), 0.75)
            side.glow(
                (31.0, 11.0), (13.0, 8.0), mix(face.skin, WHITE, 0.8), 0.9
            )
    if has["Rosy_Cheeks"]:
        for side in sides:
            side.glow((27.0, 24.0), (15.0, 12.0), _BLUSH, 0.8)
    if has["Bags_Under_Eyes"]:
        for bag in canvas.pair(EYE):
            below = 9.0 + 5.0 * _ARC
            eye = between(9.0 * _ALONG, np.full_like(below, 7.0), below)
            bag.polygon(eye, mix(dark, (86, 50, 110), 0.5), 0.5)
            bag.line(curve(9.0 * _ALONG, below), 1.4, shade(dark, 0.8))
    if not has["Young"]:
        for y in -37.0, -31.0, -25.0:
            wrinkle = curve(_FOREHEAD, y - 2.0 * np.cos(_FOREHEAD / 9.0))
            canvas.line(wrinkle, 1.3, dark)
        for side in sides:
            side.line(_NASOLABIAL_FOLD, 1.6, dark)
            for foot in _CROWS_FEET:
                side.line(foot, 1.2, dark)


def paint_beard(canvas: Canvas, face: Face) -> None:
    """Paints stubble, sideburns, beard and goatee."""
    has = face.has
    jaw = face.outline[face.outline[:, 1] >= 12.0]
    if has["5_o_Clock_Shadow"]:
        tone = mix(face.skin, _STUBBLE, 0.5)
        canvas.polygon(np.concatenate([jaw, _SHADOW_TOP]), tone, 0.55)
        hairs = face.stubble * [face.width - 8.0, 20.0] + [0.0, 48.0]
        canvas.dots(hairs, mix(DARK, face.beard, 0.4))
    if has["Sideburns"]:
        for side in canvas.pair(face.width):
            side.polygon(_SIDEBURN, face.beard)
    if not has["No_Beard"]:
        cheek = np.array([[face.width - 12.0, 18.0]])
        beard = [1.03 * jaw, cheek * [-1.0, 1.0], _BEARD_TOP, cheek]
        canvas.polygon(np.concatenate(beard), face.beard, 0.88)
    if has["Goatee"]:
        canvas.polygon(_GOATEE, mix(face.beard, DARK, 0.2))


def half_mouth(face: Face) -> float:
    """Returns half the width of the mouth."""
    smile = 3.5 * face.has["Smiling"]
    return 15.5 + smile + 0.9 * face.normal["mouth"]


def paint_mouth(canvas: Canvas, face: Face) -> None:
    """Paints lips, teeth and dimples, and the moustache above them."""
    has = face.has
    half = half_mouth(face)
    lips = mix(face.skin, (170, 74, 70), 0.5)
    if has["Wearing_Lipstick"]:
        lips = face.pick("lipstick", _LIPSTICKS)
    full = 1.8 if has["Big_Lips"] else 1.0
    full *= 1.0 + 0.08 * face.normal["lips"]
    sag = (9.5 if has["Smiling"] else -1.0) + face.normal["smile"]
    gap = 7.0 if has["Mouth_Slightly_Open"] else 0.0
    x = half * _ALONG
    middle = MOUTH + sag * (_ARC - 0.5)
    top, bottom = middle - 0.35 * gap * _ARC, middle + 0.65 * gap * _ARC
    cupid = 1.0 - 0.35 * np.exp(-((_ALONG / 0.16) ** 2))
    upper = top - 4.0 * full * _ARC * cupid
    lower = bottom + 4.8 * full * _ARC
    canvas.polygon(between(x, upper, lower), lips)
    canvas.line(curve(x, lower), 1.2, shade(lips, 0.7))
    if has["Mouth_Slightly_Open"]:
        canvas.polygon(between(0.92 * x, top, bottom), _INSIDE_OF_MOUTH)
        teeth = top + 0.55 * gap * _ARC
        canvas.polygon(between(0.8 * x, top, teeth), WHITE)
    else:
        canvas.line(curve(x, middle), 1.8, shade(lips, 0.45))
    if has["Smiling"]:
        for corner in canvas.pair(half, MOUTH):
            corner.line(_DIMPLE, 1.4, shade(face.skin, 0.65))
    if has["Mustache"]:
        for side in canvas.pair():
            side.polygon(_MUSTACHE, mix(face.beard, DARK, 0.2))


def paint_nose(canvas: Canvas, face: Face) -> None:
    """Paints the nose: round or pointed."""
    big = face.has["Big_Nose"]
    width = 8.5 + 5.0 * big + 0.8 * face.normal["nose"]
    tip = NOSE + 3.0 * big
    dark, light = shade(face.skin, 0.7), shade(face.skin, 1.18)
    if face.has["Pointy_Nose"]:
        wing = 0.62 * width
        right = np.array([[0, -6], [wing, tip - 3], [0, tip + 7]])
        canvas.polygon(right * [-1.0, 1.0], shade(face.skin, 0.92))
        canvas.polygon(right, dark)
        canvas.line(np.array([[0, -6], [-1, tip + 2]]), 1.6, light)
        for side in canvas.pair():
            side.line(right[1:], 1.6, shade(dark, 0.7))
        return
    canvas.polygon(
        np.array([[3, -6], [5, 8], [width, tip], [3, tip]]), dark, 0.6
    )
    for wing in canvas.pair(0.72 * width, tip):
        wing.ellipse(
            (0.0, 0.0),
            (0.36 * width, 0.34 * width + 1.0),
            shade(face.skin, 0.84),
        )
    canvas.ellipse(
        (0.0, tip), (0.6 * width, 0.45 * width + 1.0), shade(face.skin, 0.95)
    )
    canvas.glow((-1.0, tip - 2.0), (0.6 * width, 0.5 * width), light, 0.9)
    for nostril in canvas.pair(0.5 * width, tip + 0.34 * width):
        nostril.ellipse((0.0, 0.0), (0.2 * width, 1.6), shade(dark, 0.5))


def paint_eyes(canvas: Canvas, face: Face) -> None:
    """Paints eyes with their make-up, and the eyebrows."""
    made_up = face.has["Heavy_Makeup"]
    half = 10.0 + 0.4 * face.normal["eye"]
    height = 2.3 if face.has["Narrow_Eyes"] else 5.4
    height += 0.3 * face.normal["eye"]
    x = half * _ALONG
    upper, lower = -height * _ROUND, 0.85 * height * _ROUND
    lid = between(1.2 * x, -3.0 - 10.0 * _ROUND, upper)
    white = between(x, upper, lower)
    upper_line, lower_line = curve(x, upper), curve(x, lower)
    crease = upper_line[1:-1] - [0.0, 3.5]
    reach = 5.0 if made_up else 3.0
    tip = [half + reach, -height - 0.5 * reach]
    lash = np.array([[0.85 * half, -0.3 * height], tip])
    iris = face.pick("iris", _IRISES)
    for eye in canvas.pair(EYE):
        if made_up:
            eye.polygon(lid, face.pick("eye_shadow", _EYE_SHADOWS), 0.75)
        eye.polygon(white, WHITE)
        eye.ellipse((0.0, 0.0), (5.0, min(5.0, 0.95 * height)), iris)
        eye.ellipse((0.0, 0.0), (2.4, min(2.4, 0.8 * height)), DARK)
        eye.line(lower_line, 0.8, shade(face.skin, 0.6))
        eye.line(upper_line, 2.8 if made_up else 1.6, DARK)
        eye.line(crease, 0.8, shade(face.skin, 0.7))
        if made_up or not face.has["Male"]:
            eye.line(lash, 1.8 if made_up else 1.2, DARK)
    if face.has["Attractive"]:
        for glint in canvas.moved(2.0, -0.35 * height).pair(EYE):
            glint.ellipse((0.0, 0.0), (1.7, min(1.7, 0.5 * height)), WHITE)
    _paint_brows(canvas, face)


def _paint_brows(canvas: Canvas, face: Face) -> None:
    base = -14.0 - 1.2 * face.normal["brow"]
    if face.has["Arched_Eyebrows"]:
        middle = base + 1.5 - 8.5 * np.sin(np.pi * _OUTWARD**1.4)
    else:
        middle = base - 1.5 * np.sin(np.pi * _OUTWARD)
    thickness = 3.6 if face.has["Bushy_Eyebrows"] else 1.5
    half = thickness * (1.15 - 0.85 * _OUTWARD**2)
    for side in canvas.pair():
        brow = between(8.0 + 24.0 * _OUTWARD, middle - half, middle + half)
        side.polygon(brow, face.beard)


def paint_eyeglasses(canvas: Canvas, face: Face) -> None:
    """Paints eyeglasses, round or square."""
    if not face.has["Eyeglasses"]:
        return
    frame = face.pick("frame", _FRAMES)
    power = 1.0 if face.uniform["rim"] < 0.5 else 0.55
    rim = curve(np.cos(_TURN), np.sin(_TURN))
    rim = np.sign(rim) * np.abs(rim) ** power * [15.5, 12.5]
    temple = np.array([[15.5, -3.0], [face.width - EYE, -2.0]])
    for lens in canvas.pair(EYE + 0.5, 1.5):
        lens.polygon(rim, (200, 220, 235), 0.1 + 0.2 * face.uniform["lens"])
        lens.line(rim, 2.8, frame)
        lens.line(temple, 2.8, frame)
    canvas.line(_BRIDGE, 2.8, frame)


def paint_earrings(canvas: Canvas, face: Face) -> None:
    """Paints earrings that hang below the ears."""
    if not face.has["Wearing_Earrings"]:
        return
    metal = face.pick("metal", _METALS)
    drop = 6.0 + 8.0 * face.uniform["earring"]
    for ear in canvas.pair(face.width + 3.0, 20.0):
        ear.line(np.array([[0.0, 0.0], [0.0, drop]]), 1.8, shade(metal, 0.7))
        ear.ellipse((0.0, drop), (4.6, 5.2), shade(metal, 0.6))
        ear.ellipse((0.0, drop), (3.6, 4.2), metal)
        ear.ellipse((-1.0, drop - 1.5), (1.3, 1.3), WHITE)
