"""All experiments by name."""

from trainers.experiments import celeba, digits, transfer
from trainers.experiments.toy import experiment as toy
from trainers.experiments.waymo import experiment as waymo
from trainers.runs import experiment

EXPERIMENTS: dict[str, experiment.Experiment] = {
    "celeba": celeba.Celeba(),
    "digits": digits.Digits(),
    "toy": toy.Toy(),
    "transfer": transfer.Transfer(),
    "waymo": waymo.Waymo(),
}
