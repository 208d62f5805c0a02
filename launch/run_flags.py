"""Flags shared by the commands that execute runs, and the runs they make."""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from data import downloads
from trainers import config, errors
from trainers.experiments import registry
from trainers.runs import execution, experiment
from trainers.training import preemption
from trainers.training.devices import Devices


def define(values: flags.FlagValues) -> None:
    """Defines the flags shared by all commands that execute runs.

    Args:
        values: The flags of the command; extended.
    """
    experiments = registry.EXPERIMENTS
    flags.DEFINE_string(
        "experiment", None, f"Required. One of {', '.join(experiments)}.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "run_dir",
        None,
        "Required. The directory to write everything to.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir", None,
        "The folder of the prepared data sets, for experiments that read them.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_boolean(
        "download", False,
        "Download the data sets that are not there, if TensorFlow Datasets "
        "knows them.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "strategy", "auto",
        "The devices: `one`, all of them (`mirrored`), or `auto`, which is "
        "mirrored if there are several. `multi_worker`, for launch.train only: "
        "start the command once on each worker; TF_CONFIG or Slurm's variables "
        "identify it, and all workers share one --run_dir.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer(
        "logical_cpus", 1, "Number of devices to split the CPU into.",
        lower_bound=1, flag_values=values,
    )  # fmt: skip
    _define_config(values)


def _define_config(values: flags.FlagValues) -> None:
    experiments = registry.EXPERIMENTS
    defaults = "\n".join(
        f"{name}: {_values_text(experiment.defaults)}"
        for name, experiment in experiments.items()
    )
    variants = "\n".join(
        f"{name}: {', '.join(experiment.variants)}"
        for name, experiment in experiments.items()
        if experiment.variants
    )
    flags.DEFINE_string(
        "config", None,
        "Named values of the experiment to use in place of its defaults. "
        f"Names:\n{variants}",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "config.FIELD", None,
        "Changes a value of the experiment, as in --config.steps=100. "
        f"Defaults:\n{defaults}",
        flag_values=values,
    )  # fmt: skip


def _values_text(values: config.Config) -> str:
    return ", ".join(
        f"{name}={value}" for name, value in dataclasses.asdict(values).items()
    )


def find_experiment(values: flags.FlagValues) -> experiment.Experiment:
    """Returns the experiment of `--experiment`.

    Raises:
        UserError: If no experiment has that name.
    """
    return experiment.find(registry.EXPERIMENTS, values["experiment"].value)


def config_texts(
    values: flags.FlagValues, texts: dict[str, str]
) -> dict[str, str]:
    """Returns the values of `--config`, changed by those of `--config.FIELD`.

    Args:
        values: The flags.
        texts: The `--config.FIELD` texts by field.

    Raises:
        UserError: If the experiment has no values of that name, or a data set
            has no name.
    """
    name, chosen = values["config"].value, find_experiment(values)
    if name is not None and name not in chosen.variants:
        raise errors.UserError(
            f"--config: got {name!r}, expected one of "
            f"{', '.join(chosen.variants) or 'none'} for {chosen.name}, or "
            "--config.FIELD=VALUE."
        )
    named = chosen.variants[name] if name is not None else {}
    texts = {**{k: str(v) for k, v in named.items()}, **texts}
    for field in chosen.data_fields:
        if texts.get(field) == "":
            raise errors.UserError(
                f"--config.{field}: got nothing, expected the name of a data "
                "set, such as --name of launch.prepare_images."
            )
    return texts


def read_devices(values: flags.FlagValues) -> Devices:
    """Returns the devices of `--strategy` and `--logical_cpus`."""
    return Devices(values["strategy"].value, values["logical_cpus"].value)


def make_run(
    values: flags.FlagValues, texts: dict[str, str], method: str = "baseline"
) -> experiment.Run:
    """Makes the run that the flags describe.

    Args:
        values: The flags; `--seed` is 0 for a command without it.
        texts: The `--config` texts by field.
        method: A recipe.

    Raises:
        UserError: If a flag has an invalid value.
    """
    chosen = find_experiment(values)
    return experiment.Run(
        experiment=chosen,
        recipe=execution.parse_method(method),
        seed=values["seed"].value if "seed" in values else 0,
        config=config.override(chosen.defaults, config_texts(values, texts)),
        directory=pathlib.Path(values["run_dir"].value),
        data_dir=values["data_dir"].value,
        devices=read_devices(values),
    )


def download(
    values: flags.FlagValues,
    chosen: experiment.Experiment,
    configs: Sequence[config.Config],
) -> None:
    """Downloads what is not there of the data sets of runs, if asked to.

    Args:
        values: The flags.
        chosen: The experiment.
        configs: The values of the runs.

    Raises:
        UserError: If there is nothing to download, or several workers would.
        prepared.DataError: If a data set cannot be downloaded.
    """
    if not values["download"].value:
        return
    names = {name: None for c in configs for name in chosen.data_sets(c)}
    if not names:
        raise errors.UserError(
            f"--download: {chosen.name} reads no data set that can be "
            "downloaded; leave it out."
        )
    if read_devices(values).worker.count > 1:
        raise errors.UserError(
            "--download: several workers share the data; download them by one "
            "process before."
        )
    # SIGTERM too cleans up what is half downloaded.
    with preemption.interrupting():
        for name in names:
            downloads.download(name, values["data_dir"].value)
