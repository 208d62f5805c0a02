"""Measures predictions; writes tables, JSON, plots and an `Objects` file."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data.lidar import labels
from trainers import drawing, errors, files, text_table
from trainers.detection import (
    box_files,
    boxes,
    breakdowns,
    metric,
    official,
    precision_recall,
)

_VEHICLE = "VEHICLE"
OFFICIAL_VEHICLE_IOU = breakdowns.OFFICIAL_IOU_THRESHOLDS[_VEHICLE]
Numbers = Mapping[str, float]
_LABELS = {
    "ap": "AP",
    "aph": "APH",
    "official_ap": "official AP",
    "official_aph": "official APH",
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How to measure predictions, and which files to write.

    Attributes:
        box_type: One of `boxes.BOX_TYPES`.
        ap_rule: One of `average_precision.AP_RULES`.
        vehicle_iou: From which IoU on vehicles match; officially 0.7.
        num_workers: How many threads share the work.
        official_python: An interpreter that runs the official op as well.
        json_path: The file for the numbers by breakdown.
        plots_folder: The folder for precision over recall, a PNG for each
            type of objects present.
        objects_path: The file for the predictions as official `Objects`.

    Raises:
        UserError: Where the official op is asked for another IoU than its own.
    """

    box_type: str = "3d"
    ap_rule: str = "2022"
    vehicle_iou: float = OFFICIAL_VEHICLE_IOU
    num_workers: int = 1
    official_python: str | None = None
    json_path: pathlib.Path | None = None
    plots_folder: pathlib.Path | None = None
    objects_path: pathlib.Path | None = None

    def __post_init__(self):
        """Validates the fields."""
        if self.official_python and self.vehicle_iou != OFFICIAL_VEHICLE_IOU:
            raise errors.UserError(
                f"--vehicle_iou: got {self.vehicle_iou}, but the official op "
                f"has {OFFICIAL_VEHICLE_IOU}; leave out one of them."
            )

    def compare_files(
        self, predictions: pathlib.Path, ground_truths: pathlib.Path
    ) -> str:
        """Compares a file of predictions with a file of ground truth.

        Args:
            predictions: A .bin or .npz file, see `objects`.
            ground_truths: The same.

        Returns:
            A table of the breakdowns of all types that occur.

        Raises:
            UserError: For a file that cannot be read, compared or written.
        """
        inputs = (predictions.resolve(), ground_truths.resolve())
        for output in (self.json_path, self.objects_path):
            if output is not None and output.resolve() in inputs:
                raise errors.UserError(
                    f"{output}: is read, so it cannot be written; give "
                    "another file."
                )
        return self.compare_scenes(
            box_files.read(predictions, ground_truths),
            (str(predictions), str(ground_truths)),
        )

    def compare_scenes(
        self,
        scenes: box_files.Scenes,
        sources: tuple[str, str] = ("", ""),
        type_names: Sequence[str] | None = None,
    ) -> str:
        """Compares predictions with ground truth; writes the requested files.

        Args:
            scenes: Both.
            sources: Where they come from.
            type_names: The types that are predicted, of `labels.TYPES`; by
                default those that occur.

        Returns:
            A table of their breakdowns, without ranges that hold no ground
            truth.

        Raises:
            UserError: For what cannot be compared or written.
        """
        both = [
            self._of_box_type(source, values)
            for source, values in zip(
                sources, (scenes.predictions, scenes.ground_truths), strict=True
            )
        ]
        measured = metric.DetectionMetric(
            self.box_type, self.num_workers, {_VEHICLE: self.vehicle_iou}
        )
        measured.update(*both)
        results = measured.result(self.ap_rule)
        numbers = results.by_name()
        if self.official_python is not None:
            numbers = _beside(
                numbers, official.evaluate(self.official_python, *both)
            )
        written = self._write(results, numbers, scenes)
        if type_names is None:
            type_names = _types_of(scenes)
        rows = [
            name
            for name in breakdowns.of_types(type_names)
            if not name.startswith("RANGE") or _has_ground_truth(results, name)
        ]
        lines = [self._heading(scenes), "", *_table(numbers, rows), ""]
        lines += _operating_points(results, scenes.predictions)
        if self.official_python is not None:
            lines += ["", _difference(numbers)]
        return "\n".join([*lines, *(f"Written: {path}" for path in written)])

    def _of_box_type(self, source: str, values: boxes.Boxes) -> boxes.Boxes:
        try:
            return boxes.convert_box_type(values, self.box_type)
        except ValueError as error:
            raise errors.UserError(f"{source}: {error}") from None

    def _heading(self, scenes: box_files.Scenes) -> str:
        return (
            f"{len(scenes.frames):,} frames, "
            f"{len(scenes.predictions.score):,} predictions, "
            f"{np.sum(scenes.ground_truths.type >= 0):,} ground-truth boxes "
            f"({scenes.num_left_out:,} more hold no lidar point); "
            f"{self.box_type}, AP rule of {self.ap_rule}, vehicles match from "
            f"an IoU of {self.vehicle_iou:g} on"
        )

    def _write(
        self,
        results: metric.Results,
        numbers: Mapping[str, Numbers],
        scenes: box_files.Scenes,
    ) -> list[pathlib.Path]:
        """Writes what is asked for, and returns where it is."""
        written = []
        if self.json_path is not None:
            files.write_json(self.json_path, numbers)
            written.append(self.json_path)
        if self.objects_path is not None:
            box_files.write_predictions(
                self.objects_path, scenes.predictions, scenes.frames
            )
            written.append(self.objects_path)
        if self.plots_folder is not None:
            written += _write_plots(self.plots_folder, results)
        return written


