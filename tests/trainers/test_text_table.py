import pytest

from trainers import text_table

_ROWS = [["case", "n", ""], ["a", "12", "ok"], ["longer", "3", ""]]


def test_columns_are_aligned_to_their_sides():
    assert text_table.lay_out(_ROWS, "<><") == [
        "case     n",
        "a       12  ok",
        "longer   3",
    ]


def test_a_line_below_the_heading():
    assert text_table.lay_out(_ROWS, ">>>", ruled=True) == [
        "  case   n",
        "------  --  --",
        "     a  12  ok",
        "longer   3",
    ]


def test_a_column_may_be_empty():
    assert text_table.lay_out([["a", ""], ["b", ""]], "<>") == ["a", "b"]


def test_rows_have_as_many_cells_as_columns():
    with pytest.raises(ValueError):
        text_table.lay_out([["a", "b"], ["c"]], "<>")
    with pytest.raises(ValueError):
        text_table.lay_out([["a", "b"]], "<")
