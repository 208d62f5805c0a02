"""Antialiased shapes on an image, in units and axes of the caller's choice."""

import dataclasses
import functools

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
Point = tuple[float, float]

# Shapes are drawn at this many times the size, then averaged.
_SUPERSAMPLING = 2
_ANGLES = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
_CIRCLE = np.array([np.cos(_ANGLES), np.sin(_ANGLES)]).T


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Mixes two colours; `share` in [0, 1] is that of the second."""
    return tuple(
        (1.0 - share) * a + share * b
        for a, b in zip(first, second, strict=True)
    )


def shade(colour: Colour, factor: float) -> Colour:
    """Makes a colour darker (`factor` < 1) or lighter (> 1)."""
    return tuple(min(255.0, factor * value) for value in colour)


def fading_disc(width: int, height: int, opacity: float = 1.0) -> Image.Image:
    """Makes a mask: an ellipse that fades towards its border.

    Args:
        width: Of the mask, in pixels.
        height: Of the mask, in pixels.
        opacity: In the centre, in [0, 1].

    Returns:
        A mask to paste through.
    """
    x = np.linspace(-1.0, 1.0, width)
    y = np.linspace(-1.0, 1.0, height)[:, np.newaxis]
    density = opacity * np.square(np.maximum(0.0, 1.0 - x**2 - y**2))
    return Image.fromarray(np.round(255.0 * density).astype(np.uint8))


_cached_disc = functools.lru_cache(maxsize=1024)(fading_disc)


def ink(colour: Colour, opacity: float = 1.0) -> tuple[int, ...]:
    """Rounds a colour to what Pillow draws with."""
    levels = tuple(round(value) for value in colour)
    return levels if opacity == 1.0 else (*levels, round(255.0 * opacity))


def shape(text: str) -> np.ndarray:
    """Reads points written as "x,y x,y x,y"."""
    return np.array([point.split(",") for point in text.split()], float)


def curve(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Joins coordinates to points."""
    return np.array([x, y]).T


def between(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Makes the polygon between two curves over the same x."""
    return np.concatenate([curve(x, upper), curve(x, lower)[::-1]])


@dataclasses.dataclass(frozen=True)
class Canvas:
    """An image to draw on; made by `Canvas.new`.

    Points are (x, y) with y down, several of them an array `[n, 2]`; colours
    are (red, green, blue) in [0, 255]; opacities lie in (0, 1].

    Attributes:
        image: The drawing so far, larger than the final image.
        opaque: Draws over what is there.
        blending: Draws shapes through which what is there can be seen.
        unit: Pixels of `image` in a unit of length.
        matrix: `[2, 2]`; takes points to pixels of `image`, but for `origin`.
        origin: `[2]`; the pixel of `image` where x and y are zero.
    """

    image: Image.Image
    opaque: ImageDraw.ImageDraw
    blending: ImageDraw.ImageDraw
    unit: float
    matrix: np.ndarray
    origin: np.ndarray

    @classmethod
    def new(
        cls,
        background: Image.Image,
        *,
        origin: Point,
        scale: float = 1.0,
        angle: float = 0.0,
    ) -> "Canvas":
        """Makes a canvas.

        Args:
            background: What to draw on, of the final image's size; stays as
                it is.
            origin: The pixel (x, y) of the final image where both are zero.
            scale: Pixels of the final image in a unit of length.
            angle: How far the axes are turned clockwise, in radians.
        """
        image = background.resize(
            tuple(_SUPERSAMPLING * size for size in background.size),
            Image.Resampling.NEAREST,
        )
        unit = _SUPERSAMPLING * scale
        cosine, sine = np.cos(angle), np.sin(angle)
        return cls(
            image=image,
            opaque=ImageDraw.Draw(image),
            blending=ImageDraw.Draw(image, "RGBA"),
            unit=unit,
            matrix=unit * np.array([[cosine, sine], [-sine, cosine]]),
            origin=_SUPERSAMPLING * (np.array(origin) + 0.5) - 0.5,
        )

    def moved(self, x: float, y: float = 0.0) -> "Canvas":
        """Returns the same canvas, its axes starting at (x, y)."""
        return dataclasses.replace(self, origin=self._corners((x, y)))

    def pair(self, x: float = 0.0, y: float = 0.0) -> tuple["Canvas", "Canvas"]:
        """Returns the canvas moved to (x, y), and its mirror image.

        On both x points away from the middle: what is drawn on both is
        symmetric.
        """
        mirrored = dataclasses.replace(
            self, matrix=self.matrix * [[-1.0], [1.0]]
        )
        return self.moved(x, y), mirrored.moved(x, y)

    def pixels(self, point: Point) -> np.ndarray:
        """Returns the pixel (x, y) of the final image, `[2]`, at a point."""
        return (self._corners(point) + 0.5) / _SUPERSAMPLING - 0.5

    def polygon(
        self, points: np.ndarray, colour: Colour, opacity: float = 1.0
    ) -> None:
        """Fills a polygon."""
        self._pen(opacity).polygon(
            self._corners(points).ravel().tolist(), fill=ink(colour, opacity)
        )

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        colour: Colour,
        opacity: float = 1.0,
    ) -> None:
        """Fills an ellipse."""
        self.polygon(_CIRCLE * radii + centre, colour, opacity)

    def line(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """Draws a line through points; its width is in units of length."""
        self.opaque.line(
            self._corners(points).ravel().tolist(),
            fill=ink(colour),
            width=max(1, round(width * self.unit)),
        )

    def dots(self, points: np.ndarray, colour: Colour) -> None:
        """Draws dots, half a pixel of the final image wide."""
        self.opaque.point(
            self._corners(points).ravel().tolist(), fill=ink(colour)
        )

    def glow(
        self, centre: Point, radii: Point, colour: Colour, opacity: float
    ) -> None:
        """Fills an ellipse that fades towards its border.

        Args:
            centre: Where it is densest.
            radii: Along the edges of the image, whatever the axes.
            colour: The colour.
            opacity: In the centre; zero at the border.
        """
        width, height = (round(radius * self.unit) for radius in radii)
        x, y = self._corners(centre)
        self.image.paste(
            ink(colour),
            (round(x) - width, round(y) - height),
            _cached_disc(2 * width, 2 * height, opacity),
        )

    def finish(self) -> Image.Image:
        """Returns the drawing at its final size."""
        return self.image.reduce(_SUPERSAMPLING)

    def _corners(self, points: np.ndarray | Point) -> np.ndarray:
        return points @ self.matrix + self.origin

    def _pen(self, opacity: float) -> ImageDraw.ImageDraw:
        return self.opaque if opacity == 1.0 else self.blending
