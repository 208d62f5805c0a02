"""The report as plain text, Markdown and HTML."""

import dataclasses
import html
import textwrap
from collections.abc import Mapping, Sequence

from trainers import drawing, text_table
from trainers.runs import columns

_PAGE_WIDTH = 79
# Values are not cut.
_WHOLE = {"break_long_words": False, "break_on_hyphens": False}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.92rem; }
th, td { padding: 0.3rem 0.8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td:last-child { text-align: left; }
thead tr { border-bottom: 2px solid #444; }
tbody tr { border-bottom: 1px solid #ddd; }
figure { margin: 2rem 0; }
figcaption, .note { color: #555; font-size: 0.92rem; }
img { max-width: 100%; height: auto; }
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Section:
    """The part of the report for one experiment with one config.

    Attributes:
        title: Its heading.
        tables: Its tables.
        notes: Lines below them.
        figures: Its figures.
        subtitle: A line below the heading, if any.
    """

    title: str
    tables: Sequence[Table]
    notes: Sequence[str]
    figures: Sequence[columns.Figure]
    subtitle: str = ""


def text(sections: Sequence[Section]) -> str:
    """Renders a report as plain text, without its figures."""
    parts = []
    for section in sections:
        rule = "=" * min(len(section.title), _PAGE_WIDTH)
        parts.append(f"{section.title}\n{rule}")
        if section.subtitle:
            parts.append(textwrap.fill(section.subtitle, _PAGE_WIDTH, **_WHOLE))
        parts += [_plain(table) for table in section.tables]
        parts += section.notes
    return "\n\n".join(parts) + "\n"


def _plain(table: Table) -> str:
    sides = "<" + ">" * (len(table.heading) - 2) + "<"
    rows = [table.heading, *table.rows]
    return "\n".join(text_table.lay_out(rows, sides, ruled=True))


def markdown(sections: Sequence[Section]) -> str:
    """Renders a report as Markdown that links to `plots/NAME.png`."""
    parts = ["# Report"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.subtitle:
            parts.append(section.subtitle)
        for table in section.tables:
            align = [":--", *["--:"] * (len(table.heading) - 2), ":--"]
            lines = [table.heading, align, *table.rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts += section.notes
        parts += [
            f"![{figure.name}](plots/{figure.name}.png)\n\n{figure.caption}"
            for figure in section.figures
        ]
    return "\n\n".join(parts) + "\n"


def page(sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """Renders a report as one HTML page.

    Args:
        sections: The sections of the report.
        images: The figures as PNG, by name; the page contains them.

    Returns:
        The page.
    """
    parts = []
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.subtitle:
            subtitle = html.escape(section.subtitle)
            parts.append(f'<p class="note">{subtitle}</p>')
        for table in section.tables:
            parts.append(_html_table(table))
        parts += [
            f'<p class="note">{html.escape(note)}</p>' for note in section.notes
        ]
        parts += [
            f'<figure><img alt="{figure.name}" '
            f'src="{drawing.data_url(images[figure.name])}">'
            f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
            for figure in section.figures
        ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Report</h1>\n{body}\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return (
        f"<table>\n<thead>{row(table.heading, 'th')}</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )
