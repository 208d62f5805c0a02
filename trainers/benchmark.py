"""Speed and memory, as ratios measured side by side in one process.

All cases of a suite take turns, one step each, and every round starts with
another case; a ratio is that of two steps of one round. What else the machine
does meanwhile slows both, so the median of many rounds holds where seconds do
not. Beside it stands what the arithmetic alone allows: multiply-adds counted
from the shapes of the model's own layers, a forward pass as 1, a backward
pass as 2, and for each loss after the first the activation gradients of the
heads as 1.

Suites:
    layer: `gd.GradDrop` in a plain Keras model with a head for each loss.
    shared: the CelebA network (Chen et al., NeurIPS 2020, appendix A.4), 40
        losses that share two dense layers, by method.
    memory: what the per-loss gradients of that network take, by chunk size.
    graddrop: the function `gd.graddrop` against a plain sum of its input.
    input: the CelebA pipeline alone against the model that it feeds.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import multiprocessing
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from data import attributes
from data.drawn_faces import builder as drawn_faces
from trainers import celeba, errors, files

Step = Callable[[], Any]

_WARM_UP = 3
_LOW, _HIGH = 10, 90
_SECONDS_BETWEEN_LINES = 5.0
_PACKAGES = ("graddrop_tf", "keras", "numpy", "tensorflow")
_MEBIBYTE = 2**20

_NUM_TASKS = 8
_LAYER_BATCH = 32

_NUM_ATTRIBUTES = 40
_CELEBA_BATCH = 8
_CELEBA_SIZE = 64
_CELEBA_SHAPE = attributes.Shape(218, 178)
_IMAGES_READ = 256
_CHUNK = 4
_MEMORY_CHUNKS = (4, 8, 16)
_PEAK_STEPS = 5
_MMAP_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        case: What was measured.
        against: What it is divided by, or subtracted from it.
        quantity: `speed` or `time` (ratios), `MiB` or `images/s`.
        median: Over all rounds.
        low: The 10th percentile.
        high: The 90th percentile.
        allowed: What the arithmetic alone gives, in the same quantity.
        target: At least this speed, at most this time; None without one.
        paper: The paper's figure, where it has one.
    """

    case: str
    against: str
    quantity: str
    median: float
    low: float
    high: float
    allowed: float | None = None
    target: float | None = None
    paper: float | None = None

    @property
    def verdict(self) -> str:
        """Says whether the target is met; empty without one."""
        if self.target is None:
            return ""
        better = self.median - self.target
        if self.quantity != "speed":
            better = -better
        return "met" if better >= 0 else "missed"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median and the 10th and 90th percentiles."""
    low, median, high = np.percentile(values, [_LOW, 50, _HIGH])
    return float(median), float(low), float(high)


def speed_row(
    times: Mapping[str, Sequence[float]], case: str, against: str, **notes
) -> Row:
    """Compares speeds: more is better.

    Args:
        times: Seconds of each round, by case.
        case: What is compared.
        against: What with.
        **notes: `allowed`, `target` and `paper` of the row.

    Returns:
        The row.
    """
    ratios = np.divide(times[against], times[case])
    return Row(case, against, "speed", *spread(ratios), **notes)


def time_row(
    times: Mapping[str, Sequence[float]], case: str, against: str, **notes
) -> Row:
    """Compares times: less is better. Arguments as in `speed_row`."""
    ratios = np.divide(times[case], times[against])
    return Row(case, against, "time", *spread(ratios), **notes)


def take_turns(
    steps: Mapping[str, Step],
    rounds: int,
    *,
    warm_up: int = _WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Times steps in turn; each round starts with another case.

    Args:
        steps: What to time, by case.
        rounds: How often each is timed.
        warm_up: Rounds before, which do not count.
        clock: Gives seconds.
        progress: Is told how many rounds are done.

    Returns:
        Seconds of each round, by case.
    """
    for step in steps.values():
        for _ in range(warm_up):
            step()
    names = list(steps)
    times = {name: [] for name in names}
    for done in range(rounds):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            started = clock()
            steps[name]()
            times[name].append(clock() - started)
        progress(done + 1)
    return times


