"""From a folder of images to predictions, by commands alone."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from launch import command, export, predict, prepare_images, train
from tests.data.photos.drawn import draw, write_csv

_SHORT = [
    "--config=photos", "--config.height=8", "--config.width=8",
    "--config.channels=1", "--config.batch_size=2", "--config.steps=2",
    "--config.steps_per_epoch=1", "--config.monitor_steps=0",
]  # fmt: skip
_NAMES = [f"{i}.{'png' if i % 2 else 'jpg'}" for i in range(12)]


def run(module, *arguments):
    assert command.guarded(module.main, arguments) == 0


def message(capsys, module, *arguments):
    """Returns the one line about a mistake."""
    assert command.guarded(module.main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of photos, a set, and a run of two attributes."""
    root = tmp_path_factory.mktemp("own")
    for i, name in enumerate(_NAMES):
        draw(root / "photos" / name, (9 + i, 14 - i % 4), seed=i)
    (root / "photos" / "bad.png").write_text("no image")
    rows = [
        f"{name},{i % 2},{['', 1, 0][i % 3]}" for i, name in enumerate(_NAMES)
    ]
    write_csv(root / "labels.csv", "file,red,big", *rows, "bad.png,1,1")
    run(
        prepare_images, f"--images={root / 'photos'}",
        f"--labels={root / 'labels.csv'}", f"--data_dir={root / 'sets'}",
        "--name=mine", "--test_share=0.3", "--skip_bad",
    )  # fmt: skip
    run(
        train, "--experiment=celeba", "--config.dataset=mine", *_SHORT,
        f"--data_dir={root / 'sets'}", "--method=graddrop",
        f"--run_dir={root / 'run'}",
    )  # fmt: skip
    return root


def test_predictions_of_all_images(trained, tmp_path, capsys):
    out = tmp_path / "more" / "out.csv"
    run(
        predict, f"--run_dir={trained / 'run'}",
        f"--images={trained / 'photos'}", f"--out={out}",
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"bad file: {trained / 'photos' / 'bad.png'}: cannot be read as an "
        "image (in no known format).",
        f"Written: {out} (12 images, 1 left out)",
    ]
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(_NAMES)
    assert list(rows[0]) == ["file", "big", "red"]
    model = keras.models.load_model(trained / "run" / "model.keras")
    for row in rows:
        content = (trained / "photos" / row["file"]).read_bytes()
        image = tf.io.decode_image(content, channels=3)[None]
        for name, value in model.predict(image, verbose=0).items():
            assert float(row[name]) == pytest.approx(float(value[0]), abs=1e-5)


def test_a_missing_label_counts_for_nothing(trained):
    results = json.loads((trained / "run" / "results.json").read_text())
    assert np.isfinite(results["metrics"]["test_loss"])
    table = (trained / "run" / "attributes.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["big", "red"]


@pytest.mark.parametrize("form", ["saved_model", "litert"])
def test_formats_agree(trained, tmp_path, form, capsys):
    out = tmp_path / "exported"
    run(
        export, f"--run_dir={trained / 'run'}", f"--format={form}",
        f"--out={out}",
    )  # fmt: skip
    assert f"Written: {out} (step " in capsys.readouterr().out
    model = keras.models.load_model(trained / "run" / "model.keras")
    image = np.random.default_rng(0).uniform(0, 255, (1, 13, 10, 3))
    image = image.astype(np.float32)
    expected = model.predict(image, verbose=0)
    if form == "saved_model":
        served = tf.saved_model.load(str(out))
        found = served.serve(image)
    else:
        runner = tf.lite.Interpreter(str(out)).get_signature_runner()
        (name,) = runner.get_input_details()
        found = runner(**{name: image})
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_a_checkpoint_becomes_a_model(trained, tmp_path, capsys):
    out = tmp_path / "at_1.keras"
    directory = f"--run_dir={trained / 'run'}"
    data = f"--data_dir={trained / 'sets'}"
    run(export, directory, "--step=1", data, f"--out={out}")
    assert f"Written: {out} (step 1)" in capsys.readouterr().out
    assert "red" in keras.models.load_model(out).output
    text = message(capsys, export, directory, "--step=7", data)
    assert "no checkpoint of step 7; expected one of 1, 2" in text


def test_mistakes_are_answered_in_one_line(trained, tmp_path, capsys):
    images, sets = trained / "photos", trained / "sets"
    text = message(capsys, export, f"--run_dir={tmp_path}")
    assert "holds no run" in text
    text = message(
        capsys, predict, f"--run_dir={trained / 'run'}",
        f"--images={tmp_path}", f"--out={tmp_path / 'out.csv'}",
    )  # fmt: skip
    assert "holds no images" in text
    common = [f"--images={images}", f"--data_dir={sets}", "--name=other"]
    table = f"--labels={trained / 'labels.csv'}"
    text = message(capsys, prepare_images, *common, "--split=part")
    assert "--split: names columns of --labels" in text
    text = message(
        capsys, prepare_images, *common, table, "--split=red",
        "--test_share=0.5",
    )  # fmt: skip
    assert "leave one of them out" in text
    assert not (sets / "other").exists()


def test_a_set_that_is_not_there_is_said_at_once(tmp_path, capsys):
    common = [
        "--experiment=celeba", "--method=graddrop",
        f"--run_dir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'sets'}",
    ]  # fmt: skip
    text = message(capsys, train, *common)
    assert "celeb_a is not prepared" in text and "--download" in text
    text = message(
        capsys, train, *common, "--download", "--config.dataset=mine"
    )
    assert "mine cannot be downloaded" in text
    text = message(
        capsys, train, "--experiment=digits", "--method=graddrop",
        f"--run_dir={tmp_path / 'run'}", "--download",
    )  # fmt: skip
    assert "--download: digits reads no data set" in text
    assert not list(tmp_path.iterdir())