def _types_of(scenes: box_files.Scenes) -> list[str]:
    """Lists the types of predictions and ground truth, neighbours aside."""
    found = np.union1d(scenes.predictions.type, scenes.ground_truths.type)
    return [labels.TYPES[type_] for type_ in found[found > 0]]


def _types_there(results: metric.Results) -> Iterator[str]:
    """Lists the types of objects among predictions and ground truth."""
    totals = (
        results.true_positives
        + results.false_positives
        + results.false_negatives
    )
    for type_name in labels.TYPES[1:]:
        row = breakdowns.row(type_name, 2)
        if totals[row].any():
            yield type_name


def _has_ground_truth(results: metric.Results, name: str) -> bool:
    row = breakdowns.BREAKDOWNS.index(name)
    return (results.true_positives + results.false_negatives)[row].any()


def _operating_points(
    results: metric.Results, predictions: boxes.Predictions
) -> Iterator[str]:
    """Describes the cutoff of the best F1 for each type and level."""
    for type_name in _types_there(results):
        is_type = predictions.type == labels.TYPES.index(type_name)
        scores = predictions.score[is_type]
        for level in breakdowns.LEVELS:
            row = breakdowns.BREAKDOWNS.index(
                breakdowns.breakdown(type_name, level)
            )
            hits, false_alarms, misses = (
                counts[row]
                for counts in (
                    results.true_positives,
                    results.false_positives,
                    results.false_negatives,
                )
            )
            best = np.argmax(hits / (2 * hits + false_alarms + misses + 1e-9))
            num_cutoffs = np.searchsorted(metric.CUTOFFS, scores, "right")
            kept = np.sum(num_cutoffs > best)
            others = kept - hits[best] - false_alarms[best]
            counts = f"{false_alarms[best]} false, {misses[best]} missed"
            if others:
                counts += (
                    f", {others} not counted: in a no-label zone or on a "
                    "neighbour"
                )
            name = f"{type_name} LEVEL_{level}"
            if not hits[best]:
                yield f"{name}: nothing found ({counts})"
                continue
            precision = hits[best] / (hits[best] + false_alarms[best])
            yield (
                f"{name}, best F1 at scores from {metric.CUTOFFS[best]:.2f} "
                f"on: precision {precision:.3f}, recall "
                f"{results.recall[row, best]:.3f} ({hits[best]} found, "
                f"{counts})"
            )


def _write_plots(
    folder: pathlib.Path, results: metric.Results
) -> list[pathlib.Path]:
    written = []
    for type_name in _types_there(results):
        path = folder / f"precision_recall_{type_name.lower()}.png"
        with files.replacing(path) as file:
            file.write(
                drawing.png(
                    precision_recall.precision_over_recall(results, type_name)
                )
            )
        written.append(path)
    return written


def _beside(
    ours: Mapping[str, Numbers], theirs: Mapping[str, Numbers]
) -> dict[str, dict[str, float]]:
    """Adds the official numbers next to ours."""
    return {
        name: {
            **numbers,
            "official_ap": theirs[name]["ap"],
            "official_aph": theirs[name]["aph"],
        }
        for name, numbers in ours.items()
    }


def _table(numbers: Mapping[str, Numbers], names: Sequence[str]) -> list[str]:
    headings = [f"{_LABELS[key]:>12}" for key in next(iter(numbers.values()))]
    cells = [
        [name, *(f"{number:.6f}" for number in numbers[name].values())]
        for name in names
    ]
    return text_table.lay_out(
        [["breakdown", *headings], *cells], "<" + ">" * len(headings)
    )


def _difference(rows: Mapping[str, Numbers]) -> str:
    largest = {
        key: max(
            abs(numbers[key] - numbers[f"official_{key}"])
            for numbers in rows.values()
        )
        for key in ("ap", "aph")
    }
    return (
        f"Largest difference from the official op: {largest['ap']:.1e} in AP, "
        f"{largest['aph']:.1e} in APH."
    )