def forward_multiply_adds(model: keras.Model) -> int:
    """Counts the multiply-adds of a forward pass of one example.

    Args:
        model: A functional model; its convolutions and dense layers count.

    Returns:
        The number.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += forward_multiply_adds(layer)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            # Channels are in the kernel, the batch is one example.
            positions = int(np.prod(layer.output.shape[1:-1]))
            total += positions * int(np.prod(layer.kernel.shape))
    return total


def step_multiply_adds(
    trunk: int, heads: int, num_backward: int = 1, combining: int = 0
) -> int:
    """Counts the multiply-adds of a training step of one example.

    Args:
        trunk: Those of the trunk's forward pass.
        heads: Those of the heads' forward pass.
        num_backward: How many losses are taken backward through the heads.
        combining: Those of combining their gradients.

    Returns:
        The number.
    """
    return 3 * (trunk + heads) + (num_backward - 1) * heads + combining


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train the CelebA network.

    Attributes:
        name: What the table calls it.
        recipe: Makes its recipe.
        combining: Multiply-adds of combining T gradients of F values, which
            (T, F) gives; None where there is one backward pass.
        target: Its speed in shares of the baseline's, at least.
        paper: The paper's figure for the same.
        chunk: How many gradients may exist at once; None for all.
    """

    name: str
    recipe: Callable[[], gd.Recipe]
    combining: Callable[[int, int], int] | None = None
    target: float | None = None
    paper: float | None = None
    chunk: int | None = None


@keras.saving.register_keras_serializable("trainers_benchmark")
class AsTheyAre(gd.Combiner):
    """Combines nothing: the cost of per-loss gradients alone."""

    def combine(self, gradients, activations):
        """See base class."""
        return gradients


def _parsed(text: str) -> Callable[[], gd.Recipe]:
    return lambda: gd.Recipe.parse(text)


_BASELINE = Method("baseline", gd.Recipe)
_BARE = Method(
    "bare Jacobian",
    lambda: gd.Recipe(combiners=[AsTheyAre()]),
    lambda T, F: T * F,
)
_GRADDROP = Method(
    "graddrop", _parsed("graddrop"), lambda T, F: 2 * T * F, paper=0.45
)
_CHUNKED = dataclasses.replace(
    _GRADDROP, name=f"graddrop, chunks of {_CHUNK}", paper=None, chunk=_CHUNK
)
METHODS = (
    _BASELINE,
    _BARE,
    _GRADDROP,
    _CHUNKED,
    Method(
        "pcgrad",
        _parsed("pcgrad"),
        lambda T, F: 2 * T * T * F + T * F,
        target=0.68,
        paper=0.20,
    ),
    Method(
        "mgda",
        _parsed("mgda"),
        lambda T, F: T * T * F + T * F,
        target=0.68,
        paper=0.25,
    ),
    Method(
        "gradnorm",
        _parsed("gradnorm"),
        lambda T, F: 2 * T * F,
        target=0.72,
        paper=0.41,
    ),
    Method(
        "gradnorm+graddrop",
        _parsed("gradnorm+graddrop"),
        lambda T, F: 3 * T * F,
    ),
)


def _convolution(inputs, filters: int):
    """`[CONV-3-filters]` with batch norm and ReLU."""
    outputs = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(
        inputs
    )
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(outputs))


def celeba_network() -> tuple[keras.Model, keras.Model]:
    """Makes the network of the CelebA experiment, for smaller images."""
    shape = (_CELEBA_SIZE, _CELEBA_SIZE, 3)
    return celeba.make_network(shape, _NUM_ATTRIBUTES)


