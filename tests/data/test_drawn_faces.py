import functools
import json
import pathlib
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder

from data import attribute_sets as attribute_data
from data import prepared
from data.drawn_faces import attributes, builder, drawing, examples, grid

# How often each attribute holds in CelebA's list_attr_celeba.txt, in percent.
_CELEBA = {
    "5_o_Clock_Shadow": 11.1, "Arched_Eyebrows": 26.7, "Attractive": 51.3,
    "Bags_Under_Eyes": 20.5, "Bald": 2.2, "Bangs": 15.2, "Big_Lips": 24.1,
    "Big_Nose": 23.5, "Black_Hair": 23.9, "Blond_Hair": 14.8, "Blurry": 5.1,
    "Brown_Hair": 20.5, "Bushy_Eyebrows": 14.2, "Chubby": 5.8,
    "Double_Chin": 4.7, "Eyeglasses": 6.5, "Goatee": 6.3, "Gray_Hair": 4.2,
    "Heavy_Makeup": 38.7, "High_Cheekbones": 45.5, "Male": 41.7,
    "Mouth_Slightly_Open": 48.3, "Mustache": 4.2, "Narrow_Eyes": 11.5,
    "No_Beard": 83.5, "Oval_Face": 28.4, "Pale_Skin": 4.3,
    "Pointy_Nose": 27.7, "Receding_Hairline": 8.0, "Rosy_Cheeks": 6.6,
    "Sideburns": 5.7, "Smiling": 48.2, "Straight_Hair": 20.8,
    "Wavy_Hair": 32.0, "Wearing_Earrings": 18.9, "Wearing_Hat": 4.8,
    "Wearing_Lipstick": 47.2, "Wearing_Necklace": 12.3,
    "Wearing_Necktie": 7.3, "Young": 77.4,
}  # fmt: skip
_EVERYWHERE = (0, 200, -200, 200)
_MOUTH = (0, 30, 24, 66)
_NOSE = (0, 26, -14, 44)
_BROWS = (0, 42, -36, -3)
_HAIR = (0, 90, -100, 125)
# Where a face shows an attribute: distances from its middle line, and heights,
# in units of which the eyes are 39 apart.
_REGIONS = {
    "5_o_Clock_Shadow": (0, 52, 14, 85),
    "Arched_Eyebrows": _BROWS,
    "Attractive": _EVERYWHERE,
    "Bags_Under_Eyes": (2, 38, -2, 22),
    "Bald": _HAIR,
    "Bangs": (0, 52, -65, 10),
    "Big_Lips": _MOUTH,
    "Big_Nose": _NOSE,
    "Black_Hair": _HAIR,
    "Blond_Hair": _HAIR,
    "Blurry": _EVERYWHERE,
    "Brown_Hair": _HAIR,
    "Bushy_Eyebrows": _BROWS,
    "Chubby": (20, 85, -90, 85),
    "Double_Chin": (0, 48, 40, 100),
    "Eyeglasses": (0, 62, -20, 26),
    "Goatee": (0, 24, 46, 104),
    "Gray_Hair": _HAIR,
    "Heavy_Makeup": (0, 46, -26, 16),
    "High_Cheekbones": (8, 55, -6, 50),
    "Male": _EVERYWHERE,
    "Mouth_Slightly_Open": _MOUTH,
    "Mustache": (0, 32, 22, 54),
    "Narrow_Eyes": (2, 38, -18, 12),
    "No_Beard": (0, 60, 5, 92),
    "Oval_Face": (0, 64, 0, 100),
    "Pale_Skin": (0, 60, -75, 125),
    "Pointy_Nose": _NOSE,
    "Receding_Hairline": (0, 60, -90, 12),
    "Rosy_Cheeks": (6, 50, 6, 44),
    "Sideburns": (25, 60, -28, 40),
    "Smiling": _MOUTH,
    "Straight_Hair": _HAIR,
    "Wavy_Hair": _HAIR,
    "Wearing_Earrings": (30, 72, 10, 58),
    "Wearing_Hat": (0, 100, -115, -15),
    "Wearing_Lipstick": _MOUTH,
    "Wearing_Necklace": (0, 44, 74, 125),
    "Wearing_Necktie": (0, 54, 74, 140),
    "Young": (0, 54, -52, 60),
}


