"""Every method obeys every law. A line in METHODS enrols a method here."""

import functools

import pytest

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from tests.graddrop_tf.methods import laws

# Arguments that lead through other code; every method runs without any.
VARIANTS = (
    "aligned_mtl(mode='median')",
    "aligned_mtl(mode='rmse')",
    "cagrad(c=0)",
    "famo(lagged=True)",
    "famo(optimizer='sgd')",
    "fairgrad(alpha=0.5)",
    "graddrop(purity=0.7)",
    "graddrop(k=2, leak=0.5)",
    "graddrop(marginalize_batch=False, renormalize=True)",
    "pcgrad(iterative=True)",
    "stch(log=False)",
    "stch(nadir=1.0)",
    "stch(warmup=1)",
    "uncertainty('classification')",
)
_PROJECTED = (
    laws.no_loss_conflicts,
    laws.agreeing_gradients_are_summed,
    laws.orthonormal_gradients_are_summed,
)
_FAIR = (
    laws.no_loss_conflicts,
    laws.orthonormal_gradients_keep_their_direction,
)
_UNITS = (
    laws.units_of_losses_do_not_matter,
    laws.a_nan_of_a_loss_is_in_the_next_weights,
)
# Laws that only some methods claim to obey.
CLAIMS = {
    "gradnorm": (
        laws.zeros_leave_the_weights_as_they_began,
        laws.scaling_all_losses_keeps_the_weights,
        laws.a_nan_of_a_loss_is_in_the_next_weights,
        laws.one_loss_has_weight_one,
    ),
    "log_sum": _UNITS,
    "geometric_mean": _UNITS,
    "imtl_l": _UNITS,
    "stch": _UNITS,
    "stch(warmup=1)": _UNITS,
    "famo": _UNITS,
    "famo(lagged=True)": _UNITS,
    "famo(optimizer='sgd')": _UNITS,
    "dwa": (
        laws.units_of_losses_leave_the_weights,
        laws.scaling_all_losses_keeps_the_weights,
        laws.one_loss_has_weight_one,
        laws.zeros_leave_the_weights_as_they_began,
    ),
    "rlw": (
        laws.units_of_losses_leave_the_weights,
        laws.one_loss_has_weight_one,
    ),
    "constant": (
        laws.units_of_losses_leave_the_weights,
        laws.one_loss_has_weight_one,
    ),
    "mgda": (laws.no_loss_conflicts, laws.the_duality_gap_is_closed),
    "pcgrad": (laws.neither_of_two_losses_conflicts,),
    "upgrad": _PROJECTED,
    "dualproj": _PROJECTED,
    "cagrad(c=0)": (
        laws.agreeing_gradients_are_summed,
        laws.orthonormal_gradients_are_summed,
    ),
    "nash_mtl": _FAIR,
    "fairgrad": _FAIR,
    "fairgrad(alpha=0.5)": _FAIR,
    "aligned_mtl": (laws.orthonormal_gradients_are_summed,),
    "aligned_mtl(mode='median')": (laws.orthonormal_gradients_are_summed,),
    "aligned_mtl(mode='rmse')": (laws.orthonormal_gradients_are_summed,),
    "config": (
        laws.no_loss_conflicts,
        laws.orthonormal_gradients_are_summed,
    ),
}
_COIN = "A fair coin may drop the sign of a single loss."
_MOVED = "Of a single loss it takes a step that is 1 + c times as long."
_DROPPED = "It drops values whatever the losses."
_MASKS = "Batch-separated losses have masks of their own, in order."
_FIRST = "The primary loss is the first."
_EPSILON = "Gradients of about the root of epsilon are normalised less."
_HULL = "A gradient of zero is the shortest combination."
_ORDERS = "The drawn orders belong to positions; test_pcgrad.py permutes both."
# Laws that a method breaks, and why. It has to break them.
EXCEPTIONS = {
    "random_graddrop": {
        laws.one_loss_is_the_identity: _COIN,
        laws.one_loss_is_the_identity_at_zeros: _COIN,
    },
    "graddrop(purity=0.7)": {
        laws.one_loss_is_the_identity: _COIN,
        laws.one_loss_is_the_identity_at_zeros: _COIN,
    },
    "gradient_dropout": {
        laws.one_loss_is_the_identity: _DROPPED,
        laws.one_loss_is_the_identity_at_zeros: _DROPPED,
        laws.permuting_the_losses: _MASKS,
    },
    "pcgrad": {laws.permuting_the_losses: _ORDERS},
    "pcgrad(iterative=True)": {laws.permuting_the_losses: _ORDERS},
    "mgda": {laws.a_zero_gradient_changes_nothing: _HULL},
    "cagrad": {
        laws.one_loss_is_the_identity: _MOVED,
        laws.one_loss_is_the_identity_at_zeros: _MOVED,
    },
    "pcd": {
        laws.permuting_the_losses: _FIRST,
        laws.positive_scaling: _EPSILON,
        laws.finite_and_right_at_any_scale: _EPSILON,
    },
}


@functools.cache
def build(text):
    """Makes the one method of a recipe."""
    recipe = gd.Recipe.parse(text)
    (method,) = [c for c in (recipe.weighting, *recipe.combiners) if c]
    return method.build()


def enrolled():
    """Returns every method with every law, as parameters of a test."""
    parameters = []
    for text in (*METHODS, *VARIANTS):
        method = build(text)
        if isinstance(method, gd.Weighting):
            general = laws.WEIGHTING_LAWS
        elif isinstance(method, gd.GramianCombiner):
            general = (*laws.COMBINER_LAWS, *laws.GRAMIAN_LAWS)
        else:
            general = laws.COMBINER_LAWS
        for law in (*general, *CLAIMS.get(text, ())):
            reason = EXCEPTIONS.get(text, {}).get(law)
            marks = pytest.mark.xfail(
                reason is not None,
                reason=str(reason),
                raises=AssertionError,
                strict=True,
            )
            parameters.append(
                pytest.param(
                    text, law, marks=marks, id=f"{text}-{law.__name__}"
                )
            )
    return parameters


@pytest.mark.parametrize(("text", "law"), enrolled())
def test_law(text, law):
    law(build(text))


def test_exceptions_and_claims_are_those_of_methods():
    assert {*EXCEPTIONS, *CLAIMS} <= {*METHODS, *VARIANTS}
