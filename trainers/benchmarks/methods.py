"""The network of the CelebA experiment, and the methods to train it with.

Chen et al., NeurIPS 2020, appendix A.4, on smaller images: 40 losses that
share two dense layers.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

import graddrop_tf as gd
from trainers.benchmarks import arithmetic, measuring
from trainers.models import attribute_network

NUM_LOSSES = 40
BATCH_SIZE = 8
IMAGE_SIZE = 64
CHUNK = 4


@dataclasses.dataclass(frozen=True)
class Method:
    """A method to train the network with.

    Attributes:
        name: Its name in the table.
        recipe: Makes its recipe.
        combining: Maps (T, F) to the multiply-adds of combining T gradients of
            F values: T * T * F for a Gram matrix; None for a single backward
            pass.
        paper: The paper's number for its speed against the baseline.
        chunk: Number of gradients that may exist at once; None for all.
    """

    name: str
    recipe: Callable[[], gd.Recipe]
    combining: Callable[[int, int], int] | None = None
    paper: float | None = None
    chunk: int | None = None


@keras.saving.register_keras_serializable("trainers_benchmark")
class AsTheyAre(gd.Combiner):
    """Returns the gradients unchanged: the cost of per-loss gradients."""

    def combine(self, gradients, activations):
        """See base class."""
        return gradients


def _parsed(text: str) -> Callable[[], gd.Recipe]:
    return lambda: gd.Recipe.parse(text)


BASELINE = Method("baseline", gd.Recipe)
BARE = Method(
    "bare Jacobian",
    lambda: gd.Recipe(combiners=[AsTheyAre()]),
    lambda T, F: T * F,
)
GRADDROP = Method(
    "graddrop", _parsed("graddrop"), lambda T, F: 2 * T * F, paper=0.45
)
CHUNKED = dataclasses.replace(
    GRADDROP, name=f"graddrop, chunks of {CHUNK}", paper=None, chunk=CHUNK
)
METHODS = (
    BASELINE,
    BARE,
    GRADDROP,
    CHUNKED,
    Method(
        "pcgrad",
        _parsed("pcgrad"),
        lambda T, F: T * T * F + T * F,
        paper=0.20,
    ),
    Method(
        "mgda",
        _parsed("mgda"),
        lambda T, F: T * T * F + T * F,
        paper=0.25,
    ),
    Method(
        "gradnorm",
        _parsed("gradnorm"),
        lambda T, F: 2 * T * F,
        paper=0.41,
    ),
    Method(
        "gradnorm+graddrop",
        _parsed("gradnorm+graddrop"),
        lambda T, F: 3 * T * F,
    ),
)


def make() -> tuple[keras.Model, keras.Model]:
    """Makes the network: trunk and heads."""
    return attribute_network.make_network(
        (IMAGE_SIZE, IMAGE_SIZE, 3), NUM_LOSSES
    )


def compiled(
    method: Method, trunk: keras.Model, heads: keras.Model
) -> gd.MultiLossModel:
    """Makes a compiled model of the network.

    Args:
        method: The method.
        trunk: The trunk, which several models may share.
        heads: The heads, which several models may share.

    Returns:
        The model.
    """
    model = gd.MultiLossModel(
        trunk, heads, recipe=method.recipe(), loss_chunk_size=method.chunk
    )
    model.compile(keras.optimizers.Adam(1e-3), loss=loss(), jit_compile=False)
    return model


def loss() -> gd.VectorLoss:
    """Makes the losses of the network."""
    return gd.VectorLoss(attribute_network.cross_entropy)


def random_batch(
    trunk: keras.Model, heads: keras.Model, batch_size: int = BATCH_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Draws images and attributes, both float32."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch_size, *trunk.input.shape[1:]))
    y = generator.integers(0, 2, (batch_size, heads.output.shape[-1]))
    return x.astype(np.float32), y.astype(np.float32)


def make_step(
    method: Method, trunk: keras.Model, heads: keras.Model
) -> measuring.Step:
    """Makes a training step on random images. Arguments as in `compiled`."""
    return measuring.training_step(
        compiled(method, trunk, heads), *random_batch(trunk, heads)
    )


def num_activations(heads: keras.Model) -> int:
    """Returns F, the size of one example's activation."""
    return int(np.prod(heads.input.shape[1:]))


def multiply_adds(
    method: Method, trunk: keras.Model, heads: keras.Model
) -> int:
    """Counts the multiply-adds of a method's step, for one example."""
    counts = [arithmetic.forward_multiply_adds(m) for m in (trunk, heads)]
    if method.combining is None:
        return arithmetic.step_multiply_adds(*counts)
    T = heads.output.shape[-1]
    combining = method.combining(T, num_activations(heads))
    return arithmetic.step_multiply_adds(*counts, T, combining)


def chunk_text(chunk: int | None) -> str:
    """Describes how many gradients exist at once."""
    return "all at once" if chunk is None else f"chunks of {chunk}"
