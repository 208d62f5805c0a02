"""SGD on the sum of the losses from many starts at once."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import places
from graddrop_tf.step.gradients import KnownGradients
from trainers.config import Config, positive
from trainers.experiments.toy import landscape


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
        self._state.set_losses(len(landscape.LOSS_NAMES), landscape.LOSS_NAMES)
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
            curve = curve.write(
                index, tf.reduce_sum(landscape.losses(weights), axis=1)
            )
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
        values, grads = landscape.losses(weight), landscape.derivatives(weight)
        with (
            self._with(state) as scope,
            gd.random.drawing(step, lane=(lane, self._num_starts)),
        ):
            factors = recipe.loss_weights(values)
            parts = tf.reshape(factors * grads, [len(landscape.SLOPES), 1, 1])
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
            recipe.update_after(values, landscape.losses(weight))
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
