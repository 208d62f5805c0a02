"""The 40 attributes of CelebA, and how they are drawn together.

The names and their order are those of CelebA (Liu et al., "Deep Learning Face
Attributes in the Wild", ICCV 2015). Each attribute is drawn after those that
it depends on, with a rate for each of their combinations: a Bayesian network
whose tables were set so that the attributes are as frequent as in CelebA, to
about one percentage point, and lean on each other as in life: beards are
men's, gray hair is the old's, who is bald has no hair colour.
"""

import dataclasses

import numpy as np

NAMES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)


@dataclasses.dataclass(frozen=True)
class Rate:
    """How often an attribute holds.

    Attributes:
        rates: The probability for each combination of the parents, in
            [0, 1]; False comes before True, the last parent changes fastest.
        given: The parents: attributes that the probability depends on.
        never_with: Attributes that exclude this one.
    """

    rates: tuple[float, ...]
    given: tuple[str, ...] = ()
    never_with: tuple[str, ...] = ()


# In the order of drawing: parents come first.
RATES = {
    "Male": Rate((0.417,)),
    "Young": Rate((0.88, 0.625), ("Male",)),
    "Attractive": Rate((0.25, 0.74, 0.08, 0.40), ("Male", "Young")),
    "Smiling": Rate((0.54, 0.40), ("Male",)),
    "Chubby": Rate((0.08, 0.01, 0.20, 0.063), ("Male", "Young")),
    "Wearing_Hat": Rate((0.025, 0.081), ("Male",)),
    "Bald": Rate((0.0, 0.0, 0.125, 0.018), ("Male", "Young"), ("Wearing_Hat",)),
    "Gray_Hair": Rate((0.09, 0.0, 0.26, 0.005), ("Male", "Young"), ("Bald",)),
    "Blond_Hair": Rate((0.245, 0.025), ("Male",), ("Bald", "Gray_Hair")),
    "Black_Hair": Rate(
        (0.25, 0.37), ("Male",), ("Bald", "Gray_Hair", "Blond_Hair")
    ),
    "Brown_Hair": Rate(
        (0.43, 0.30),
        ("Male",),
        ("Bald", "Gray_Hair", "Blond_Hair", "Black_Hair"),
    ),
    "Receding_Hairline": Rate(
        (0.09, 0.045, 0.23, 0.11), ("Male", "Young"), ("Bald", "Wearing_Hat")
    ),
    "Bangs": Rate((0.22, 0.09), ("Male",), ("Bald", "Receding_Hairline")),
    "Wavy_Hair": Rate((0.46, 0.13), ("Male",), ("Bald",)),
    "Straight_Hair": Rate((0.32, 0.31), ("Male",), ("Bald", "Wavy_Hair")),
    "No_Beard": Rate((1.0, 0.604), ("Male",)),
    "5_o_Clock_Shadow": Rate((0.0, 0.0, 0.40, 0.18), ("Male", "No_Beard")),
    "Goatee": Rate((0.38, 0.0), ("No_Beard",)),
    "Mustache": Rate((0.0, 0.0, 0.22, 0.02), ("Male", "No_Beard")),
    "Sideburns": Rate((0.0, 0.0, 0.30, 0.028), ("Male", "No_Beard")),
    "Heavy_Makeup": Rate((0.48, 0.75, 0.003, 0.003), ("Male", "Attractive")),
    "Wearing_Lipstick": Rate(
        (0.525, 0.945, 0.006, 0.5), ("Male", "Heavy_Makeup")
    ),
    "Arched_Eyebrows": Rate((0.26, 0.50, 0.055, 0.3), ("Male", "Heavy_Makeup")),
    "Rosy_Cheeks": Rate((0.01, 0.154), ("Heavy_Makeup",)),
    "Wearing_Earrings": Rate((0.31, 0.02), ("Male",)),
    "Wearing_Necklace": Rate((0.20, 0.015), ("Male",)),
    "Wearing_Necktie": Rate((0.0, 0.0, 0.24, 0.135), ("Male", "Young")),
    "Bushy_Eyebrows": Rate((0.08, 0.23), ("Male",)),
    "Eyeglasses": Rate((0.06, 0.017, 0.18, 0.093), ("Male", "Young")),
    "Bags_Under_Eyes": Rate((0.25, 0.08, 0.45, 0.29), ("Male", "Young")),
    "Narrow_Eyes": Rate((0.09, 0.142), ("Smiling",)),
    "Big_Nose": Rate((0.32, 0.07, 0.55, 0.35), ("Male", "Young")),
    "Pointy_Nose": Rate((0.37, 0.20, 0.21, 0.13), ("Male", "Big_Nose")),
    "Big_Lips": Rate((0.285, 0.18), ("Male",)),
    "Mouth_Slightly_Open": Rate((0.24, 0.745), ("Smiling",)),
    "High_Cheekbones": Rate((0.25, 0.83, 0.10, 0.60), ("Male", "Smiling")),
    "Double_Chin": Rate((0.022, 0.45), ("Chubby",)),
    "Oval_Face": Rate((0.335, 0.245), ("Male",), ("Chubby",)),
    "Pale_Skin": Rate((0.056, 0.024), ("Male",)),
    "Blurry": Rate((0.045, 0.059), ("Male",)),
}


def draw_attributes(generator: np.random.Generator) -> dict[str, bool]:
    """Draws the attributes of one face.

    Args:
        generator: Source of randomness; one uniform number for each
            attribute is taken, whatever they are.

    Returns:
        A bool for each of `NAMES`, in their order.
    """
    uniforms = generator.random(len(RATES)).tolist()
    drawn = {}
    for (name, rate), uniform in zip(RATES.items(), uniforms, strict=True):
        row = 0
        for parent in rate.given:
            row = 2 * row + drawn[parent]
        excluded = any(drawn[other] for other in rate.never_with)
        drawn[name] = not excluded and uniform < rate.rates[row]
    return {name: drawn[name] for name in NAMES}
