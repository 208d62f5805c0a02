"""Small optimization problems on the Gram matrix of the gradients.

Each is solved on the cosine matrix, which is as well conditioned for losses
whose gradients differ a million times in size as for those of one size; the
norms enter last. All is `float64` with a fixed number of iterations, in
operations that run on a GPU and compile under XLA.
"""

from graddrop_tf.solvers.ball import raise_the_worst
from graddrop_tf.solvers.cone import complement, minimize_above
from graddrop_tf.solvers.cosines import CosineForm, cosine_form
from graddrop_tf.solvers.powers import balance
from graddrop_tf.solvers.simplex import minimize_on_simplex
from graddrop_tf.solvers.spectrum import (
    Spectrum,
    eigenvalues,
    singular_values,
    solve_for_ones,
)

__all__ = [
    "CosineForm",
    "Spectrum",
    "balance",
    "complement",
    "cosine_form",
    "eigenvalues",
    "minimize_above",
    "minimize_on_simplex",
    "raise_the_worst",
    "singular_values",
    "solve_for_ones",
]
