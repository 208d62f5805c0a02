"""Checks that a run killed at random moments resumes exactly."""

import contextlib
import dataclasses
import itertools
import pathlib
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence

import numpy as np

from trainers import errors
from trainers.runs import directory as run_directory
from trainers.training import preemption

_ROOT = pathlib.Path(__file__).parents[2]
_SECONDS_BETWEEN_LOOKS = 0.01
_RESUMING = re.compile(r"resuming after step (\d+) of")


@dataclasses.dataclass(frozen=True)
class Check:
    """A run and the kills it must survive.

    Attributes:
        flags: Flags of `launch.train`, without `--run_dir`.
        directory: Holds `undisturbed`, `killed-1`, `killed-2` and so on, and
            the output of their last starts.
        num_kills: Number of kills.
        seed: Seed of the moments.
    """

    flags: Sequence[str]
    directory: pathlib.Path
    num_kills: int
    seed: int = 0

    def execute(self) -> list[str]:
        """Kills and restarts, printing a line for each kill.

        A run is killed at a random moment between its first file and its
        expected end, that of the undisturbed run. If it ends before all kills
        are done, the next run is killed. Of an earlier check, only the
        undisturbed run is reused.

        Returns:
            A line for each problem.

        Raises:
            UserError: If the run cannot start.
        """
        whole = _Disturbed(self.directory / "undisturbed", self.flags)
        if not whole.directory.exists() and any(self.directory.glob("*")):
            raise errors.UserError(
                f"{self.directory} holds other files; give a new or an empty "
                "directory."
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        print("undisturbed ...", flush=True)
        whole.start()
        seconds = run_directory.read(whole.directory).results["wall_seconds"]
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        moments = np.random.default_rng(self.seed).uniform(
            0.0, seconds, self.num_kills
        )
        problems, num_done = [], 0
        for number in itertools.count(1):
            directory = self.directory / f"killed-{number}"
            if num_done == self.num_kills:
                break
            if directory.exists():
                continue
            run = _Disturbed(directory, self.flags)
            while num_done < self.num_kills and run.start(moments[num_done]):
                num_done += 1
                print(
                    f"[{num_done}/{self.num_kills}] {directory.name}: killed "
                    f"after {moments[num_done - 1]:.2f} s, newest checkpoint "
                    f"of step {run.step}",
                    flush=True,
                )
            if not run.has_ended:
                run.start()
            problems += run.problems
            problems += differences(whole.directory, run.directory)
            print(f"{run.directory.name}: ended", flush=True)
        return problems


class _Disturbed:
    """A run and its starts.

    Attributes:
        directory: The run directory.
        step: Step of the newest checkpoint.
        problems: Checkpoints that were damaged, lost or not used.
    """

    def __init__(self, directory: pathlib.Path, flags: Sequence[str]):
        self.directory = directory
        self.step = 0
        self.problems: list[str] = []
        self._flags = flags
        self._log = directory.with_suffix(".log")

    @property
    def has_ended(self) -> bool:
        """Whether the run has finished or failed."""
        record = run_directory.read(self.directory)
        return record is not None and record.results is not None

    def start(self, seconds: float | None = None) -> bool:
        """Starts the run, or continues it.

        Args:
            seconds: Seconds from its first file to the kill; None for no kill.

        Returns:
            Whether it was killed; otherwise it has ended.

        Raises:
            UserError: If it ended with an error.
        """
        config = self.directory / run_directory.CONFIG_NAME
        ended = self.has_ended
        before = _written(config)
        with preemption.interrupting():
            process = self._process()
            try:
                while process.poll() is None and _written(config) == before:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_SECONDS_BETWEEN_LOOKS)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(seconds)
            finally:
                process.kill()
                code = process.wait()
        killed = code == -signal.SIGKILL and seconds is not None
        text = self._log.read_text()
        if code and not killed:
            last = (text.splitlines() or ["nothing"])[-1]
            last = last.removeprefix("error: ")
            raise errors.UserError(
                f"launch.train ended with {code} and printed {last!r}, "
                f"expected 0; see {self._log}."
            )
        if not ended:
            self._look_at_start(text, killed)
        self._look_at_checkpoints()
        return killed

    def _process(self) -> subprocess.Popen:
        arguments = [*self._flags, f"--run_dir={self.directory.absolute()}"]
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "launch.train", *arguments],
                cwd=_ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _look_at_start(self, text: str, killed: bool) -> None:
        """Records a start that did not resume from the newest checkpoint."""
        found = _RESUMING.search(text)
        # The kill may come before the line.
        if found is None and killed:
            return
        step = int(found.group(1)) if found else 0
        if step != self.step:
            self.problems.append(
                f"{self.directory.name}: resumed after step {step}, expected "
                f"{self.step}"
            )

    def _look_at_checkpoints(self) -> None:
        """Records lost and damaged checkpoints."""
        steps = [0]
        for path in (self.directory / "checkpoints").glob("step-*.npz"):
            if _is_whole(path):
                steps.append(int(path.stem.removeprefix("step-")))
            else:
                self.problems.append(f"{path} is damaged")
        if max(steps) < self.step:
            self.problems.append(
                f"{self.directory.name}: the newest checkpoint is of step "
                f"{max(steps)}, expected {self.step}"
            )
        self.step = max(steps)


def differences(expected: pathlib.Path, directory: pathlib.Path) -> list[str]:
    """Compares the results of two runs bit for bit.

    Args:
        expected: Directory of a finished run.
        directory: Directory of another one.

    Returns:
        A line for each difference in the log, the remaining checkpoints, other
        files of numbers, and the final metrics.
    """
    names = [
        path.relative_to(expected)
        for pattern in ("*.csv", "*.npz", "checkpoints/*.npz")
        for path in sorted(expected.glob(pattern))
    ]
    lines = [
        f"{directory / name} differs from {expected / name}"
        for name in names
        if not _same_bytes(expected / name, directory / name)
    ]
    metrics = [
        run_directory.read(each).results["metrics"]
        for each in (expected, directory)
    ]
    if metrics[0] != metrics[1]:
        lines.append(
            f"{directory}: the final metrics are {metrics[1]}, expected "
            f"{metrics[0]}"
        )
    return lines


def _same_bytes(expected: pathlib.Path, path: pathlib.Path) -> bool:
    return path.exists() and path.read_bytes() == expected.read_bytes()


def _written(path: pathlib.Path) -> int | None:
    """Returns the time a file was written, in nanoseconds."""
    return path.stat().st_mtime_ns if path.exists() else None


def _is_whole(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False
