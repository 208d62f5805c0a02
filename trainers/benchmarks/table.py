"""Rows as text."""

from collections.abc import Mapping, Sequence

from trainers.benchmarks import measuring

_HEADINGS = (
    "case",
    "against",
    "median",
    f"{measuring.LOW}-{measuring.HIGH} %",
    "arithmetic",
    "target",
    "paper",
    "",
)


def lay_out(groups: Mapping[str, Sequence[measuring.Row]]) -> str:
    """Lays out rows.

    Args:
        groups: Rows by the line that stands above them.

    Returns:
        The text.
    """
    lines = {title: list(map(_cells, rows)) for title, rows in groups.items()}
    widths = [
        max(map(len, column))
        for column in zip(
            _HEADINGS, *(row for group in lines.values() for row in group),
            strict=True,
        )
    ]  # fmt: skip
    texts = []
    for title, group in lines.items():
        texts.append(title)
        for cells in (_HEADINGS, *group):
            padded = [
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(
                    zip(cells, widths, strict=True)
                )
            ]
            texts.append("  " + "  ".join(padded).rstrip())
        texts.append("")
    return "\n".join(texts).rstrip()


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
