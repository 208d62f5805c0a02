"""The direction near a given one in which the worst loss falls fastest."""

from __future__ import annotations

import tensorflow as tf

from graddrop_tf.solvers.cone import complement, shortfall
from graddrop_tf.solvers.linear import make_solver, predictor_corrector

_NUM_ITERATIONS = 16
_CONVERGED = 1e-14
_SHORTEST = 1e-12
_NUM_ROUNDS = 3
_CANDIDATES = (0.5, 0.9, 1.0)
_NUM_REFINEMENTS = 4
# Shares of the radius, and of its square: a point that is no projection, and a
# gap that is that of no maximum.
_INFEASIBLE, _UNSOLVED = 1e-3, 1e-3
# What `complement` leaves, relative to its slopes.
_INEXACT = 1e-6


def raise_the_worst(
    cosines: tf.Tensor,
    norms: tf.Tensor,
    live: tf.Tensor,
    share: float,
    rounding: float,
) -> tf.Tensor:
    """Maximises `min_i g_i . d` over `|d - g_0| <= c |g_0|`, `g_0 = sum_i g_i`.

    The d nearest to g_0 with `g_i . d >= nu` for all i is `g_0 + sum_i y_i u_i`
    with the y that `complement` finds; u_i is `g_i / |g_i|`. Its distance from
    g_0 is a convex, increasing function of nu. An interior-point method of 16
    steps estimates y; the nu at which the distance is `c |g_0|` is enclosed in
    3 rounds of 3 candidates and the nu of the best y so far. The equations of
    the y that are positive at a candidate give y exactly, if they are those
    that are positive at the solution. 12 projections, of 16 factorizations
    each.

    Args:
        cosines: `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        norms: `[T]` `float64`, |g_i|, of maximum 1; 0 for a gradient of zero.
        live: `[T]` `float64`: 0 for a gradient of zero, else 1.
        share: c, at least 0 and below 1.
        rounding: The error of the cosines.

    Returns:
        y, `[T]` `float64`; zeros where `g_0` is 0, or where no d is the only
        best one, as a convex combination of the gradients is 0.

    Example:
        >>> y = raise_the_worst(cosines, norms, tf.ones_like(norms), 0.4, 1e-12)
    """
    problem = _Problem(cosines, norms, live, share, rounding)
    y = tf.while_loop(
        lambda position, *_: position < _NUM_ROUNDS,
        lambda position, *found: (position + 1, *problem.enclose(*found)),
        (0, *problem.limits(), problem.estimate()),
    )[-1]
    solved = problem.gap(y) <= _UNSOLVED * problem.radius**2
    return tf.where(solved & problem.is_proper, y, tf.zeros_like(y))