# Pairs that go together in CelebA more, or less, often than by chance.
_TOGETHER = [
    ("Male", "Wearing_Necktie"), ("Male", "Bushy_Eyebrows"),
    ("Male", "Bags_Under_Eyes"), ("Young", "Attractive"),
    ("Heavy_Makeup", "Wearing_Lipstick"), ("Heavy_Makeup", "Rosy_Cheeks"),
    ("Smiling", "Mouth_Slightly_Open"), ("Smiling", "High_Cheekbones"),
    ("Chubby", "Double_Chin"), ("Mustache", "Goatee"),
]  # fmt: skip
_APART = [
    ("Male", "Wearing_Lipstick"), ("Male", "Wearing_Earrings"),
    ("Male", "Blond_Hair"), ("Male", "Wavy_Hair"), ("Male", "Attractive"),
    ("Young", "Gray_Hair"), ("Young", "Eyeglasses"), ("Young", "Chubby"),
    ("Big_Nose", "Pointy_Nose"),
]  # fmt: skip
_ONE_OF = [
    {"Bald", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"},
    {"Bald", "Straight_Hair", "Wavy_Hair"},
    {"Bald", "Bangs", "Receding_Hairline"},
    {"Bald", "Wearing_Hat"},
    {"Goatee", "No_Beard"},
]


@pytest.fixture(scope="module")
def drawn_attributes():
    generator = np.random.default_rng(0)
    rows = [attributes.draw_attributes(generator) for _ in range(10_000)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_attributes_are_as_frequent_as_in_celeba(drawn_attributes):
    assert list(drawn_attributes) == list(_CELEBA)
    for name, percent in _CELEBA.items():
        assert abs(100.0 * drawn_attributes[name].mean() - percent) < 1.2, name


def test_attributes_lean_on_each_other_as_in_life(drawn_attributes):
    def lift(first, second):
        both = drawn_attributes[first] & drawn_attributes[second]
        return both.mean() / (
            drawn_attributes[first].mean() * drawn_attributes[second].mean()
        )

    for pair in _TOGETHER:
        assert lift(*pair) > 1.2, pair
    for pair in _APART:
        assert lift(*pair) < 0.85, pair
    for names in _ONE_OF:
        assert sum(drawn_attributes[name] * 1 for name in names).max() == 1
    bearded = ~drawn_attributes["No_Beard"]
    for name in "5_o_Clock_Shadow", "Mustache", "Sideburns", "Wearing_Necktie":
        bearded = bearded | drawn_attributes[name]
    assert drawn_attributes["Male"][bearded].all()


def _draw(seed, **changes):
    has = dict.fromkeys(attributes.NAMES, False)
    has |= {"No_Beard": True, "Young": True, **changes}
    image, landmarks = drawing.draw_face(has, np.random.default_rng(seed))
    return image.astype(int), landmarks


@functools.cache
def _place(seed):
    """Returns where pixels are: how far from the middle, and how low."""
    _, landmarks = _draw(seed)
    left, right = (
        complex(landmarks[f"{side}eye_x"], landmarks[f"{side}eye_y"])
        for side in ("left", "right")
    )
    y, x = np.mgrid[: drawing.HEIGHT, : drawing.WIDTH]
    place = 39.0 * (x + 1j * y - (left + right) / 2.0) / (right - left)
    return np.abs(place.real), place.imag


def _change(name, seed, **others):
    """Returns by how many levels an attribute changes each pixel."""
    on, _ = _draw(seed, **{**others, name: True})
    off, _ = _draw(seed, **{**others, name: False})
    return np.abs(on - off).max(axis=-1)


@pytest.mark.parametrize("male", [False, True])
@pytest.mark.parametrize("name", attributes.NAMES)
def test_an_attribute_is_seen_where_it_belongs(name, male):
    nearest, farthest, top, bottom = _REGIONS[name]
    for seed in 0, 1:
        change, (x, y) = _change(name, seed, Male=male), _place(seed)
        inside = (x >= nearest) & (x <= farthest) & (y >= top) & (y <= bottom)
        assert np.sum(change[inside] > 24) >= 100
        assert change[inside].sum() > 0.97 * change.sum()


# Where else attributes that change several parts are seen.
_FURTHER_REGIONS = [
    ("Male", (25, 40, -16, -2)),
    ("Male", (30, 60, 48, 72)),
    ("Male", (48, 62, 20, 40)),
    ("Male", (70, 100, 100, 125)),
    ("Attractive", (15, 24, -6, 4)),
    ("Attractive", (60, 90, -60, 0)),
    ("Heavy_Makeup", (14, 26, -13, -7)),
    ("Heavy_Makeup", (30, 40, -12, 0)),
    ("Smiling", (18, 28, 32, 46)),
    ("Young", (0, 30, -42, -22)),
    ("Young", (33, 42, -7, 7)),
    ("Young", (10, 28, 24, 48)),
    ("Wearing_Necktie", (0, 5, 108, 120)),
    ("Wearing_Necktie", (14, 25, 88, 110)),
]


@pytest.mark.parametrize(("name", "region"), _FURTHER_REGIONS)
def test_an_attribute_is_seen_in_several_parts(name, region):
    nearest, farthest, top, bottom = region
    change, (x, y) = _change(name, seed=3), _place(3)
    inside = (x >= nearest) & (x <= farthest) & (y >= top) & (y <= bottom)
    assert np.sum(change[inside] > 24) >= 8


def test_attractive_says_nothing_about_the_face():
    change, (x, y) = _change("Attractive", seed=3), _place(3)
    assert not change[(x < 20.0) & (y > 12.0) & (y < 60.0)].any()


def _colour(x, y, **changes):
    """Returns the mean (red, green, blue) around a point of the face."""
    image, _ = _draw(5, **changes)
    across, down = _place(5)
    return image[np.hypot(across - x, down - y) < 3.0].mean(axis=0)


# Where an attribute makes a pale face with black hair darker or lighter.
_DARKER = {
    "5_o_Clock_Shadow": (25, 48), "Arched_Eyebrows": (22, -21),
    "Bags_Under_Eyes": (20, 11), "Bangs": (0, -28), "Big_Nose": (11, 27),
    "Bushy_Eyebrows": (14, -18), "Eyeglasses": (35, 2), "Goatee": (0, 72),
    "Heavy_Makeup": (20, -10), "High_Cheekbones": (31, 30),
    "Mustache": (12, 35), "Pointy_Nose": (0, 30), "Sideburns": (38, 10),
    "Straight_Hair": (50, 86), "Wavy_Hair": (45, 80),
}  # fmt: skip
_LIGHTER = {
    "Attractive": (65, -30), "Bald": (0, -55), "Double_Chin": (0, 78),
    "Mouth_Slightly_Open": (0, 43), "No_Beard": (33, 45),
    "Receding_Hairline": (22, -52), "Wearing_Earrings": (46, 30),
    "Wearing_Necktie": (15, 105), "Young": (0, -31),
}  # fmt: skip


@pytest.mark.parametrize("name", [*_DARKER, *_LIGHTER])
def test_an_attribute_is_there_when_it_is_true(name):
    pale = {"Pale_Skin": True, "Black_Hair": True}
    place = {**_DARKER, **_LIGHTER}[name]
    on = _colour(*place, **pale, **{name: True}).mean()
    off = _colour(*place, **pale, **{name: False}).mean()
    assert off - on > 12 if name in _DARKER else on - off > 12


def test_blurry_has_no_sharp_edges():
    sharpest = [
        np.abs(np.diff(_draw(5, Blurry=blurry)[0], axis=1)).max()
        for blurry in (True, False)
    ]
    assert sharpest[0] < 0.5 * sharpest[1]


def test_colours_are_what_they_are_called():
    black, blond, brown, gray, red = (
        _colour(0, -52, **{name: True})
        for name in (
            "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Chubby",
        )
    )  # fmt: skip
    assert black.max() < brown.max() < gray.min() < blond.max()
    assert blond[0] - blond[2] > 70 and np.ptp(gray) < 25
    assert red[0] - red[1] > 60 > brown[0] - brown[1]
    skin, pale = _colour(0, -20), _colour(0, -20, Pale_Skin=True)
    assert pale.min() > skin.max()
    lips, painted = _colour(0, 46), _colour(0, 46, Wearing_Lipstick=True)
    assert painted[0] - painted[1] > lips[0] - lips[1] + 30
    cheek, rosy = _colour(27, 24), _colour(27, 24, Rosy_Cheeks=True)
    assert rosy[0] - rosy[1] > cheek[0] - cheek[1] + 30
    bare, gold = _colour(0, 106), _colour(0, 106, Wearing_Necklace=True)
    assert gold[0] - gold[2] > bare[0] - bare[2] + 60


def test_sizes_go_the_way_of_their_names():
    def shown(mark, **changes):
        """Finds where a mark is seen, to tell how large that part is."""
        change, (x, y) = _change(mark, 6, **changes), _place(6)
        return x[change > 24], y[change > 24]

    lips = [
        len(shown("Wearing_Lipstick", Big_Lips=big)[0]) for big in (True, False)
    ]
    assert lips[0] > 1.4 * lips[1]
    for chubby in True, False:
        x, y = shown("Pale_Skin", Chubby=chubby, Male=True)
        cheeks = x[np.abs(y - 36.0) < 3.0].max()
        assert cheeks > 52.0 if chubby else cheeks < 50.0
    ovals = [shown("No_Beard", Oval_Face=oval) for oval in (True, False)]
    assert ovals[0][1].max() > ovals[1][1].max() + 4.0
    jaws = [x[np.abs(y - 55.0) < 3.0].max() for x, y in ovals]
    assert jaws[0] < jaws[1] - 1.0
    for name, lowest, highest in [
        ("Receding_Hairline", -65.0, -52.0),
        ("Bangs", -24.0, -10.0),
        ("Male", -48.0, -36.0),
    ]:
        x, y = shown("Pale_Skin", **{name: True})
        assert lowest < y[np.abs(x - 22.0) < 4.0].min() < highest
    whites = []
    for narrow in True, False:
        image, _ = _draw(6, Narrow_Eyes=narrow)
        x, y = _place(6)
        eyes = image[np.hypot(x - 19.5, y) < 11.0]
        whites.append(np.sum(eyes.min(axis=-1) > 200))
    assert whites[0] < 0.5 * whites[1]


def test_a_smile_has_its_corners_up():
    x, y = _place(7)
    for smiling in True, False:
        change = _change("Wearing_Lipstick", 7, Smiling=smiling)
        lips = change > 24
        corners = y[lips & (x > 13.0)].mean()
        middle = y[lips & (x < 5.0)].mean()
        assert middle - corners > 3.5 if smiling else middle - corners < 2.0


def test_parts_that_hide_others():
    for hidden, by in [
        ("Bangs", "Bald"),
        ("Wavy_Hair", "Bald"),
        ("Black_Hair", "Bald"),
        ("Receding_Hairline", "Wearing_Hat"),
    ]:
        shown = _change(hidden, seed=4, Male=True)
        covered = _change(hidden, seed=4, **{"Male": True, by: True})
        above = _place(4)[1] < -40.0
        assert shown[above].max() > 24 and not covered[above].any(), hidden


def test_landmarks_lie_on_the_parts():
    for seed in range(5):
        smile = {"Pale_Skin": True, "Smiling": seed % 2 == 1}
        image, landmarks = _draw(seed, **smile)
        points = {
            part: (landmarks[f"{part}_x"], landmarks[f"{part}_y"])
            for part in ("lefteye", "righteye", "nose", "leftmouth")
        }
        for eye in "lefteye", "righteye":
            x, y = points[eye]
            assert image[y - 1 : y + 2, x - 1 : x + 2].mean() < 110
            assert image[y + 14, x].mean() > 160
        change = _change("Wearing_Lipstick", seed, **smile)
        columns = np.flatnonzero((change > 40).any(axis=0))
        assert abs(columns[0] - landmarks["leftmouth_x"]) <= 3
        assert abs(columns[-1] - landmarks["rightmouth_x"]) <= 3
        change = _change("Pointy_Nose", seed)
        rows, columns = np.nonzero(change > 24)
        assert rows.min() < points["nose"][1] < rows.max()
        assert abs(columns.mean() - points["nose"][0]) < 4


def test_faces_lie_about_where_celebas_lie():
    drawn = [_draw(seed)[1] for seed in range(30)]
    for name, place in {
        "lefteye_x": 69, "lefteye_y": 111, "righteye_x": 108, "nose_x": 88,
        "nose_y": 136, "leftmouth_x": 73, "rightmouth_x": 105,
        "rightmouth_y": 152,
    }.items():  # fmt: skip
        places = [landmarks[name] for landmarks in drawn]
        assert abs(np.mean(places) - place) < 12 and np.std(places) > 1, name


def test_an_example_is_a_function_of_seed_split_and_number():
    first = examples.draw_example(5, "train", 7)
    np.random.seed(1)
    others = [
        examples.draw_example(5, "train", 8),
        examples.draw_example(5, "test", 7),
        examples.draw_example(6, "train", 7),
    ]
    again = examples.draw_example(5, "train", 7)
    np.testing.assert_array_equal(first["image"], again["image"])
    for part in "attributes", "landmarks", "identity":
        assert first[part] == again[part]
    for other in others:
        assert (other["image"] != first["image"]).mean() > 0.5
    assert first["image"].shape == (218, 178, 3)
    assert first["image"].dtype == np.uint8


def test_identities_do_not_repeat():
    identities = {
        examples.draw_example(0, split, index)["identity"]["Identity_No"]
        for split in examples.SPLITS
        for index in range(5)
    }
    assert len(identities) == 15 and min(identities) > 0


def test_the_rarest_attributes_of_a_face_come_first():
    faces = [
        {"hat": True, "blond": True, "scar": False},
        {"hat": False, "blond": True, "scar": True},
        {"hat": True, "blond": True, "scar": True},
        {"hat": True, "blond": False, "scar": False},
    ]
    assert grid.rarest(faces, 2) == [
        ["hat", "blond"],
        ["scar", "blond"],
        ["scar", "hat"],
        ["hat"],
    ]


def test_the_conventions_are_written_down():
    readme = pathlib.Path(examples.__file__).with_name("README.md").read_text()
    rows = [line.split("|") for line in readme.splitlines() if line[:1] == "|"]
    assert [row[1].strip() for row in rows[2:]] == list(_CELEBA)
    assert all(row[2].strip() for row in rows)


_CONTENTS = builder.Contents(train=3, validation=2, test=1, seed=4)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    path = builder.prepare(directory, _CONTENTS)
    assert path == directory / "drawn_faces" / "1.0.0"
    return directory


def test_the_schema_is_celebas(data_dir, tmp_path):
    celeb_a = celeb_a_dataset_builder.Builder(data_dir=tmp_path)
    celeb_a.info.features.save_config(tmp_path)
    ours, theirs = (
        json.loads((folder / "features.json").read_text())
        for folder in (data_dir / "drawn_faces" / "1.0.0", tmp_path)
    )
    assert ours == theirs
    assert list(attributes.NAMES) == celeb_a_dataset_builder.ATTR_HEADINGS


def test_it_is_read_without_our_code(data_dir, monkeypatch):
    path = data_dir / "drawn_faces" / "1.0.0"
    for module in [name for name in sys.modules if "drawn_faces" in name]:
        monkeypatch.setitem(sys.modules, module, None)
    read = tfds.builder_from_directory(path)
    sizes = {
        name: split.num_examples for name, split in read.info.splits.items()
    }
    assert sizes == {"train": 3, "validation": 2, "test": 1}
    faces = {
        face["identity"]["Identity_No"]: face
        for face in tfds.as_numpy(read.as_dataset(split="train"))
    }
    assert len(faces) == 3
    for index in range(3):
        drawn = examples.draw_example(4, "train", index)
        face = faces[drawn["identity"]["Identity_No"]]
        assert face["attributes"] == drawn["attributes"]
        assert face["landmarks"] == drawn["landmarks"]
        loss = np.abs(face["image"].astype(int) - drawn["image"])
        assert loss.mean() < 8


def test_the_experiments_read_it(data_dir):
    faces = attribute_data.AttributeSet("drawn_faces", ["attributes"], data_dir)
    assert faces.names == tuple(sorted(_CELEBA))
    drawn = examples.draw_example(4, "test", 0)["attributes"]
    np.testing.assert_array_equal(
        faces.labels("test"), [[drawn[name] for name in sorted(drawn)]]
    )


def _files(directory):
    return {
        path: path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_what_is_there_is_kept(data_dir, monkeypatch):
    before = _files(data_dir)
    monkeypatch.setenv("HOME", str(data_dir))
    builder.prepare("~", _CONTENTS)
    for other in (
        builder.Contents(train=4, validation=2, test=1, seed=4),
        builder.Contents(train=3, validation=2, test=1, seed=5),
    ):
        with pytest.raises(prepared.DataError) as caught:
            builder.prepare(data_dir, other)
        message = str(caught.value)
        assert "holds 3 train, 2 validation, 1 test faces of seed 4" in message
        assert str(other) in message and "\n" not in message
    assert _files(data_dir) == before


def test_a_foreign_folder_is_kept(tmp_path):
    path = tmp_path / "drawn_faces" / "1.0.0"
    path.mkdir(parents=True)
    (path / "metadata.json").write_text("[1]")
    before = _files(tmp_path)
    with pytest.raises(prepared.DataError, match="holds something else"):
        builder.prepare(tmp_path, _CONTENTS)
    assert _files(tmp_path) == before


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(prepared.DataError, match="file/.* cannot be written"):
        builder.prepare(tmp_path / "file", _CONTENTS)


def test_interrupted_it_leaves_nothing(tmp_path, monkeypatch):
    draw = examples.draw_example

    def interrupted(seed, split, index):
        if split == "validation":
            raise KeyboardInterrupt
        return draw(seed, split, index)

    monkeypatch.setattr(examples, "draw_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        builder.prepare(tmp_path, _CONTENTS)
    assert not list((tmp_path / "drawn_faces").iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test": 0}, "test: got 0 faces, expected at least 1"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_impossible_contents_are_refused(values, message):
    with pytest.raises(prepared.DataError, match=message):
        builder.Contents(**values)
