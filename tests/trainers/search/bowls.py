"""An experiment that trains nothing, and searches over it."""

import dataclasses

import numpy as np

import graddrop_tf as gd
from trainers import errors
from trainers.config import FitConfig
from trainers.experiments import registry
from trainers.runs import experiment, serving
from trainers.search import search as tuning
from trainers.search import space as search_space


@dataclasses.dataclass(frozen=True)
class BowlConfig(FitConfig):
    steps: int = 30
    steps_per_epoch: int = 10
    rate: float = 0.5


class Bowl(experiment.Experiment):
    """Its error is (rate - 0.3)^2 + leak + 1 / steps, without training."""

    name = "bowl"
    title = "a bowl"
    defaults = BowlConfig()
    loss_names = ("left", "right")
    table = ()
    compared = "error"
    lower_is_better = True
    sample = "seed"

    def __init__(self):
        self.executed = []
        self.act = lambda run: None

    def check(self, run):
        if run.config.rate > 100:
            raise errors.UserError("the rate is above 100.")

    def execute(self, run, progress):
        self.executed.append(run)
        self.act(run)
        return serving.Outcome({"error": error(run)})

    def samples(self, record):
        return {"error": np.array([record.results["metrics"]["error"]])}


def error(run):
    (graddrop,) = run.recipe.combiners
    leak = graddrop.arguments.get("leak", 0.0)
    return (run.config.rate - 0.3) ** 2 + leak + 1.0 / run.config.steps


def search(directory, tuner="random", num_trials=6, method=None, **changes):
    texts = changes.pop("texts", {"rate": "uniform(0, 1)"})
    if tuner == "hyperband":
        num_trials = None
    method = method or "graddrop(leak=uniform(0, 1), k=1.0)"
    searched = registry.EXPERIMENTS["bowl"]
    values = {
        "experiment": searched,
        "recipe": gd.Recipe(),
        "seed": 0,
        "config": searched.defaults,
        "directory": directory,
    }
    return tuning.Search(
        search_space.make(searched, method, texts),
        experiment.Run(**{**values, **changes}),
        tuner,
        num_trials,
    )


def diverge_in(*numbers):
    def act(run):
        if int(run.directory.name) in numbers:
            raise errors.DivergedError("step 1: loss became nan")

    return act


def points(outcomes):
    """Returns number and values of each trial, in the order of the numbers."""
    return sorted((one.number, tuple(one.values.items())) for one in outcomes)