class _Problem:
    """The problem; y is given for one nu or several, `[..., T]`."""

    def __init__(self, cosines, norms, live, share, rounding):
        self.cosines, self.live, self.rounding = cosines, live, rounding
        num_rows = cosines.shape[0]
        self.ridge = num_rows * rounding * tf.eye(num_rows, dtype=tf.float64)
        smallest = tf.reduce_min(tf.where(live > 0, norms, 1.0))
        # u_i . d >= nu / |g_i|, in units of the largest of these bounds.
        self.bounds = live * smallest / tf.where(live > 0, norms, 1.0)
        self.start = tf.linalg.matvec(cosines, norms)
        square = tf.reduce_sum(norms * self.start)
        radius = share * tf.sqrt(tf.maximum(square, 0))
        self.is_proper = radius > 0
        self.radius = tf.where(self.is_proper, radius, 1.0)

    def limits(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a nu that is too small, and one that is too large."""
        # No u_i . d can rise by more than the radius.
        raised = self.start + self.radius
        return self._worst(self.start), self._worst(raised)

    def estimate(self) -> tf.Tensor:
        """Solves the dual problem by an interior-point method.

        It is to minimise `x . C s + c |g_0| |x|_C` over `x >= 0` with
        `sum_i x_i / s_i = 1`; y has the direction of x.
        """
        ones = tf.ones_like(self.bounds)
        # Any x will do where all gradients are zero.
        total = tf.maximum(tf.reduce_sum(self.bounds), 1.0)
        x = tf.while_loop(
            lambda position, *_: position < _NUM_ITERATIONS,
            lambda position, *point: (position + 1, *self._iterate(*point)),
            (0, ones / total, ones, tf.zeros([], tf.float64)),
        )[1]
        length = self._length(x)
        return x * self.radius / tf.where(length > 0, length, 1.0)

    def _iterate(self, x, z, nu) -> tuple[tf.Tensor, ...]:
        """Takes a predictor-corrector step, as in `minimize_on_simplex`."""
        length = tf.maximum(self._length(x), _SHORTEST)
        normal = tf.linalg.matvec(self.cosines, x) / length
        dual = self.start + self.radius * normal - nu * self.bounds - z
        primal = tf.reduce_sum(self.bounds * x) - 1
        curvature = self.cosines + self.ridge - normal[:, None] * normal
        solve = make_solver(
            self.radius / length * curvature + tf.linalg.diag(z / x)
        )
        response = solve(self.bounds)
        steepness = tf.reduce_sum(self.bounds * response)
        steepness = tf.where(steepness > 0, steepness, 1.0)

        def newton(complementarity):
            step = solve(complementarity / x - dual)
            d_nu = -(primal + tf.reduce_sum(self.bounds * step)) / steepness
            d_x = step + d_nu * response
            return d_x, (complementarity - z * d_x) / x, d_nu

        return predictor_corrector(newton, x, z, nu, _CONVERGED)

    def enclose(self, below, above, y) -> tuple[tf.Tensor, ...]:
        """Narrows the range of nu.

        Args:
            below: A nu that is too small.
            above: A nu that is too large.
            y: The best solution so far.

        Returns:
            New values of all three.
        """
        nu = below + (above - below) * tf.constant(_CANDIDATES, tf.float64)
        reached = self._worst(self._gains(y))
        slopes = (
            self.start - tf.concat([nu, [reached]], 0)[:, None] * self.bounds
        )
        projected = complement(self.cosines, slopes, self.rounding)
        refined = self._refine(projected, slopes)
        all_y = tf.concat([refined, [y]], axis=0)
        y = tf.gather(all_y, tf.argmin(self.gap(all_y)))
        error = shortfall(self.cosines, slopes, projected)
        size = tf.reduce_max(tf.abs(slopes), axis=-1)
        within = error <= _INFEASIBLE * self.radius + _INEXACT * size
        within &= self._length(projected) <= self.radius
        # Of the candidates in order, those up to the first that is too large.
        count = tf.math.cumprod(tf.cast(within[:-1], tf.int32))
        nu = tf.concat([[below], nu, [above]], axis=0)
        count = tf.reduce_sum(count)
        return tf.gather(nu, count), tf.gather(nu, count + 1), y

    def _refine(self, y, slopes) -> tf.Tensor:
        """Solves the equations of the y that are positive at each nu.

        They hold for `y + step * along` at `nu + step`; the step makes y as
        long as the radius.
        """
        free = y > tf.linalg.matvec(self.cosines, y) + slopes
        free = tf.cast(free, tf.float64)
        part = self.cosines * free[:, :, None] * free[:, None, :]
        solve = make_solver(part + self.ridge + tf.linalg.diag(1 - free))
        along = free * solve(free * self.bounds)
        image = tf.linalg.matvec(part, along)
        square = tf.reduce_sum(along * image, axis=-1)
        divisor = tf.where(square > 0, square, 1.0)
        y = free * y
        for _ in range(_NUM_REFINEMENTS):
            y -= free * solve(free * slopes + tf.linalg.matvec(part, y))
            mixed = tf.reduce_sum(y * image, axis=-1)
            excess = self._length(y) ** 2 - self.radius**2
            root = tf.sqrt(tf.maximum(mixed**2 - square * excess, 0))
            step = ((root - mixed) / divisor)[:, None]
            y += step * along
            slopes -= step * self.bounds
        return tf.maximum(y, 0.0)

    def gap(self, y) -> tf.Tensor:
        """Returns how far y is from the maximum, `[...]`; 0 there alone."""
        gains = self._gains(y)
        excess = gains - self._worst(gains)[..., None] * self.bounds
        gap = tf.reduce_sum(y * tf.abs(excess), axis=-1)
        gap += self.radius * tf.abs(self._length(y) - self.radius)
        # Parts that cancel up to rounding are no solution.
        longest = self.rounding**-0.5 * self.radius
        usable = tf.reduce_max(y, axis=-1) <= longest
        return tf.where(usable, gap, tf.float64.max)

    def _gains(self, y) -> tf.Tensor:
        """Returns the products of d with the unit gradients."""
        return self.start + tf.linalg.matvec(self.cosines, y)

    def _worst(self, gains) -> tf.Tensor:
        """Returns the nu that u_i . d of these values reach."""
        proper = tf.where(self.bounds > 0, self.bounds, 1.0)
        reached = tf.where(self.bounds > 0, gains / proper, tf.float64.max)
        return tf.reduce_min(reached, axis=-1)

    def _length(self, y) -> tf.Tensor:
        square = tf.reduce_sum(y * tf.linalg.matvec(self.cosines, y), axis=-1)
        return tf.sqrt(tf.maximum(square, 0))
