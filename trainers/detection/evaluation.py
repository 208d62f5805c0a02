"""From two files to a table, and to JSON, plots and an `Objects` file."""

import dataclasses
import pathlib
from collections.abc import Mapping

from trainers import errors, files, plots
from trainers.detection import boxes, curves, metric, objects, official

Numbers = Mapping[str, float]
_LABELS = {
    "ap": "AP",
    "aph": "APH",
    "official_ap": "official AP",
    "official_aph": "official APH",
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Predictions in a file against true boxes in a file.

    Attributes:
        predictions_path: A .bin or .npz file, see `objects`.
        ground_truths_path: The same.
        box_type: One of `boxes.BOX_TYPES`.
        ap_rule: One of `average_precision.AP_RULES`.
        num_workers: How many threads share the work.
        official_python: An interpreter that runs the official op as well.
        json_path: The file for the numbers by breakdown.
        plots_folder: The folder for precision over recall, a PNG for each
            type of objects that is there.
        objects_path: The file for the predictions as official `Objects`.
    """

    predictions_path: pathlib.Path
    ground_truths_path: pathlib.Path
    box_type: str = "3d"
    ap_rule: str = "2022"
    num_workers: int = 1
    official_python: str | None = None
    json_path: pathlib.Path | None = None
    plots_folder: pathlib.Path | None = None
    objects_path: pathlib.Path | None = None

    def execute(self) -> str:
        """Compares the files, and writes what is asked for.

        Returns:
            A table of all breakdowns.

        Raises:
            UserError: For a file that cannot be read, compared or written.
        """
        self._refuse_to_overwrite()
        scenes = objects.read(self.predictions_path, self.ground_truths_path)
        both = [
            self._of_box_type(path, values)
            for path, values in (
                (self.predictions_path, scenes.predictions),
                (self.ground_truths_path, scenes.ground_truths),
            )
        ]
        measured = metric.DetectionMetric(self.box_type, self.num_workers)
        measured.update(*both)
        results = measured.result(self.ap_rule)
        numbers = results.by_name()
        if self.official_python is not None:
            numbers = _beside(
                numbers, official.evaluate(self.official_python, *both)
            )
        written = self._write(results, numbers, scenes)
        lines = [self._heading(scenes), "", *_table(numbers)]
        if self.official_python is not None:
            lines += ["", _difference(numbers)]
        return "\n".join([*lines, *(f"Written: {path}" for path in written)])

    def _refuse_to_overwrite(self) -> None:
        inputs = (self.predictions_path, self.ground_truths_path)
        for output in (self.json_path, self.objects_path):
            if output is not None and output.resolve() in [
                path.resolve() for path in inputs
            ]:
                raise errors.UserError(
                    f"{output}: is read, so it cannot be written; give "
                    "another file."
                )

    def _of_box_type(
        self, path: pathlib.Path, values: boxes.Boxes
    ) -> boxes.Boxes:
        try:
            return boxes.of_box_type(values, self.box_type)
        except ValueError as error:
            raise errors.UserError(f"{path}: {error}") from None

    def _heading(self, scenes: objects.Scenes) -> str:
        return (
            f"{len(scenes.frames):,} frames, "
            f"{len(scenes.predictions.score):,} predictions, "
            f"{len(scenes.ground_truths.type):,} true boxes "
            f"({scenes.num_left_out:,} more hold no lidar point); "
            f"{self.box_type}, AP rule of {self.ap_rule}"
        )

    def _write(
        self,
        results: metric.Results,
        numbers: Mapping[str, Numbers],
        scenes: objects.Scenes,
    ) -> list[pathlib.Path]:
        """Writes what is asked for, and returns where it is."""
        written = []
        if self.json_path is not None:
            files.write_json(self.json_path, numbers)
            written.append(self.json_path)
        if self.objects_path is not None:
            objects.write_predictions(
                self.objects_path, scenes.predictions, scenes.frames
            )
            written.append(self.objects_path)
        if self.plots_folder is not None:
            written += _write_plots(self.plots_folder, results)
        return written


def _write_plots(
    folder: pathlib.Path, results: metric.Results
) -> list[pathlib.Path]:
    written = []
    totals = (
        results.true_positives
        + results.false_positives
        + results.false_negatives
    )
    for type_name in boxes.TYPES[1:]:
        row = metric.BREAKDOWNS.index(metric.breakdown(type_name, 2))
        if not totals[row].any():
            continue
        path = folder / f"precision_recall_{type_name.lower()}.png"
        with files.replacing(path) as file:
            file.write(
                plots.png(curves.precision_over_recall(results, type_name))
            )
        written.append(path)
    return written


def _beside(
    ours: Mapping[str, Numbers], theirs: Mapping[str, Numbers]
) -> dict[str, dict[str, float]]:
    """Adds the official numbers to ours."""
    return {
        name: {
            **numbers,
            "official_ap": theirs[name]["ap"],
            "official_aph": theirs[name]["aph"],
        }
        for name, numbers in ours.items()
    }


def _table(rows: Mapping[str, Numbers]) -> list[str]:
    width = max(map(len, rows))
    labels = [_LABELS[key] for key in next(iter(rows.values()))]
    lines = [f"{'breakdown':<{width}}" + "".join(f"{x:>14}" for x in labels)]
    for name, numbers in rows.items():
        texts = [f"{number:14.6f}" for number in numbers.values()]
        lines.append(f"{name:<{width}}{''.join(texts)}")
    return lines


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
