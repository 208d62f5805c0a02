"""Plain-text tables."""

from collections.abc import Sequence


def lay_out(
    rows: Sequence[Sequence[str]], sides: str, ruled: bool = False
) -> list[str]:
    """Aligns the columns of a table.

    Args:
        rows: The cells of each row, the heading first.
        sides: The side to which each column is aligned: `<` left, `>` right.
        ruled: Whether to draw a line below the heading.

    Returns:
        A line for each row.

    Example:
        >>> text_table.lay_out([["name", "n"], ["a", "10"]], "<>")
        ['name   n', 'a     10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if ruled:
        heading, *others = rows
        rows = [heading, ["-" * width for width in widths], *others]
    return [
        "  ".join(
            f"{cell:{side}{width}}"
            for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
