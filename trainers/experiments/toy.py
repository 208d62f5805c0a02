"""One weight, five losses: the paper's one-dimensional experiment.

Source: Chen et al., NeurIPS 2020, section 4.1, appendix A.3 and Figure 2. The
losses are `sin(a w + b) + 1` for the five (a, b) below; SGD with a learning
rate of 0.2, halved every 1,000 steps, takes 10,000 steps from each of 200
random starts. The range of the starts, [-10, 10], is our choice, as is `w`
itself as the shared activation. The sum of the losses has many local minima;
its global minimum is 1.4133. The paper gives no numbers.

All 200 runs of a method advance together, and every method starts from the
same 200 points. Each run has its own inner products (PCGrad, MGDA) and weights
(GradNorm).

    python -m launch.compare --experiment=toy --seeds=0 --run_dir=DIR

prints, on two CPU cores (mean and standard deviation over the 200 starts):

| method | final loss | median | at the global minimum |
| --- | --- | --- | --- |
| baseline | 4.342 +- 0.854 | 4.038 | 0.0 % |
| graddrop | 2.204 +- 0.870 | 1.419 | 53.5 % |
| random_graddrop | 2.045 +- 1.033 | 1.417 | 65.5 % |
| pcgrad | 5.204 +- 1.337 | 5.123 | 0.0 % |
| mgda | 5.016 +- 1.415 | 5.076 | 0.0 % |
| gradnorm | 4.153 +- 1.271 | 4.433 | 0.0 % |
| gradnorm+graddrop | 3.413 +- 1.513 | 3.360 | 3.5 % |

PCGrad and MGDA stop where two losses disagree in sign: in one dimension such a
point leaves them no direction. Random GradDrop reaches the global minimum from
more starts than GradDrop. A method takes 1 to 20 seconds; those that solve an
optimization problem for each start take longest.
"""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import places
from graddrop_tf.step.gradients import KnownGradients
from trainers import errors, files
from trainers.config import Config, positive
from trainers.reporting import plots
from trainers.runs import columns, experiment, serving
from trainers.training.progress import Progress

SLOPES = (1.0, 1.5, 2.0, 2.5, 5.0)
OFFSETS = (0.0, 0.2, 0.4, 0.6, 0.8)
LOSS_NAMES = tuple(f"loss_{i}" for i in range(1, len(SLOPES) + 1))
GLOBAL_MINIMUM = 1.4133
_HIT_TOLERANCE = 0.01
_CURVES = "curves.npz"


@dataclasses.dataclass(frozen=True)
class ToyConfig(Config):
    """Values of the toy experiment.

    Attributes:
        num_starts: Number of runs, each from its own start.
        steps: SGD steps.
        learning_rate: Initial learning rate.
        halve_every: Steps after which the learning rate is halved.
        start_range: The starts are uniform in [-start_range, start_range].
    """

    jit_compile: bool = True
    num_starts: int = positive(200)
    steps: int = positive(10_000)
    learning_rate: float = 0.2
    halve_every: int = positive(1000)
    start_range: float = positive(10.0)


def losses(weight: tf.Tensor) -> tf.Tensor:
    """Computes the five losses `[..., 5]` at weights of any shape `[...]`."""
    return tf.sin(weight[..., None] * SLOPES + OFFSETS) + 1.0


def derivatives(weight: tf.Tensor) -> tf.Tensor:
    """Computes the derivatives `[..., 5]` of `losses`."""
    return tf.cos(weight[..., None] * SLOPES + OFFSETS) * SLOPES


def draw_starts(config: ToyConfig, seed: int) -> np.ndarray:
    """Draws the starts `[num_starts]`, the same for every method."""
    generator = np.random.default_rng(seed)
    return generator.uniform(
        -config.start_range, config.start_range, config.num_starts
    ).astype(np.float32)


