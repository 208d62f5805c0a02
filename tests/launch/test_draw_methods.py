import xml.etree.ElementTree as ElementTree

from launch import command, draw_methods


def test_the_picture_has_six_panels(tmp_path, capsys):
    path = tmp_path / "new" / "methods.svg"
    assert command.guarded(draw_methods.main, [f"--out={path}"]) == 0
    assert capsys.readouterr().out == f"Written: {path}\n"
    root = ElementTree.parse(path).getroot()
    assert root.tag.endswith("svg")
    panels = [group for group in root.iter() if "axes_" in group.get("id", "")]
    assert len(panels) == 6


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, refused):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "methods.svg"
    refused(draw_methods.main, [f"--out={path}"], ["cannot be written"])
