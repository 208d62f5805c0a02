"""Downloads that end well, or leave nothing behind."""

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds

from data import downloads, prepared


class FakeSet(tfds.core.GeneratorBasedBuilder):
    """Three numbers; `error` is raised after the first."""

    VERSION = tfds.core.Version("1.0.0")
    name = "mnist"
    error = None

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"number": np.int64})
        )

    def _split_generators(self, dl_manager):
        (dl_manager.download_dir / "archive").write_text("")
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(3):
            yield number, {"number": number}
            if self.error is not None:
                raise self.error


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(tfds, "builder", lambda name, **kw: FakeSet(**kw))
    monkeypatch.setattr(FakeSet, "error", None)
    monkeypatch.setattr(requests, "head", lambda url, timeout: None)


def test_a_download_is_a_prepared_set(tmp_path, capsys):
    lines = []
    downloads.download("mnist", str(tmp_path), lines.append)
    (line,) = lines
    assert line == f"Downloading mnist to {tmp_path}"
    assert prepared.open_set("mnist", tmp_path).num_examples("train") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]
    downloads.download("mnist", str(tmp_path), lines.append)
    assert len(lines) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("error", [OSError("a\nb"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, error, existed):
    root = tmp_path / "sets"
    if existed:
        root.mkdir()
    monkeypatch.setattr(FakeSet, "error", error)
    expected = (KeyboardInterrupt, prepared.DataError)
    with pytest.raises(expected) as caught:
        downloads.download("mnist", str(root), lambda line: None)
    if isinstance(caught.value, prepared.DataError):
        assert f"could not be downloaded to {root}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert root.exists() == existed
    assert not existed or not list(root.iterdir())


@pytest.mark.parametrize(
    "error", [requests.ConnectionError("a"), requests.Timeout()]
)
def test_a_host_without_an_answer_is_told_at_once(tmp_path, monkeypatch, error):
    def head(url, timeout):
        raise error

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(tfds, "builder", None)
    url = "https://nowhere.example/archive.zip"
    monkeypatch.setattr(FakeSet, "url_infos", {url: None})
    root = tmp_path / "sets"
    with pytest.raises(prepared.DataError) as caught:
        downloads.download("mnist", str(root))
    assert str(caught.value) == (
        f"mnist could not be downloaded to {root} (nowhere.example gives no "
        "answer); give the data directory of a prepared copy."
    )
    assert not root.exists()


def test_archives_that_have_to_be_put_there(tmp_path):
    with pytest.raises(prepared.DataError) as caught:
        downloads.download("imagenet2012", str(tmp_path))
    text = str(caught.value)
    assert f"put its archives into {tmp_path}/downloads/manual by" in text
    assert "ILSVRC2012_img_train.tar" in text and text.endswith(").")
    assert not list(tmp_path.iterdir())


def test_a_name_that_nobody_knows(tmp_path):
    with pytest.raises(prepared.DataError, match="nowhere cannot be downloa"):
        downloads.download("nowhere", str(tmp_path))
    assert not list(tmp_path.iterdir())
