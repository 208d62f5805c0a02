"""`make matrix` runs what setup.cfg declares."""

import configparser
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).parent.parent


def lower_bounds():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    return {line.partition(",")[0].replace(">=", "==") for line in lines}


def installed(target):
    """Returns the versions that a target asks pip for."""
    shown = subprocess.run(
        ["make", "--dry-run", target],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return set(re.findall(r" (\w+==[\d.]+)", shown.stdout))


def test_the_oldest_set_is_the_lower_bounds():
    assert len(lower_bounds()) == 2
    assert installed("matrix-oldest") == lower_bounds()


def test_the_newest_set_is_what_pip_finds():
    assert not installed("matrix-newest")


def test_core_tests_exist():
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (core,) = re.findall(r"^CORE := (.*)", text, re.M)
    assert core.split()
    for name in core.split():
        assert (ROOT / "tests/graddrop_tf" / name).exists(), name