class Descent:
    """SGD on the sum of the losses, from many starts at once."""

    def __init__(self, recipe: gd.Recipe, config: ToyConfig):
        """Builds the methods of a recipe.

        Args:
            recipe: The methods.
            config: The experiment's values.
        """
        self._num_starts = config.num_starts
        self._state = recipe.make_state()
        self._state.set_losses(len(LOSS_NAMES), LOSS_NAMES)
        own = {id(v) for v in self._state.state_variables}
        # The same for all runs.
        self._seeds = [
            (v, v.numpy()) for v in self._state.variables if id(v) not in own
        ]
        self._advance = tf.function(
            self._take_steps, jit_compile=config.jit_compile
        )

    def initial_state(self) -> list[tf.Tensor]:
        """Returns the methods' state for each start, `[num_starts, ...]`."""
        return [
            tf.repeat(variable.value[None], self._num_starts, axis=0)
            for variable in self._state.state_variables
        ]

    def advance(
        self,
        weights: tf.Tensor,
        state: list[tf.Tensor],
        first_step: int,
        learning_rate: float,
        num_steps: int,
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor]:
        """Takes an epoch of steps with one learning rate.

        Args:
            weights: The weight of each run, `[num_starts]`.
            state: State of the methods, from `initial_state`.
            first_step: Number of the first step.
            learning_rate: Learning rate of these steps.
            num_steps: Number of steps.

        Returns:
            The weights and the state afterwards, and the sum of the losses
            before each step, `[num_steps, num_starts]`.
        """
        return self._advance(
            weights,
            state,
            tf.constant(first_step, tf.int64),
            tf.constant(learning_rate, tf.float32),
            num_steps,
        )

    def _take_steps(self, weights, state, first_step, learning_rate, num_steps):
        curve = tf.TensorArray(tf.float32, num_steps, element_shape=[None])
        lanes = tf.range(self._num_starts)
        for index in tf.range(num_steps):
            curve = curve.write(index, tf.reduce_sum(losses(weights), axis=1))
            step = first_step + tf.cast(index, tf.int64)
            weights, state = tf.vectorized_map(
                lambda run, step=step: self._take_step(
                    step, learning_rate, *run
                ),
                (lanes, weights, state),
            )
        _, state = tf.vectorized_map(self._end_epoch, (lanes, state))
        return weights, state, curve.stack()

    def _take_step(self, step, learning_rate, lane, weight, state):
        """Takes a step of one run."""
        recipe = self._state
        values, grads = losses(weight), derivatives(weight)
        with (
            self._with(state) as scope,
            gd.random.drawing(step, lane=(lane, self._num_starts)),
        ):
            factors = recipe.loss_weights(values)
            parts = tf.reshape(factors * grads, [len(SLOPES), 1, 1])
            place = places.Shared(tf.reshape(weight, [1, 1]))
            known = KnownGradients(tf.unstack(parts), place, tf.abs(grads))
            combined, norms = recipe.combine(known)
            if combined is None:
                combined = tf.add_n(known.gradients)
            recipe.update(values, norms)
            limit = recipe.global_clipnorm
            if limit is not None:
                combined = tf.clip_by_value(combined, -limit, limit)
            weight -= learning_rate * combined[0, 0]
            recipe.update_after(values, losses(weight))
        return weight, self._after(scope)

    def _end_epoch(self, run):
        lane, state = run
        with self._with(state) as scope:
            self._state.end_epoch()
        return lane, self._after(scope)

    def _with(self, state) -> keras.StatelessScope:
        """Gives the methods the state of one run."""
        pairs = zip(self._state.state_variables, state, strict=True)
        return keras.StatelessScope([*pairs, *self._seeds])

    def _after(self, scope: keras.StatelessScope) -> list[tf.Tensor]:
        variables = self._state.state_variables
        return [scope.get_current_value(v) for v in variables]


def _hits(final: np.ndarray) -> np.ndarray:
    return (final < GLOBAL_MINIMUM + _HIT_TOLERANCE).astype(np.float64)


def _load(directory: pathlib.Path) -> dict[str, Any]:
    with np.load(directory / _CURVES) as archive:
        return dict(archive)


