"""State that methods keep from step to step, outside of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf

State = dict[str, tf.Tensor]


class Stateful(keras.layers.Layer):
    """A layer whose state is no weight.

    Keras keeps the seed of a `Dropout` among its `variables` but not among its
    `weights`; this layer does the same with its state. Weights of a model
    without the layer therefore fit a model with it. `.keras` and `.weights.h5`
    files and `tf.train.Checkpoint` hold the state; loading a file without it
    starts afresh.

    A method names its state in `initial_state`, reads it from `state`, and
    replaces it by `keep`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Past Keras, which would count variables in attributes as weights.
        object.__setattr__(self, "_kept", {})
        object.__setattr__(self, "_fresh", {})
        object.__setattr__(self, "_values", None)
        self._own_names: tuple[str, ...] = ()

    def initial_state(self, num_losses: int) -> State:
        """Returns the state before the first step, a dict of tensors.

        Args:
            num_losses: T.
        """
        return {}

    def start(self, num_losses: int) -> State:
        """Returns all of the state before the first step."""
        return self.initial_state(num_losses)

    @property
    def state(self) -> State:
        """The tensors named in `initial_state`, as they are now.

        Raises:
            ValueError: If the layer is not built.
        """
        if self._values is not None:
            return dict(self._values)
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} has no state before it is built. Call "
                "it, train a model with it, or use `recipe.build(num_losses)`."
            )
        return {
            k: tf.identity(v.value) for k, v in self.state_variables.items()
        }

    @property
    def state_variables(self) -> dict[str, keras.Variable]:
        """The variables of `state`, by name."""
        return {name: self._kept[name] for name in self._own_names}

    def keep(self, **values: tf.Tensor) -> None:
        """Replaces parts of the state, unless a value is not finite.

        Args:
            **values: New values by name, equal on every replica.

        Raises:
            ValueError: If a name is not in `initial_state`.
        """
        unknown = sorted({*values} - {*self._own_names})
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no state {unknown}. Its "
                f"`initial_state` names {list(self._own_names)}."
            )
        if self._values is not None:
            self._values.update(values)
            return
        values = {
            name: tf.cast(value, self._kept[name].dtype)
            for name, value in values.items()
        }
        finite = all_finite(values.values())
        for name, value in values.items():
            variable = self._kept[name]
            variable.assign(tf.where(finite, value, variable.value))

    @contextlib.contextmanager
    def without_variables(self, num_losses: int) -> Iterator[None]:
        """Inside, the state is that of `initial_state`, in no variables.

        Args:
            num_losses: T.
        """
        state = self.start(num_losses)
        object.__setattr__(self, "_values", state)
        self._own_names = tuple(state)
        try:
            yield
        finally:
            object.__setattr__(self, "_values", None)

    def make_state(self, num_losses: int | None) -> None:
        """Creates the variables, once for a number of losses.

        Args:
            num_losses: T; if None, only what does not depend on it. What
                another number of losses left starts afresh.
        """
        with tf.init_scope():
            hidden = self._hidden_state()
            own = {} if num_losses is None else self.start(num_losses)
            values = {
                name: tf.convert_to_tensor(value)
                for name, value in {**hidden, **own}.items()
            }
        for name, value in values.items():
            known = self._kept.get(name)
            if known is None or known.shape != value.shape:
                self._kept[name] = self.new_variable(name, value)
                self._fresh[name] = value
        self._own_names = self._own_names or tuple(own)

    def _hidden_state(self) -> State:
        """Returns the initial values of what the base classes keep."""
        return {}

    def new_variable(self, name: str, value) -> keras.Variable:
        """Creates a variable that is equal on every replica, and no weight.

        Args:
            name: Its name.
            value: Its first value, a tensor or an array.
        """
        variable = keras.Variable(
            lambda shape, dtype=None: tf.cast(value, dtype),
            shape=tuple(value.shape),
            dtype=keras.backend.standardize_dtype(value.dtype),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name=name,
        )
        self._handle_deferred_dependencies(name, variable)
        return variable

    # What `tf.train.Checkpoint` saves and restores.
    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        return {**children, **self._kept}

    @property
    def variables(self) -> list[keras.Variable]:
        """The state, then the variables that Keras tracks."""
        return [*self._kept.values(), *super().variables]

    def save_own_variables(self, store) -> None:
        """Saves the weights by number, as Keras does, the state by name."""
        super().save_own_variables(store)
        for name, variable in self._kept.items():
            store[name] = variable

    def load_own_variables(self, store) -> None:
        """Loads the weights and the state; absent state starts afresh."""
        saved = {name: store[name] for name in store.keys()}  # noqa: SIM118
        decimal = sorted((k for k in saved if k.isdecimal()), key=int)
        numbered = [saved.pop(key) for key in decimal]
        own = [*self._trainable_variables, *self._non_trainable_variables]
        if len(numbered) > len(own):
            # The code before saved the state by number as well.
            saved = {**dict(zip(self._kept, numbered, strict=False)), **saved}
            numbered = numbered[len(self._kept) :][: len(own)]
        if own:
            super().load_own_variables(
                {str(i): value for i, value in enumerate(numbered)}
            )
        for name, variable in self._kept.items():
            variable.assign(saved.get(name, self._fresh[name]))


def all_finite(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    """Returns whether all values of all tensors are finite."""
    finite = [
        tf.reduce_all(tf.math.is_finite(tensor))
        for tensor in tensors
        if tensor.dtype.is_floating
    ]
    return tf.reduce_all([True, *finite])
