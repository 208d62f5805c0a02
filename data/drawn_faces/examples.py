"""Examples of drawn faces: a function of seed, split and number alone."""

from typing import Any

import numpy as np

from data.drawn_faces import attributes, drawing

SPLITS = ("train", "validation", "test")


def draw_example(seed: int, split: str, index: int) -> dict[str, Any]:
    """Draws one example.

    Args:
        seed: At least 0.
        split: One of `SPLITS`.
        index: Number of the example in its split, from 0.

    Returns:
        The features of CelebA: `image` `[218, 178, 3]` uint8, and by their
        names `landmarks`, integers in pixels, `attributes`, 40 bools, and
        `identity`, an integer that no other example of the seed has.
    """
    number = SPLITS.index(split)
    generator = np.random.default_rng([seed, number, index])
    drawn = attributes.draw_attributes(generator)
    image, landmarks = drawing.draw_face(drawn, generator)
    return {
        "image": image,
        "landmarks": landmarks,
        "attributes": drawn,
        "identity": {"Identity_No": len(SPLITS) * index + number + 1},
    }