def task_network(
    num_tasks: int = _NUM_TASKS, widths: Sequence[int] = (32, 64, 128, 128)
) -> tuple[keras.Model, list[keras.Model]]:
    """Makes a convolutional trunk for 32 x 32 images and separate heads.

    Args:
        num_tasks: How many heads, each with two dense layers.
        widths: Channels of the convolutions, each followed by a max pool but
            the third.

    Returns:
        The trunk and the heads.
    """
    inputs = keras.Input((32, 32, 3))
    hidden = inputs
    for index, width in enumerate(widths):
        hidden = _convolution(hidden, width)
        if index != 2:
            hidden = keras.layers.MaxPooling2D()(hidden)
    outputs = keras.layers.Flatten()(hidden)
    trunk = keras.Model(inputs, outputs, name="trunk")
    heads = []
    for index in range(num_tasks):
        activations = keras.Input(outputs.shape[1:])
        hidden = keras.layers.Dense(64, activation="relu")(activations)
        hidden = keras.layers.Dense(10)(hidden)
        heads.append(keras.Model(activations, hidden, name=f"task_{index}"))
    return trunk, heads


def training_step(model: keras.Model, x, y) -> Step:
    """Makes a function that trains a compiled model for one step.

    Args:
        model: The model; nothing of it is copied.
        x: The batch of every step.
        y: Its labels.

    Returns:
        The function.
    """
    batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    model.make_train_function()
    return lambda: model.train_function(batches)


def celeba_step(method: Method, trunk: keras.Model, heads: keras.Model) -> Step:
    """Makes a training step of the CelebA network on random images.

    Args:
        method: How to train it.
        trunk: Its trunk, which several steps may share.
        heads: Its heads, likewise.

    Returns:
        The step.
    """
    model = gd.MultiLossModel(
        trunk, heads, recipe=method.recipe(), loss_chunk_size=method.chunk
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss=gd.VectorLoss(celeba.cross_entropy),
        jit_compile=False,
    )
    generator = np.random.default_rng(0)
    x = generator.normal(size=(_CELEBA_BATCH, *trunk.input.shape[1:]))
    y = generator.integers(0, 2, (_CELEBA_BATCH, heads.output.shape[-1]))
    return training_step(model, x.astype(np.float32), y.astype(np.float32))


class _Progress:
    """Says on stderr how far a suite is."""

    def __init__(self, suite: str):
        self._suite = suite
        self._started = self._printed = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{self._suite}: {text}", file=sys.stderr, flush=True)

    def start(self, rounds: int) -> Callable[[int], None]:
        """Returns what `take_turns` tells its progress."""
        self._started = self._printed = time.monotonic()

        def update(done: int) -> None:
            now = time.monotonic()
            if done < rounds and now - self._printed < _SECONDS_BETWEEN_LINES:
                return
            left = (now - self._started) / done * (rounds - done)
            self.say(f"round {done} of {rounds}, {left:.0f} s left")
            self._printed = now

        return update


def _measure_layer(rounds: int, progress: _Progress) -> list[Row]:
    def make(branches: Callable) -> Step:
        progress.say("building")
        trunk, heads = task_network()
        features = branches(trunk.output)
        outputs = [
            head(feature) for head, feature in zip(heads, features, strict=True)
        ]
        model = keras.Model(trunk.input, outputs)
        model.compile(
            keras.optimizers.Adam(1e-3),
            loss=[
                keras.losses.SparseCategoricalCrossentropy(from_logits=True)
                for _ in heads
            ],
            jit_compile=False,
        )
        generator = np.random.default_rng(0)
        x = generator.normal(size=(_LAYER_BATCH, 32, 32, 3))
        y = generator.integers(0, 10, (len(heads), _LAYER_BATCH))
        return training_step(model, x.astype(np.float32), tuple(y))

    steps = {
        "without the layer": make(lambda features: [features] * _NUM_TASKS),
        "GradDrop layer": make(gd.GradDrop(num_losses=_NUM_TASKS)),
    }
    times = take_turns(steps, rounds, progress=progress.start(rounds))
    trunk, heads = task_network()
    alone = step_multiply_adds(
        forward_multiply_adds(trunk), sum(map(forward_multiply_adds, heads))
    )
    masking = 2 * _NUM_TASKS * trunk.output.shape[-1]
    return [
        time_row(
            times,
            "GradDrop layer",
            "without the layer",
            allowed=(alone + masking) / alone,
            target=1.05,
        )
    ]


