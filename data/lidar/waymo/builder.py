"""The TFDS builder of Waymo's lidar frames.

TFDS itself writes a data set at one go; here every segment becomes a shard of
its own in a folder beside, which survives an interruption. When all are there,
they move into the data set as they are.
"""

import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

import tensorflow_datasets as tfds

from data import files
from data.lidar import examples
from data.lidar.waymo import preparation
from data.lidar.waymo import segments as segments_lib

_INCOMPLETE = "incomplete."


class WaymoLidar(tfds.core.dataset_builder.FileReaderBuilder):
    """Training examples of lidar detection, a shard for each segment.

    The examples are those of `data.lidar.examples`. What is prepared is read
    without this class too:

        builder = tfds.builder_from_directory("DATA_DIR/waymo_lidar/1.0.0")
        frames = builder.as_dataset(split="train", shuffle_files=True)
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        segments: Mapping[str, Sequence[segments_lib.Segment]] | None = None,
        skip_bad_segments: bool = False,
        num_processes: int | None = None,
        report: Callable[[str], None] = print,
        **kwargs,
    ):
        """Makes the builder.

        Args:
            segments: The segments of each split, where they are to be
                prepared.
            skip_bad_segments: Whether the data set does without those that
                cannot be read.
            num_processes: How many to use on this machine; None for one on
                each core.
            report: Called with lines about progress and bad segments.
            **kwargs: See `tfds.core.DatasetBuilder`; `data_dir` above all.

        Raises:
            LidarDataError: If a segment is there twice.
        """
        self._segments = {
            split: list(found) for split, found in (segments or {}).items()
        }
        segments_lib.check_unique_names(
            [s for found in self._segments.values() for s in found]
        )
        self._skip_bad_segments = skip_bad_segments
        self._num_processes = num_processes or os.cpu_count() or 1
        self._report = report
        self._stdout = None
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Lidar frames and boxes of the Waymo Open Dataset.",
            features=examples.features(),
            homepage="https://waymo.com/open/",
            metadata=tfds.core.MetadataDict(),
        )

    def download_and_prepare(self, **kwargs) -> None:
        """Prepares the data set, or its missing part.

        It runs on Apache Beam where that is installed, and on processes of
        this machine else. `download_config` may name a `beam_runner` and its
        `beam_options`. The messages of TFDS about a download are hidden.

        Args:
            **kwargs: See `tfds.core.DatasetBuilder.download_and_prepare`.

        Raises:
            LidarDataError: If segments cannot be read, or if the data set is
                there with other segments.
            OSError: If something cannot be written, or if another process
                prepares it.
        """
        names = {
            split: [segment.name for segment in found]
            for split, found in self._segments.items()
        }
        if pathlib.Path(self.data_dir).exists():
            if names and self.info.metadata.get("segments") != names:
                raise examples.LidarDataError(
                    f"{self.data_dir}: holds a data set of other segments; "
                    "remove it or choose another directory."
                )
            shutil.rmtree(self._unfinished, ignore_errors=True)
            return
        if not any(names.values()):
            raise examples.LidarDataError(
                f"{self.data_dir}: got no segments to prepare, expected some."
            )
        with files.alone_in(self._unfinished):
            for left in self._unfinished.parent.glob(
                f"{_INCOMPLETE}*_{self.version}"
            ):
                shutil.rmtree(left)
            self.info.metadata["segments"] = names
            kwargs.setdefault("download_dir", self._unfinished / "downloads")
            self._stdout = sys.stdout
            with contextlib.redirect_stdout(None):
                super().download_and_prepare(**kwargs)
            shutil.rmtree(self._unfinished)

    @property
    def _unfinished(self) -> pathlib.Path:
        """The folder of the shards until the data set is whole."""
        return pathlib.Path(self.data_dir).parent / f"unfinished-{self.version}"

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        """Prepares the shards and moves them into the data set."""
        tasks = {
            split: [
                preparation.Task(segment, self._unfinished / split)
                for segment in found
            ]
            for split, found in self._segments.items()
        }
        every = [task for found in tasks.values() for task in found]
        # Within TFDS's own `download_and_prepare`, whose output is hidden.
        with contextlib.redirect_stdout(self._stdout):
            outcomes = preparation.prepare(
                every, self._executor(download_config), self._report
            )
            bad = {
                task.segment.name: outcomes[task]["error"]
                for task in every
                if "error" in outcomes[task]
            }
            for reason in bad.values():
                self._report(f"bad segment: {reason}")
        if bad and not self._skip_bad_segments:
            raise examples.LidarDataError(
                f"{len(bad)} of {len(every)} segments cannot be read (see "
                "above); get their files again and start again, which keeps "
                "the others, or leave them out by --skip_bad_segments."
            )
        self.info.metadata["bad_segments"] = bad
        for name in "num_boxes", "num_counted":
            self.info.metadata[name] = {
                split: sum(outcomes[task].get(name, 0) for task in found)
                for split, found in tasks.items()
            }
        self.info.set_splits(
            tfds.core.SplitDict(
                [
                    self._move(
                        split,
                        [t for t in found if t.segment.name not in bad],
                        outcomes,
                    )
                    for split, found in tasks.items()
                ]
            )
        )

    def _executor(self, download_config) -> preparation.Executor:
        if not preparation.beam_is_installed():
            return preparation.on_processes(self._num_processes)
        return preparation.on_beam(
            self._num_processes,
            download_config.beam_runner,
            download_config.beam_options,
        )

    def _move(self, split, tasks, outcomes) -> tfds.core.SplitInfo:
        """Links the shards of a split into the data set."""
        if not tasks:
            raise examples.LidarDataError(
                f"{split}: got no segment that can be read, expected some; "
                f"get their files again, or leave out --{split}."
            )
        template = self._get_filename_template(split_name=split)
        for index, task in enumerate(tasks):
            files.link(
                task.shard,
                template.sharded_filepath(
                    shard_index=index, num_shards=len(tasks)
                ),
            )
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[outcomes[task]["num_examples"] for task in tasks],
            num_bytes=sum(task.shard.stat().st_size for task in tasks),
            filename_template=template,
        )
