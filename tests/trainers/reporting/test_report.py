import dataclasses
import re

import numpy as np
import pytest

import graddrop_tf as gd
from tests.trainers import small_runs
from trainers import errors, files
from trainers.experiments import registry
from trainers.reporting import report
from trainers.runs import columns, comparison

_ERRORS = {
    "baseline": (4.0, 5.0, 6.0),
    "graddrop": (3.0, 4.1, 4.9),
    "pcgrad": (4.5, 4.6, 6.1),
}


@pytest.fixture
def root(tmp_path):
    for method, values in _ERRORS.items():
        for seed, value in enumerate(values):
            small_runs.write_digits(tmp_path / "d", method, seed, value)
    return tmp_path


def _line(text, start):
    return next(
        line for line in text.splitlines() if line.startswith(start + " ")
    )


def test_numbers_and_verdicts(root):
    text = report.create(root, registry.EXPERIMENTS)
    results, differences = text.split("error in percentage points")
    assert "5.00 ± 1.00" in _line(results, "baseline")
    assert "4.00 ± 0.95" in _line(results, "graddrop")
    assert _line(results, "graddrop").split()[-2:] == ["6.0", "3"]
    # Deltas -1, -0.9, -1.1: deviation 0.1, margin 4.302653 * 0.1 / sqrt 3.
    line = _line(differences, "graddrop")
    assert "-1.00  -1.25 to -0.75      3  better than the noise" in line
    # Deltas 0.5, -0.4, 0.1: mean 0.067, deviation 0.451, margin 1.120.
    line = _line(differences, "pcgrad")
    assert "+0.07  -1.05 to +1.19      3  within the noise" in line
    assert "With 3 seeds the interval is wide" in text


def test_files(root):
    text = report.create(root, registry.EXPERIMENTS)
    names = sorted(path.name for path in (root / "plots").iterdir())
    assert names == [
        "digits_course.png",
        "digits_examples.png",
        "digits_final.png",
    ]
    for path in (root / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    markdown = (root / "report.md").read_text()
    page = (root / "report.html").read_text()
    for number in re.findall(r"\d\.\d\d ± \d\.\d\d", text):
        assert number in markdown
        assert number in page
    for name in names:
        assert f"](plots/{name})" in markdown
    assert page.count('src="data:image/png;base64,') == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert not list(root.rglob("*.tmp"))


def test_what_is_missing_is_said(root):
    directory = root / "d"
    small_runs.write_digits(
        directory, "mgda", 0, None, "step 7: loss became nan"
    )
    small_runs.write_digits(directory, "mgda", 1, None)
    files.write_json(
        root / "digits" / comparison.PLAN, {"runs": ["mgda/seed2"]}
    )
    text = report.create(root, registry.EXPERIMENTS)
    assert "mgda seed 0: failed at step 7: loss became nan" in text
    assert "mgda seed 1: not finished" in text
    assert "mgda/seed2: not started" in text
    assert "mgda seed 1: not finished" in (root / "report.html").read_text()
    assert not re.search(r"^mgda  ", text, re.MULTILINE)


def test_seeds_without_a_partner_are_left_out_of_the_difference(root):
    small_runs.write_digits(root / "d", "graddrop", 3, 90.0)
    text = report.create(root, registry.EXPERIMENTS)
    assert "-1.00  -1.25 to -0.75      3" in text
    assert _line(text, "graddrop").endswith(" 4")


def test_another_config_is_another_table(root):
    for method in "baseline", "graddrop":
        small_runs.write_digits(root / "e", method, 0, 9.0, steps=800)
    text = report.create(root, registry.EXPERIMENTS)
    assert "\n\ndefault / here: steps: 400 / 800\n\n" in text
    for name in "report.md", "report.html":
        assert "default / here: steps: 400 / 800" in (root / name).read_text()
    assert "5.00 ± 1.00" in text
    assert "9.00 (one sample)" in text
    assert len(list((root / "plots").iterdir())) == 6


def test_one_seed_has_no_interval(tmp_path):
    for method in "baseline", "graddrop":
        small_runs.write_digits(tmp_path, method, 0, 9.0)
    text = report.create(tmp_path, registry.EXPERIMENTS)
    assert "Lower is better. An interval needs two seeds or" in text
    assert "is wide" not in text and "1 seeds" not in text


def test_pairs_are_counted_not_seeds_of_the_baseline(tmp_path):
    """Two of the baseline's three seeds have a partner."""
    for method, seeds in ("baseline", 3), ("graddrop", 2):
        for seed in range(seeds):
            small_runs.write_digits(tmp_path, method, seed, 9.0 + seed)
    text = report.create(tmp_path, registry.EXPERIMENTS)
    assert "With 2 seeds the interval is wide" in text


def test_a_repeated_run_counts_once(root):
    small_runs.write_digits(root / "x", "baseline", 0, 50.0)
    text = report.create(root, registry.EXPERIMENTS)
    assert "5.00 ± 1.00" in text
    assert re.search(r"baseline seed 0: .* repeats .*, not counted", text)


def test_without_a_baseline_no_difference_is_claimed(tmp_path):
    small_runs.write_digits(tmp_path, "pcgrad", 0, 5.0)
    text = report.create(tmp_path, registry.EXPERIMENTS)
    assert "no finished baseline" in text
    assert "verdict" not in text


def test_only_failures(tmp_path):
    small_runs.write_digits(tmp_path, "pcgrad", 0, None, "step 1: x")
    assert "No run has finished." in report.create(
        tmp_path, registry.EXPERIMENTS
    )


def test_the_papers_numbers_stand_beside_ours(root, monkeypatch):
    table = (
        dataclasses.replace(
            columns.Column("error", "error %"), paper={"graddrop": 8.52}
        ),
    )
    monkeypatch.setattr(type(registry.EXPERIMENTS["digits"]), "table", table)
    text = report.create(root, registry.EXPERIMENTS)
    assert "error % (paper)" in text
    assert "8.52" in _line(text, "graddrop")
    assert "8.52" not in _line(text, "baseline")


def test_directories_without_runs_are_refused(tmp_path):
    with pytest.raises(errors.UserError, match="holds no runs"):
        report.create(tmp_path, registry.EXPERIMENTS)
    with pytest.raises(errors.UserError, match="is not a directory"):
        report.create(tmp_path / "nowhere", registry.EXPERIMENTS)


def test_toy_is_averaged_over_its_starts(tmp_path):
    comparison.Comparison(
        registry.EXPERIMENTS["toy"],
        [gd.Recipe(), gd.Recipe.parse("graddrop")],
        [0],
        small_runs.small_config("toy"),
        tmp_path,
    ).execute()
    text = report.create(tmp_path, registry.EXPERIMENTS)
    final = np.load(tmp_path / "toy/graddrop/seed0/curves.npz")["final_losses"]
    expected = f"{final.mean():.3f} ± {final.std(ddof=1):.3f}"
    assert expected in _line(text, "graddrop")
    assert len(list((tmp_path / "plots").iterdir())) == 3