def _draw_losses(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    limit = next(iter(records.values()))[0].identity["config"]["start_range"]
    grid = np.linspace(-limit, limit, 2001, dtype=np.float32)
    values = losses(tf.constant(grid)).numpy()
    caption = (
        "The five losses (thin) and their sum, which is minimised. The global "
        f"minimum is {GLOBAL_MINIMUM} (the paper's Figure 2a)."
    )
    drawing = plots.landscape(grid, values, GLOBAL_MINIMUM)
    return [columns.Figure("toy_a_losses", caption, drawing)]


def _draw_descents(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    loaded = {name: _load(runs[0].directory) for name, runs in records.items()}
    start = next(iter(loaded.values()))["starts"][0]
    caption = (
        "Sum of the losses in one run of each method, all from "
        f"w = {start:.3f} (Figure 2b)."
    )
    drawing = plots.panels(
        {name: arrays["first_curve"] for name, arrays in loaded.items()},
        "step",
        "sum of losses",
        floor=GLOBAL_MINIMUM,
    )
    return [columns.Figure("toy_b_curves", caption, drawing)]


def _draw_final_losses(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    finals = {
        method: np.concatenate(
            [_load(run.directory)["final_losses"] for run in runs]
        )
        for method, runs in records.items()
    }
    caption = (
        "Final losses of all runs: median, quartiles, and whiskers at 1.5 "
        "times the distance of the quartiles; the diamond is the mean "
        "(Figure 2c)."
    )
    drawing = plots.boxes(finals, "final sum of losses", GLOBAL_MINIMUM)
    return [columns.Figure("toy_c_final_losses", caption, drawing)]


class Toy(experiment.Experiment):
    """See the module's documentation."""

    name = "toy"
    title = "one weight, five losses sin(a w + b) + 1 (paper, section 4.1)"
    defaults = ToyConfig()
    loss_names = LOSS_NAMES
    table = (
        columns.Column("final_loss", "final loss"),
        columns.Column("final_loss", "median", columns.median),
        columns.Column("final_loss", "smallest to largest", columns.extremes),
        columns.Column(
            "at_global_minimum", "at the global minimum", columns.hits
        ),
    )
    figures = (_draw_losses, _draw_descents, _draw_final_losses)
    compared = "final_loss"
    compared_label = "final loss"
    compared_digits = 3
    lower_is_better = True
    sample = "start"

    def check(self, run: experiment.Run) -> None:
        """See the base class."""
        if run.recipe.gradient_penalty:
            raise errors.UserError(
                f"toy with {run.method}: a gradient penalty needs an input, "
                "and toy has none; leave the penalty out."
            )

    def execute(self, run: experiment.Run, progress: Progress):
        """See the base class."""
        config: ToyConfig = run.config
        descent = Descent(run.recipe, config)
        starts = draw_starts(config, run.seed)
        weights = tf.constant(starts)
        state = descent.initial_state()
        curves = []
        for first in range(0, config.steps, config.halve_every):
            weights, state, curve = descent.advance(
                weights,
                state,
                first,
                config.learning_rate * 0.5 ** (first // config.halve_every),
                min(config.halve_every, config.steps - first),
            )
            done = first + curve.shape[0]
            curves.append(curve.numpy())
            if not np.isfinite(weights).all():
                raise errors.DivergedError(
                    f"step {done}: "
                    f"{np.sum(~np.isfinite(weights))} of the "
                    f"{config.num_starts} weights are not finite"
                )
            progress.update(
                done, config.steps, f"mean loss {curves[-1][-1].mean():.4f}"
            )
        final = losses(weights).numpy().sum(axis=1)
        curves = np.concatenate([*curves, final[None]])
        with files.replacing(run.directory / _CURVES) as file:
            np.savez_compressed(
                file,
                starts=starts,
                final_weights=weights.numpy(),
                final_losses=final,
                mean_curve=curves.mean(axis=1),
                first_curve=curves[:, 0],
            )
        metrics = {
            "mean_loss": float(final.mean()),
            "deviation": float(final.std(ddof=min(1, final.size - 1))),
            "median": float(np.median(final)),
            "smallest": float(final.min()),
            "largest": float(final.max()),
            "share_at_global_minimum": float(_hits(final).mean()),
        }
        return serving.Outcome(metrics)

    def samples(self, record: experiment.Record) -> dict[str, np.ndarray]:
        """See the base class."""
        final = _load(record.directory)["final_losses"]
        return {"final_loss": final, "at_global_minimum": _hits(final)}
