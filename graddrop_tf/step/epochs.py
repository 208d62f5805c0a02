"""Ends the epochs of a weighting in `fit`."""

from __future__ import annotations

import functools
import inspect

import keras

from graddrop_tf.step.state import RecipeState


def end_in_fit(model: keras.Model, state: RecipeState) -> None:
    """Makes `fit` of a model end the epochs of a state.

    `fit` stays as it is unless a weighting uses the mean losses of epochs.

    Args:
        model: A Keras model.
        state: The state of its recipe.
    """
    # That of a recipe before.
    vars(model).pop("fit", None)
    if not state.needs_epochs:
        return
    plain_fit = type(model).fit
    signature = inspect.signature(keras.Model.fit)

    @functools.wraps(plain_fit)
    def fit(*args, **kwargs):
        bound = signature.bind(model, *args, **kwargs)
        end_epoch = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: state.end_epoch()
        )
        callbacks = bound.arguments.get("callbacks") or []
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(end_epoch)
        else:
            # First, so that a checkpoint at the end of an epoch holds it.
            callbacks = [end_epoch, *keras.tree.flatten(callbacks)]
        bound.arguments["callbacks"] = callbacks
        return plain_fit(*bound.args, **bound.kwargs)

    # Not tracked as a part of the model.
    object.__setattr__(model, "fit", fit)
