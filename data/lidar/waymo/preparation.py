"""Turns each segment into a shard of training examples.

A shard is written beside a note that says what it was made of and how many
examples it holds, or why there is none. Both appear whole or not at all, the
note last. So a preparation that was killed continues with the segments that
have no note yet, and segments may be prepared anywhere in any order.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from data import files, records
from data.lidar import examples
from data.lidar.waymo import segments as segments_lib

_SECONDS_BETWEEN_LINES = 10.0


@dataclasses.dataclass(frozen=True)
class Task:
    """A segment and the path of its shard.

    Attributes:
        segment: The segment.
        directory: Takes the shard and its note.
    """

    segment: segments_lib.Segment
    directory: pathlib.Path

    @property
    def shard(self) -> pathlib.Path:
        """The TFRecord file of its examples."""
        return self.directory / f"{self.segment.name}.tfrecord"

    @property
    def _note(self) -> pathlib.Path:
        return self.directory / f"{self.segment.name}.json"

    def outcome(self) -> Mapping | None:
        """Reads the outcome of preparing the segment in its current version.

        Returns:
            `num_examples`, `num_boxes` and `num_counted`, the boxes whose
            points had to be counted; or `error`; None if it was not prepared,
            or if its files changed since it began.
        """
        try:
            outcome = json.loads(self._note.read_text())
        except FileNotFoundError:
            return None
        return outcome if outcome["made_of"] == self.files() else None

    def conclude(self, made_of: list, **outcome) -> None:
        """Writes the outcome of preparing a version of the segment."""
        with files.replacing(self._note, shared=True) as temporary:
            temporary.write_text(json.dumps({"made_of": made_of, **outcome}))

    def forget(self) -> None:
        """Removes the note, if there is one."""
        self._note.unlink(missing_ok=True)

    def files(self) -> list:
        """Describes the segment's files, to detect changes."""
        return [
            [str(path), path.stat().st_size, path.stat().st_mtime_ns]
            for path in self.segment.paths
            if path.exists()
        ]


Executor = Callable[[Sequence[Task]], None]


def prepare_segment(task: Task) -> None:
    """Writes the shard of a segment, and its note.

    A segment that cannot be read gets a note with the reason and no shard.

    Args:
        task: What to prepare.

    Raises:
        OSError: If the shard cannot be written.
    """
    made_of = task.files()
    num_examples = num_boxes = 0
    counted = []
    try:
        with records.writing(task.shard) as writer:
            for example in task.segment.examples(counted.append):
                writer.write(_serialized(example))
                num_examples += 1
                num_boxes += len(example["boxes"])
    except examples.LidarDataError as error:
        task.conclude(made_of, error=str(error))
    else:
        task.conclude(
            made_of,
            num_examples=num_examples,
            num_boxes=num_boxes,
            num_counted=sum(counted),
        )


def _serialized(example: examples.Example) -> bytes:
    """Serializes an example: always to the same bytes."""
    record = tf.train.Example.FromString(
        examples.features().serialize_example(example)
    )
    return record.SerializeToString(deterministic=True)


def on_processes(num_processes: int) -> Executor:
    """Prepares segments on processes of this machine.

    Args:
        num_processes: How many; with one, everything happens in this process.

    Returns:
        The function that does it.
    """

    def execute(tasks: Sequence[Task]) -> None:
        if num_processes == 1:
            for task in tasks:
                prepare_segment(task)
            return
        # A forked TensorFlow hangs.
        context = multiprocessing.get_context("spawn")
        others = {*multiprocessing.active_children()}
        with concurrent.futures.ProcessPoolExecutor(
            min(num_processes, len(tasks)), context, _end_with_parent
        ) as pool:
            try:
                for _ in pool.map(prepare_segment, tasks):
                    pass
            except concurrent.futures.process.BrokenProcessPool as error:
                raise OSError(
                    "a process died, perhaps for lack of memory; start again "
                    "with fewer processes."
                ) from error
            except BaseException:
                for child in {*multiprocessing.active_children()} - others:
                    child.kill()
                raise

    return execute


def _end_with_parent() -> None:
    """Ends a worker when the process that started it has ended."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def beam_is_installed() -> bool:
    """Returns whether `on_beam` can be used."""
    return importlib.util.find_spec("apache_beam") is not None


def on_beam(
    num_processes: int, runner: str | None = None, options=None
) -> Executor:
    """Prepares segments in an Apache Beam pipeline.

    Args:
        num_processes: How many processes of this machine to use, where no
            runner is named.
        runner: Name of a runner, such as `FlinkRunner`.
        options: Its `PipelineOptions`. The files have to be where all its
            workers find them by the same paths.

    Returns:
        The function that does it.
    """

    def execute(tasks: Sequence[Task]) -> None:
        import apache_beam as beam
        from apache_beam.options import pipeline_options

        local = {
            "direct_running_mode": "multi_processing",
            "direct_num_workers": num_processes,
        }
        try:
            with beam.Pipeline(
                runner or "DirectRunner",
                options or pipeline_options.PipelineOptions(**local),
            ) as pipeline:
                _ = (
                    pipeline
                    | beam.Create(list(tasks))
                    | beam.Reshuffle()
                    | beam.Map(prepare_segment)
                )
        except Exception as error:
            # The cause comes last, after Beam's own stack as text.
            lines = [line.strip(" ()") for line in str(error).splitlines()]
            raise OSError(
                f"the Beam pipeline failed ({[*filter(None, lines)][-1]})."
            ) from error

    return execute


def prepare(
    tasks: Sequence[Task],
    execute: Executor,
    report: Callable[[str], None] = print,
) -> dict[Task, Mapping]:
    """Prepares the segments that are not prepared yet.

    Args:
        tasks: What to prepare.
        execute: Where.
        report: Called with a progress line every few seconds.

    Returns:
        The outcome of each task.

    Raises:
        OSError: If shards cannot be written.
    """
    pending = [
        task for task in tasks if "num_examples" not in (task.outcome() or ())
    ]
    for task in pending:
        task.forget()
    if len(pending) < len(tasks):
        report(f"{len(tasks) - len(pending)}/{len(tasks)} segments are done")
    if pending:
        with _progress(tasks, pending, report):
            execute(pending)
    changed = "its files changed while they were read; start again."
    return {
        task: task.outcome() or {"error": f"{task.segment.paths[0]}: {changed}"}
        for task in tasks
    }


@contextlib.contextmanager
def _progress(
    tasks: Sequence[Task],
    pending: Sequence[Task],
    report: Callable[[str], None],
) -> Iterator[None]:
    """Reports every few seconds how many segments are done."""
    started = time.monotonic()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LINES):
            outcomes = [task.outcome() for task in pending]
            done = sum(outcome is not None for outcome in outcomes)
            bad = sum("error" in (outcome or ()) for outcome in outcomes)
            line = f"{len(tasks) - len(pending) + done}/{len(tasks)} segments"
            if bad:
                line += f", {bad} bad"
            if not done:
                line += f", reading {pending[0].segment.name}"
            if 0 < done < len(pending):
                seconds = time.monotonic() - started
                left = seconds / done * (len(pending) - done)
                line += f", about {left / 60.0:.1f} min left"
            report(line)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
