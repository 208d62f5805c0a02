"""All experiments by name."""

from trainers import errors
from trainers.experiments import celeba, digits, toy, transfer
from trainers.experiments.waymo import experiment as waymo
from trainers.runs import experiment

EXPERIMENTS: dict[str, experiment.Experiment] = {
    "celeba": celeba.Celeba(),
    "digits": digits.Digits(),
    "toy": toy.Toy(),
    "transfer": transfer.Transfer(),
    "waymo": waymo.Waymo(),
}


def find(name: str) -> experiment.Experiment:
    """Gives an experiment.

    Args:
        name: A key of `EXPERIMENTS`.

    Returns:
        The experiment.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in EXPERIMENTS:
        raise errors.UserError(
            f"experiment {name!r} is unknown; expected one of "
            f"{', '.join(EXPERIMENTS)}."
        )
    return EXPERIMENTS[name]