def celeba_multiply_adds(
    method: Method, trunk: keras.Model, heads: keras.Model
) -> int:
    """Counts the multiply-adds of a method's step, for one example."""
    counts = forward_multiply_adds(trunk), forward_multiply_adds(heads)
    if method.combining is None:
        return step_multiply_adds(*counts)
    T = heads.output.shape[-1]
    F = int(np.prod(heads.input.shape[1:]))
    return step_multiply_adds(*counts, T, method.combining(T, F))


def _measure_shared(rounds: int, progress: _Progress) -> list[Row]:
    trunk, heads = celeba_network()
    steps = {}
    for index, method in enumerate(METHODS):
        progress.say(f"building {method.name} ({index + 1}/{len(METHODS)})")
        steps[method.name] = celeba_step(method, trunk, heads)
        steps[method.name]()
    times = take_turns(steps, rounds, progress=progress.start(rounds))
    counts = {
        method.name: celeba_multiply_adds(method, trunk, heads)
        for method in METHODS
    }

    def row(method: Method, against: Method, **notes) -> Row:
        allowed = counts[against.name] / counts[method.name]
        return speed_row(
            times, method.name, against.name, allowed=allowed, **notes
        )

    rows = [
        row(method, _BASELINE, target=method.target, paper=method.paper)
        for method in METHODS[1:]
    ]
    rows.append(row(_GRADDROP, _BARE, target=0.93))
    rows.append(row(_CHUNKED, _GRADDROP, target=0.5))
    return rows


def _peaks_of_steps(method_name: str, chunk: int | None) -> list[float]:
    """Returns by how many MiB some steps rise above the rest between them."""
    methods = {method.name: method for method in METHODS}
    method = dataclasses.replace(methods[method_name], chunk=chunk)
    step = celeba_step(method, *celeba_network())
    for _ in range(_WARM_UP):
        step()
    peaks = []
    for _ in range(_PEAK_STEPS):
        at_rest = _resident("VmRSS")
        # Sets the peak, VmHWM, back to what is resident now.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        step()
        peaks.append(_resident("VmHWM") - at_rest)
    return peaks


