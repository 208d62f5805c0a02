"""Tells the methods of a model when an epoch of `fit` ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import keras

from graddrop_tf.step.state import RecipeState


def with_epoch_ends(
    fit: Callable, state: RecipeState, args: tuple, kwargs: dict
) -> inspect.BoundArguments:
    """Adds a callback that ends epochs to the arguments of `fit`.

    Args:
        fit: `keras.Model.fit`, bound to a model.
        state: The state of the model's recipe.
        args: Positional arguments of `fit`.
        kwargs: Named arguments of `fit`.

    Returns:
        The arguments with the callback, before the callbacks of the user.
    """
    bound = inspect.signature(fit).bind(*args, **kwargs)
    end_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: state.end_epoch()
    )
    callbacks = bound.arguments.get("callbacks") or []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(end_epoch)
    else:
        callbacks = [end_epoch, *keras.tree.flatten(callbacks)]
    bound.arguments["callbacks"] = callbacks
    return bound
