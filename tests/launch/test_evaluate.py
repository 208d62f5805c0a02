import json

import numpy as np
import pytest

from launch import command, evaluate
from tests.trainers.detection import waymo

_SCENE = waymo.ORACLE / "all_types.npz"
_BOTH = [f"--predictions={_SCENE}", f"--ground_truths={_SCENE}"]


def _numbers(path):
    return {
        name: (row["ap"], row["aph"])
        for name, row in json.loads(path.read_text()).items()
    }


@pytest.mark.parametrize("box_type", ["3d", "2d"])
def test_reports_what_the_official_op_does(box_type, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    arguments = [*_BOTH, f"--json={path}", f"--box_type={box_type}"]
    assert command.guarded(evaluate.main, arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(
        "8 frames, 355 predictions, 182 ground-truth boxes"
    )
    assert printed[-1] == f"Written: {path}"
    *_, arrays = waymo.load("all_types")
    kind = f"TYPE_{box_type.upper()}"
    found = _numbers(path)
    assert list(found) == arrays["names"].tolist()
    expected = np.stack([arrays[f"{kind}/ap"], arrays[f"{kind}/aph"]], axis=1)
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-6)
    for name, (ap, aph) in zip(found, expected):
        lines = [line for line in printed if line.startswith(name + " ")]
        if not lines:
            # A range without ground truth.
            assert name.startswith("RANGE_") and ap == aph == 0.0
            continue
        (line,) = lines
        numbers = line.removeprefix(name).split()
        np.testing.assert_allclose(
            [float(number) for number in numbers], [ap, aph], atol=2e-6
        )


def test_the_rule_of_2020(tmp_path):
    found = {}
    for rule in ("2022", "2020"):
        path = tmp_path / f"{rule}.json"
        arguments = [*_BOTH, f"--json={path}", f"--ap_rule={rule}"]
        assert command.guarded(evaluate.main, arguments) == 0
        found[rule] = _numbers(path)["OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1"][0]
    assert 0.0 < found["2020"] - found["2022"] < 0.05


def test_plots_and_objects(tmp_path, capsys):
    waymo.messages()
    written = tmp_path / "new" / "predictions.bin"
    plots = tmp_path / "plots"
    arguments = [*_BOTH, f"--objects={written}", f"--plots={plots}"]
    assert command.guarded(evaluate.main, arguments) == 0
    names = ("cyclist", "pedestrian", "sign", "vehicle")
    paths = [plots / f"precision_recall_{name}.png" for name in names]
    assert sorted(plots.iterdir()) == paths
    printed = capsys.readouterr().out
    for path in (written, *paths):
        assert f"Written: {path}" in printed
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again.json"
    arguments = [_BOTH[1], f"--predictions={written}", f"--json={again}"]
    assert command.guarded(evaluate.main, arguments) == 0
    # An .npz file's frames are their own timestamps.
    *_, arrays = waymo.load("all_types")
    np.testing.assert_allclose(
        list(_numbers(again).values()),
        np.stack([arrays["TYPE_3D/ap"], arrays["TYPE_3D/aph"]], axis=1),
        atol=1e-6,
    )


def test_types_that_are_not_there_get_no_plot(tmp_path):
    scene = waymo.ORACLE / "vehicle_nlz.npz"
    arguments = [
        f"--predictions={scene}",
        f"--ground_truths={scene}",
        f"--plots={tmp_path}",
    ]
    assert command.guarded(evaluate.main, arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == [
        "precision_recall_vehicle.png"
    ]


def test_types_that_are_not_there_get_no_rows(tmp_path, capsys):
    scene = waymo.ORACLE / "vehicle_nlz.npz"
    path = tmp_path / "numbers.json"
    arguments = [
        f"--predictions={scene}",
        f"--ground_truths={scene}",
        f"--json={path}",
    ]
    assert command.guarded(evaluate.main, arguments) == 0
    rows = [
        line.split()[0]
        for line in capsys.readouterr().out.splitlines()
        if "_TYPE_" in line
    ]
    assert len(rows) == 8 and all("_VEHICLE_" in row for row in rows)
    # The file is for programs: it always has the same names.
    assert len(_numbers(path)) == 32


def test_the_official_numbers_stand_beside_ours(tmp_path, capsys):
    *_, arrays = waymo.load("all_types")
    official = {
        name: {"ap": float(ap), "aph": float(aph)}
        for name, ap, aph in zip(
            arrays["names"].tolist(),
            arrays["TYPE_3D/ap"],
            arrays["TYPE_3D/aph"],
        )
    }
    official["OBJECT_TYPE_TYPE_SIGN_LEVEL_1"]["ap"] += 0.25
    (tmp_path / "results.json").write_text(json.dumps(official))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncp "{tmp_path}/results.json" "$3"\n')
    python.chmod(0o755)
    path = tmp_path / "numbers.json"
    arguments = [*_BOTH, f"--official_python={python}", f"--json={path}"]
    assert command.guarded(evaluate.main, arguments) == 0
    printed = capsys.readouterr().out
    assert "official AP  official APH" in printed
    assert "from the official op: 2.5e-01 in AP, " in printed
    row = json.loads(path.read_text())["OBJECT_TYPE_TYPE_SIGN_LEVEL_1"]
    assert set(row) == {"ap", "aph", "official_ap", "official_aph"}
    assert row["official_ap"] - row["ap"] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--predictions, --ground_truths", "--help"]),
        (_BOTH[:1], ["--ground_truths: got nothing"]),
        ([*_BOTH, "stray"], ["'stray'", "flags only"]),
        ([*_BOTH, "--box_type=4d"], ["box_type", "3d|2d"]),
        ([*_BOTH, "--ap_rule=2021"], ["ap_rule", "2022|2020"]),
        ([*_BOTH, "--workers=0"], ["workers"]),
        ([*_BOTH, "--predictions=none.npz"], ["none.npz: No such file"]),
        ([*_BOTH, "--predictions=flat.npz"], ["flat.npz: ", "5 values a box"]),
        ([*_BOTH, "--json=folder"], ["folder", "Is a directory"]),
        ([*_BOTH, "--json=flat.npz/x"], ["flat.npz/x", "written"]),
        (
            [*_BOTH, "--predictions=flat.npz", "--json=./flat.npz"],
            ["flat.npz: is read"],
        ),
        ([*_BOTH, "--official_python=none"], ["none: No such file"]),
    ],
)
def test_mistakes_get_one_line(
    arguments, parts, tmp_path, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with np.load(_SCENE) as archive:
        arrays = dict(archive)
    arrays["prediction_bbox"] = arrays["prediction_bbox"][:, :5]
    np.savez("flat.npz", **arrays)
    before = (tmp_path / "flat.npz").read_bytes()
    refused(evaluate.main, arguments, parts)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "flat.npz",
        "folder",
    ]
    assert (tmp_path / "flat.npz").read_bytes() == before


def test_help(capsys):
    assert command.guarded(evaluate.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(evaluate.__doc__.splitlines()[0])
    assert "(default: '3d')" in printed
    assert "--official_python" in printed
