"""Every method obeys every law. A line in METHODS enrols a method here."""

import functools

import pytest

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from tests.graddrop_tf.methods import laws

# Arguments that lead through other code; every method runs without any.
VARIANTS = (
    "graddrop(k=2, leak=0.5)",
    "graddrop(marginalize_batch=False, renormalize=True)",
    "pcgrad(iterative=True)",
)
# Laws that only some methods claim to obey.
CLAIMS = {
    "gradnorm": (
        laws.zeros_leave_the_weights_as_they_began,
        laws.scaling_all_losses_keeps_the_weights,
        laws.a_nan_of_a_loss_is_in_the_next_weights,
        laws.one_loss_has_weight_one,
    ),
    "mgda": (laws.no_loss_conflicts, laws.the_duality_gap_is_closed),
    "pcgrad": (laws.neither_of_two_losses_conflicts,),
}
_COIN = "A fair coin may drop the sign of a single loss."
_ORDERS = "The drawn orders belong to positions; test_pcgrad.py permutes both."
# Laws that a method breaks, and why. It has to break them.
EXCEPTIONS = {
    "random_graddrop": {
        laws.one_loss_is_the_identity: _COIN,
        laws.one_loss_is_the_identity_at_zeros: _COIN,
    },
    "pcgrad": {laws.permuting_the_losses: _ORDERS},
    "pcgrad(iterative=True)": {laws.permuting_the_losses: _ORDERS},
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
