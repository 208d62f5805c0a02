import ast

import pytest

import graddrop_tf as gd


@pytest.mark.parametrize(
    "text", ["", "(", "a b", "\0", "9" * 5000, "(" * 10_000, "x = 1"]
)
def test_text_that_is_not_an_expression(text):
    assert gd.parsing.parse_expression(text) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("baseline", ["baseline"]),
        ("baseline, graddrop", ["baseline", "graddrop"]),
        (
            " graddrop(k=0.25, leak=[1, 0]),mgda+graddrop ",
            ["graddrop(k=0.25, leak=[1, 0])", "mgda+graddrop"],
        ),
        (
            "graddrop(leak={'ä, b': 1, 'c': 0}),clip(1.0)",
            ["graddrop(leak={'ä, b': 1, 'c': 0})", "clip(1.0)"],
        ),
    ],
)
def test_recipes_are_split_at_commas_outside_brackets(text, parts):
    assert gd.parsing.split_recipes(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "a,,b", "a,", "a, ", ",", "graddrop(k=1", "a),b", ")a,b(", "a],[b"],
)
def test_lists_that_cannot_be_split(text):
    with pytest.raises(ValueError, match="got .*, expected recipes"):
        gd.parsing.split_recipes(text)


def test_terms_are_split_at_plus_signs_and_keep_what_is_not_a_value():
    terms = gd.parsing.split_terms("mgda + graddrop(k=uniform(0, 1 + 1))+x")
    assert [ast.unparse(term) for term in terms] == [
        "mgda",
        "graddrop(k=uniform(0, 1 + 1))",
        "x",
    ]


def test_arguments_get_their_names():
    assert gd.parsing.parse_terms("clip(2)+graddrop([1, 0], k=.5)+mgda") == [
        ("clip", {"norm": 2}),
        ("graddrop", {"leak": [1, 0], "k": 0.5}),
        ("mgda", {}),
    ]


def test_messages_list_what_is_known():
    with pytest.raises(
        ValueError, match="Known names: .*baseline, .*graddrop, "
    ):
        gd.parsing.parse_terms("gradrop")
    with pytest.raises(
        ValueError, match="Known names: .*baseline, .*graddrop, "
    ):
        gd.parsing.split_terms("graddrop+")
    with pytest.raises(ValueError, match="Received: 'baseline.1.'.*: none"):
        gd.parsing.parse_terms("baseline(1)")


@pytest.mark.parametrize(
    ("text", "near"),
    [("gradrop(leak=0.5)", "graddrop"), ("pcgrad+clp(1)", "clip")],
)
def test_the_nearest_name_is_suggested(text, near):
    with pytest.raises(ValueError, match=f"Did you mean '{near}'"):
        gd.Recipe.parse(text)
