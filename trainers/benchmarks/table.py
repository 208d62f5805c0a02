"""The printed table of a benchmark."""

from collections.abc import Mapping, Sequence

from trainers import text_table
from trainers.benchmarks import measuring

_HEADINGS = (
    "case",
    "against",
    "median",
    f"{measuring.LOW}-{measuring.HIGH} %",
    "arithmetic",
    "target",
    "paper",
    "aim",
)
_SIDES = "<<>>>>>>"


def lay_out(groups: Mapping[str, Sequence[measuring.Row]]) -> str:
    """Lays out rows of measurements.

    Args:
        groups: Rows by the title above them.

    Returns:
        The text.
    """
    cells = [_cells(row) for rows in groups.values() for row in rows]
    heading, *lines = text_table.lay_out([_HEADINGS, *cells], _SIDES)
    rest = iter(lines)
    blocks = [
        [title, f"  {heading}", *(f"  {next(rest)}" for _ in rows)]
        for title, rows in groups.items()
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _cells(row: measuring.Row) -> list[str]:
    is_ratio = row.quantity in measuring.RATIOS
    digits = 3 if is_ratio else 1
    bound = ">=" if row.quantity == "speed" else "<="
    return [
        row.case,
        row.against,
        f"{row.median:.{digits}f}" + ("" if is_ratio else f" {row.quantity}"),
        f"{row.low:.{digits}f} - {row.high:.{digits}f}",
        _optional(row.allowed, f".{digits}f"),
        _optional(row.target, ".2f", bound + " "),
        _optional(row.paper, ".2f"),
        row.verdict,
    ]


def _optional(value: float | None, form: str, prefix: str = "") -> str:
    return "" if value is None else f"{prefix}{value:{form}}"
