"""A face before it is painted: attributes, colours, proportions."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from data.drawn_faces.canvas import Colour, mix, shade

CROWN = -64.0
DARK = (34, 24, 26)
WHITE = (250, 250, 250)

_CHIN = 72.0
_SKINS = (
    (234, 192, 160),
    (222, 176, 140),
    (203, 152, 116),
    (172, 120, 86),
    (134, 90, 64),
    (108, 74, 54),
)
_PALE_SKIN = (242, 226, 220)
_HAIRS = {
    "Gray_Hair": (178, 180, 186),
    "Blond_Hair": (230, 194, 112),
    "Black_Hair": (26, 24, 28),
    "Brown_Hair": (98, 62, 36),
}
_OTHER_HAIRS = ((182, 78, 32), (140, 46, 38), (208, 122, 76))

_NORMAL = (
    "tilt", "shift_x", "shift_y", "scale", "turn", "width", "chin", "brow",
    "eye", "nose", "mouth", "lips", "smile", "hairline", "length", "volume",
    "skin", "hair",
)  # fmt: skip
_UNIFORM = (
    "skin", "hair", "iris", "lipstick", "eye_shadow", "metal", "frame", "rim",
    "lens", "hat", "earring", "wave", "light", "light_x", "light_y", "grain",
)  # fmt: skip
_COLOURS = (
    "top", "bottom", "light_1", "light_2", "light_3", "coat", "hat", "tie",
)  # fmt: skip
_NUM_LIGHTS = 3
_NUM_STUBBLES = 240
_VIVIDNESS = 0.6

_ANGLES = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
_COSINES, _SINES = np.cos(_ANGLES), np.sin(_ANGLES)


@dataclasses.dataclass(frozen=True)
class Face:
    """A face to paint; made by `Face.draw`.

    Attributes:
        has: The attributes by name.
        normal: What varies around a mean: standard normal, cut at 2.
        uniform: What varies over a range: uniform in [0, 1).
        colours: Random colours of background, clothes and hat.
        lights: Upper left pixels of lights in the background, `[3, 2]`.
        stubble: Where single hairs of a beard grow, `[240, 2]` in [-1, 1].
    """

    has: Mapping[str, bool]
    normal: Mapping[str, float]
    uniform: Mapping[str, float]
    colours: Mapping[str, Colour]
    lights: np.ndarray
    stubble: np.ndarray

    @classmethod
    def draw(
        cls, attributes: Mapping[str, bool], generator: np.random.Generator
    ) -> "Face":
        """Draws the properties that the attributes leave open.

        Args:
            attributes: A bool for each name of `attributes.NAMES`.
            generator: What is taken from it does not depend on them.
        """
        normal = generator.standard_normal(len(_NORMAL)).clip(-2.0, 2.0)
        uniform = generator.random(len(_UNIFORM))
        colours = generator.uniform(40.0, 230.0, [len(_COLOURS), 3])
        grays = colours.mean(axis=1, keepdims=True)
        colours = grays + _VIVIDNESS * (colours - grays)
        return cls(
            has=attributes,
            normal=dict(zip(_NORMAL, normal.tolist(), strict=True)),
            uniform=dict(zip(_UNIFORM, uniform.tolist(), strict=True)),
            colours=dict(zip(_COLOURS, colours.tolist(), strict=True)),
            lights=generator.uniform([-50, -50], [120, 110], [_NUM_LIGHTS, 2]),
            stubble=generator.uniform(-1.0, 1.0, [_NUM_STUBBLES, 2]),
        )

    def pick(self, name: str, options: Sequence[Colour]) -> Colour:
        """Picks one of the options, by the uniform number of that name."""
        return options[int(self.uniform[name] * len(options))]

    @functools.cached_property
    def skin(self) -> Colour:
        """Colour of the skin."""
        place = (len(_SKINS) - 1) * self.uniform["skin"] ** 1.5
        number = int(place)
        skin = mix(_SKINS[number], _SKINS[number + 1], place - number)
        if self.has["Pale_Skin"]:
            skin = mix(_PALE_SKIN, skin, 0.06)
        return shade(skin, 1.0 + 0.015 * self.normal["skin"])

    @functools.cached_property
    def hair(self) -> Colour:
        """Colour of the hair."""
        hair = self.pick("hair", _OTHER_HAIRS)
        for name, colour in _HAIRS.items():
            if self.has[name]:
                hair = colour
        return shade(hair, 1.0 + 0.06 * self.normal["hair"])

    @functools.cached_property
    def beard(self) -> Colour:
        """Colour of beard and eyebrows."""
        return mix(self.hair, DARK, 0.45)

    @property
    def width(self) -> float:
        """Half the width of the head."""
        return 43.0 + 1.2 * self.normal["width"] + 5.0 * self.has["Chubby"]

    @functools.cached_property
    def outline(self) -> np.ndarray:
        """Border of the head `[48, 2]`: right ear, chin, left ear, crown."""
        has = self.has
        below = _SINES > 0.0
        # Superellipses: the larger the exponent, the squarer the jaw.
        jaw = 2.1 + 0.8 * has["Male"] - 0.45 * has["Oval_Face"]
        power = 2.0 / np.where(below, jaw, 2.2)
        chin = _CHIN + 1.5 * self.normal["chin"] + 7.0 * has["Oval_Face"]
        x = self.width * np.sign(_COSINES) * np.abs(_COSINES) ** power
        y = np.sign(_SINES) * np.abs(_SINES) ** power
        y *= np.where(below, chin, -CROWN)
        fullness = 0.13 * has["Chubby"] - 0.05 * has["Oval_Face"]
        x *= 1.0 + fullness * np.exp(-(((y - 36.0) / 20.0) ** 2))
        return np.array([x, y]).T
