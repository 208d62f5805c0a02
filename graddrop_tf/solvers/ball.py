"""The direction near a given one in which the worst loss falls fastest."""

from __future__ import annotations

import tensorflow as tf

from graddrop_tf.solvers.linear import make_solver, step_length

_NUM_ITERATIONS = 16
_NUM_REFINEMENTS = 3
_CONVERGED = 1e-26
# A gap above this share of the squared radius is that of no minimum.
_UNSOLVED = 1e-3


def raise_the_worst(
    cosines: tf.Tensor,
    norms: tf.Tensor,
    live: tf.Tensor,
    share: float,
    rounding: float,
) -> tf.Tensor:
    """Maximises `min_i g_i . d` over `|d - g_0| <= c |g_0|`, `g_0 = sum_i g_i`.

    With `d = g_0 + sum_i y_i g_i / |g_i|` the dual problem is to minimise
    `x . q + c |g_0| |x|_C` over `x >= 0` with `sum_i x_i / s_i = 1`, where
    `q = C s` and `|x|_C^2 = x' C x`; y has the direction of x and the length
    `c |g_0|`. A primal-dual interior-point method as in `minimize_on_simplex`
    tells which x are positive; then their equations are solved, which are
    linear but for that length. 16 steps, 17 factorizations.

    Args:
        cosines: C, `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        norms: s, `[T]` `float64` of maximum 1, 0 for a gradient of zero.
        live: `[T]` `float64`: 0 for a gradient of zero, else 1.
        share: c, at least 0 and below 1.
        rounding: The error of the values of C.

    Returns:
        y, `[T]` `float64`; zeros where `g_0` is 0, or where the minimum is a
        combination of gradients that is 0, so that no d is the only best one.

    Example:
        >>> y = raise_the_worst(cosines, s, tf.ones_like(s), 0.4, 1e-12)
    """
    problem = _Problem(cosines, norms, live, share, rounding)
    x, z = problem.solve()
    y = problem.of_length(x)
    refined = problem.refine(y, free=x > z)
    y = tf.where(problem.gap(refined) < problem.gap(y), refined, y)
    solved = problem.gap(y) <= _UNSOLVED * problem.radius**2
    return tf.where(solved & problem.is_proper, y, tf.zeros_like(y))


class _Problem:
    """The dual problem; attributes as in its description above."""

    def __init__(self, cosines, norms, live, share, rounding):
        self.cosines, self.live = cosines, live
        num_rows = cosines.shape[0]
        self.eye = tf.eye(num_rows, dtype=tf.float64)
        self.ridge = num_rows * rounding * self.eye
        smallest = tf.reduce_min(tf.where(live > 0, norms, 1.0))
        # 1 / s_i in units of the largest; a gradient of zero costs nothing.
        self.prices = live * smallest / tf.where(live > 0, norms, 1.0)
        self.slopes = tf.linalg.matvec(cosines, norms)
        square = tf.reduce_sum(norms * self.slopes)
        radius = share * tf.sqrt(tf.maximum(square, 0))
        self.is_proper = radius > 0
        self.radius = tf.where(self.is_proper, radius, 1.0)

    def solve(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns x and the multipliers of its bounds."""
        ones = tf.ones_like(self.prices)
        # Any x will do where all gradients are zero.
        total = tf.maximum(tf.reduce_sum(self.prices), 1.0)
        start = (0, ones / total, ones, tf.zeros([], tf.float64))
        _, x, z, _ = tf.while_loop(
            lambda position, *_: position < _NUM_ITERATIONS,
            lambda position, *point: (position + 1, *self._iterate(*point)),
            start,
        )
        return x, z

    def _iterate(self, x, z, nu):
        mu = tf.reduce_mean(x * z)
        image = tf.linalg.matvec(self.cosines, x)
        length = self._length(x)
        normal = image / length
        dual = self.slopes + self.radius * normal - nu * self.prices - z
        primal = tf.reduce_sum(self.prices * x) - 1
        curvature = self.cosines + self.ridge - normal[:, None] * normal
        solve = make_solver(
            self.radius / length * curvature + tf.linalg.diag(z / x)
        )
        response = solve(self.prices)
        steepness = tf.reduce_sum(self.prices * response)
        steepness = tf.where(steepness > 0, steepness, 1.0)

        def newton(complementarity):
            step = solve(complementarity / x - dual)
            d_nu = -(primal + tf.reduce_sum(self.prices * step)) / steepness
            d_x = step + d_nu * response
            return d_x, (complementarity - z * d_x) / x, d_nu

        d_x, d_z, _ = newton(-x * z)
        longest = step_length(x, d_x, z, d_z, 1.0)
        ahead = tf.reduce_mean((x + longest * d_x) * (z + longest * d_z))
        centring = (ahead / mu) ** 3
        d_x, d_z, d_nu = newton(centring * mu - x * z - d_x * d_z)
        longest = step_length(x, d_x, z, d_z, 0.99)
        longest *= tf.cast(mu > _CONVERGED, tf.float64)
        return x + longest * d_x, z + longest * d_z, nu + longest * d_nu

    def refine(self, y, free) -> tf.Tensor:
        """Solves the equations of the free y; the others are 0."""
        free = tf.cast(free, tf.float64)
        part = self.cosines * free[:, None] * free[None, :]
        solve = make_solver(part + self.ridge + tf.linalg.diag(1 - free))
        along = free * solve(free * self.prices)
        square = tf.reduce_sum(along * tf.linalg.matvec(part, along))
        y = free * y
        for _ in range(_NUM_REFINEMENTS):
            image = tf.linalg.matvec(part, y)
            y -= free * solve(free * self.slopes + image)
            # y + nu * along has the length of the radius at the larger nu.
            mixed = tf.reduce_sum(along * tf.linalg.matvec(part, y))
            rest = tf.reduce_sum(y * tf.linalg.matvec(part, y))
            root = mixed**2 - square * (rest - self.radius**2)
            nu = tf.sqrt(tf.maximum(root, 0)) - mixed
            y += nu / tf.where(square > 0, square, 1.0) * along
        return self.of_length(tf.maximum(y, 0))

    def gap(self, y) -> tf.Tensor:
        """Returns how far y is from the minimum; 0 at the minimum alone."""
        gains = self.slopes + tf.linalg.matvec(self.cosines, y)
        proper = tf.where(self.prices > 0, self.prices, 1.0)
        gains = tf.where(self.live > 0, gains / proper, tf.float64.max)
        worst = tf.reduce_min(gains)
        parts = tf.where(self.live > 0, y * self.prices * (gains - worst), 0)
        return tf.reduce_sum(parts)

    def of_length(self, x) -> tf.Tensor:
        """Returns x, made as long as the radius."""
        return self.radius / self._length(x) * x

    def _length(self, x) -> tf.Tensor:
        square = tf.reduce_sum(x * tf.linalg.matvec(self.cosines, x))
        return tf.sqrt(tf.maximum(square, 1e-30))
