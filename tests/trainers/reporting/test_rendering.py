import dataclasses

from matplotlib import figure as matplotlib_figure

from trainers.reporting import rendering
from trainers.runs import columns

_TABLE = rendering.Table(
    ["method", "error", "verdict"], [["a<b", "1.25", "better"]]
)
_SECTION = rendering.Section(
    "toy: a & b",
    [_TABLE],
    ["One note."],
    [columns.Figure("curve", "What > it shows.", matplotlib_figure.Figure())],
)


def test_text_has_aligned_tables_and_no_figures():
    assert rendering.text([_SECTION]) == (
        "toy: a & b\n"
        "==========\n\n"
        "method  error  verdict\n"
        "------  -----  -------\n"
        "a<b      1.25  better\n\n"
        "One note.\n"
    )


def test_changed_values_stand_in_lines_below_the_title():
    changes = "; ".join(f"name_{i}: {i} / {i + 1}" for i in range(30))
    section = dataclasses.replace(
        _SECTION, title="t" * 90, subtitle=changes, tables=[]
    )
    lines = rendering.text([section]).splitlines()
    assert lines[:3] == ["t" * 90, "=" * 79, ""]
    end = lines.index("", 3)
    assert max(map(len, lines[3:end])) <= 79
    assert " ".join(lines[3:end]) == changes
    assert f"\n\n{changes}\n\n" in rendering.markdown([section])
    assert f">{changes}<" in rendering.page([section], {"curve": b""})


def test_markdown_links_to_the_plots():
    assert rendering.markdown([_SECTION]) == (
        "# Report\n\n"
        "## toy: a & b\n\n"
        "| method | error | verdict |\n"
        "| :-- | --: | :-- |\n"
        "| a<b | 1.25 | better |\n\n"
        "One note.\n\n"
        "![curve](plots/curve.png)\n\n"
        "What > it shows.\n"
    )


def test_the_page_escapes_text_and_contains_the_plots():
    page = rendering.page([_SECTION], {"curve": b"png"})
    assert "<h2>toy: a &amp; b</h2>" in page
    assert "<td>a&lt;b</td><td>1.25</td><td>better</td>" in page
    assert "<th>method</th>" in page
    assert "<figcaption>What &gt; it shows.</figcaption>" in page
    assert 'src="data:image/png;base64,cG5n"' in page