def _resident(field: str) -> float:
    """Reads a field of this process's status, in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


@contextlib.contextmanager
def _freed_at_once() -> Iterator[None]:
    """Lets new processes give memory back as soon as it is free.

    Else glibc keeps some, and what is resident says little.
    """
    before = os.environ.get(_MMAP_THRESHOLD)
    os.environ[_MMAP_THRESHOLD] = "65536"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_MMAP_THRESHOLD]
        else:
            os.environ[_MMAP_THRESHOLD] = before


def _measure_memory(rounds: int, progress: _Progress) -> list[Row]:
    del rounds
    if not pathlib.Path("/proc/self/clear_refs").exists():
        progress.say("skipped: peak memory is read from /proc, of Linux only")
        return []
    cases = [("baseline", None), ("graddrop", None)]
    cases += [("graddrop", chunk) for chunk in _MEMORY_CHUNKS]
    peaks = {}
    context = multiprocessing.get_context("spawn")
    for case in cases:
        progress.say(f"a process for {case[0]}, {_chunk_text(case[1])}")
        with (
            _freed_at_once(),
            concurrent.futures.ProcessPoolExecutor(1, context) as pool,
        ):
            peaks[case] = pool.submit(_peaks_of_steps, *case).result()
    _, heads = celeba_network()
    size = 4 * _CELEBA_BATCH * int(np.prod(heads.input.shape[1:])) / _MEBIBYTE
    baseline = float(np.median(peaks[cases[0]]))
    return [
        Row(
            f"graddrop, {_chunk_text(chunk)}",
            "less baseline",
            "MiB",
            *spread(np.subtract(peaks[name, chunk], baseline)),
            allowed=size * (chunk or _NUM_ATTRIBUTES),
        )
        for name, chunk in cases[1:]
    ]


def _chunk_text(chunk: int | None) -> str:
    return "all at once" if chunk is None else f"chunks of {chunk}"


def _measure_graddrop(rounds: int, progress: _Progress) -> list[Row]:
    trunk, heads = celeba_network()
    shape = (_CELEBA_BATCH, int(np.prod(heads.input.shape[1:])))
    del trunk, heads
    generator = np.random.default_rng(0)

    def normal(*shape) -> tf.Tensor:
        return tf.constant(generator.standard_normal(shape, np.float32))

    stacked = normal(_NUM_ATTRIBUTES, *shape)
    activations = normal(*shape)
    uniform = tf.constant(generator.random(shape[1:], np.float32))

    def masked(stacked) -> list[tf.Tensor]:
        return gd.graddrop(stacked, activations, uniform=uniform)

    functions = {
        "sum": lambda stacked: tf.reduce_sum(stacked, axis=0),
        "graddrop": masked,
        "graddrop, their sum": lambda stacked: tf.add_n(masked(stacked)),
        "a copy": lambda stacked: [-g for g in tf.unstack(stacked)],
    }
    steps = {}
    for name, function in functions.items():
        compiled = tf.function(function)
        steps[name] = lambda compiled=compiled: compiled(stacked)
    times = take_turns(steps, rounds, progress=progress.start(rounds))
    # A sum reads every value once; masking reads it twice and writes it once.
    return [
        time_row(times, "graddrop", "sum", allowed=3.0, target=5.0),
        time_row(times, "graddrop, their sum", "sum", allowed=2.0, target=5.0),
        time_row(times, "a copy", "sum", allowed=2.0),
    ]


def _measure_input(rounds: int, progress: _Progress) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        progress.say(f"drawing {_IMAGES_READ} faces")
        drawn_faces.prepare(
            folder, drawn_faces.Contents(_IMAGES_READ, validation=1, test=1)
        )
        faces = attributes.AttributeSet("drawn_faces", ["attributes"], folder)

        batches = faces.training_batches(
            "train", _CELEBA_SHAPE, batch_size=_CELEBA_BATCH, seed=0
        ).take(_IMAGES_READ // _CELEBA_BATCH)

        def read() -> None:
            # Started anew each time: the pipeline is not ahead of its reader.
            for _ in batches:
                pass

        progress.say("building the model")
        shape = (_CELEBA_SHAPE.height, _CELEBA_SHAPE.width, faces.channels)
        network = celeba.make_network(shape, len(faces.names))
        steps = {"reading": read, "training": celeba_step(_BASELINE, *network)}
        times = take_turns(steps, rounds, progress=progress.start(rounds))
    rates = {
        "reading": np.divide(_IMAGES_READ, times["reading"]),
        "training": np.divide(_CELEBA_BATCH, times["training"]),
    }
    return [
        *(
            Row(name, "", "images/s", *spread(rate))
            for name, rate in rates.items()
        ),
        Row(
            "reading", "training", "speed",
            *spread(rates["reading"] / rates["training"]), target=3.0,
        ),
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Suite:
    """A group of cases that are measured together.

    Attributes:
        title: What is measured.
        measure: Measures it, with so many rounds.
    """

    title: str
    measure: Callable[[int, _Progress], list[Row]]


SUITES = {
    "layer": Suite(
        f"step time; {_NUM_TASKS} tasks with a head each, convolutional "
        f"trunk, batch {_LAYER_BATCH}, plain Keras model",
        _measure_layer,
    ),
    "shared": Suite(
        f"step speed; CelebA network, {_NUM_ATTRIBUTES} losses with shared "
        f"heads, {_CELEBA_SIZE} x {_CELEBA_SIZE}, batch {_CELEBA_BATCH}",
        _measure_shared,
    ),
    "memory": Suite(
        "peak resident memory of a step of the same network above that "
        "between steps, in a process of its own, less the baseline's; as "
        "arithmetic: the gradients that exist at once",
        _measure_memory,
    ),
    "graddrop": Suite(
        f"time of gd.graddrop in a tf.function on {_NUM_ATTRIBUTES} stacked "
        "gradients of the same size, against tf.reduce_sum over the losses; "
        "as arithmetic: reads and writes of memory",
        _measure_graddrop,
    ),
    "input": Suite(
        f"images a second that the CelebA pipeline delivers alone, and that "
        f"the baseline trains on; {_CELEBA_SHAPE.height} x "
        f"{_CELEBA_SHAPE.width}, batch {_CELEBA_BATCH}",
        _measure_input,
    ),
}


def select(text: str) -> list[str]:
    """Reads names of suites, separated by commas.

    Args:
        text: What the user wrote.

    Returns:
        The names.

    Raises:
        UserError: If there is no such suite.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SUITES:
            raise errors.UserError(
                f"--suite: got {name!r}, expected some of "
                f"{', '.join(SUITES)}, separated by commas."
            )
    return list(dict.fromkeys(names))


def execute(
    names: Sequence[str], pairs: int, path: pathlib.Path | None = None
) -> str:
    """Measures suites and lays out the figures.

    Args:
        names: Names of suites.
        pairs: Rounds in which the cases take turns.
        path: Takes everything as JSON.

    Returns:
        A table.

    Raises:
        UserError: If the file cannot be written.
    """
    if path is not None:
        _check_writable(path)
    rows = {}
    for name in names:
        rows[name] = SUITES[name].measure(pairs, _Progress(name))
    if path is not None:
        files.write_json(path, _record(rows, pairs))
    return table(rows)


def _check_writable(path: pathlib.Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.UserError(f"--json: {error}; give another file.") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise errors.UserError(
            f"--json: got {path}, expected a file that can be written."
        )


def _record(rows: Mapping[str, Sequence[Row]], pairs: int) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {**versions, "python": platform.python_version()},
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "pairs": pairs,
        "percentiles": [_LOW, _HIGH],
        "suites": {
            name: {
                "title": SUITES[name].title,
                "rows": [
                    {**dataclasses.asdict(row), "verdict": row.verdict}
                    for row in suite
                ],
            }
            for name, suite in rows.items()
        },
    }


_HEADINGS = (
    "case",
    "against",
    "median",
    f"{_LOW}-{_HIGH} %",
    "arithmetic",
    "target",
    "paper",
    "",
)


def table(rows: Mapping[str, Sequence[Row]]) -> str:
    """Lays out rows by suite."""
    lines = {name: [_cells(row) for row in rows[name]] for name in rows}
    widths = [
        max(map(len, column))
        for column in zip(
            _HEADINGS, *(row for suite in lines.values() for row in suite),
            strict=True,
        )
    ]  # fmt: skip
    texts = []
    for name, suite in lines.items():
        texts.append(f"{name}: {SUITES[name].title}")
        for cells in (_HEADINGS, *suite):
            padded = [
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(
                    zip(cells, widths, strict=True)
                )
            ]
            texts.append("  " + "  ".join(padded).rstrip())
        texts.append("")
    return "\n".join(texts).rstrip()


def _cells(row: Row) -> list[str]:
    digits = 3 if row.quantity in ("speed", "time") else 1
    bound = ">=" if row.quantity == "speed" else "<="
    return [
        row.case,
        row.against,
        f"{row.median:.{digits}f}",
        f"{row.low:.{digits}f} - {row.high:.{digits}f}",
        _optional(row.allowed, f".{digits}f"),
        _optional(row.target, ".2f", bound + " "),
        _optional(row.paper, ".2f"),
        row.verdict,
    ]


def _optional(value: float | None, form: str, prefix: str = "") -> str:
    return "" if value is None else f"{prefix}{value:{form}}"
