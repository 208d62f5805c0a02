"""One weight, five losses: the paper's one-dimensional experiment.

Source: Chen et al., NeurIPS 2020, section 4.1, appendix A.3 and Figure 2. The
losses are `sin(a w + b) + 1` for five pairs (a, b); SGD with a learning
rate of 0.2, halved every 1,000 steps, takes 10,000 steps from each of 200
random starts. The range of the starts, [-10, 10], is our choice, as is `w`
itself as the shared activation. The sum of the losses has many local minima;
its global minimum is 1.4133. The paper gives no numbers.

All 200 runs of a method advance together, and every method starts from the
same 200 points. Each run has its own inner products (PCGrad, MGDA) and weights
(GradNorm).

    python -m launch.compare --experiment=toy --seeds=0 --run_dir=DIR

prints, on two CPU cores (mean and standard deviation over the 200 starts):

| method | final loss | median | at the global minimum |
| --- | --- | --- | --- |
| baseline | 4.342 +- 0.854 | 4.038 | 0.0 % |
| graddrop | 2.204 +- 0.870 | 1.419 | 53.5 % |
| random_graddrop | 2.045 +- 1.033 | 1.417 | 65.5 % |
| pcgrad | 5.204 +- 1.337 | 5.123 | 0.0 % |
| mgda | 5.016 +- 1.415 | 5.076 | 0.0 % |
| gradnorm | 4.153 +- 1.271 | 4.433 | 0.0 % |
| gradnorm+graddrop | 3.413 +- 1.513 | 3.360 | 3.5 % |

PCGrad and MGDA stop where two losses disagree in sign: in one dimension such a
point leaves them no direction. Random GradDrop reaches the global minimum from
more starts than GradDrop. A method takes 1 to 20 seconds; those that solve an
optimization problem for each start take longest.
"""

import numpy as np
import tensorflow as tf

from trainers import errors
from trainers.experiments.toy import figures, landscape
from trainers.experiments.toy.descent import Descent, ToyConfig, draw_starts
from trainers.runs import columns, experiment, serving
from trainers.training.progress import Progress


class Toy(experiment.Experiment):
    """See the module's documentation."""

    name = "toy"
    title = "one weight, five losses sin(a w + b) + 1 (paper, section 4.1)"
    defaults = ToyConfig()
    loss_names = landscape.LOSS_NAMES
    table = (
        columns.Column("final_loss", "final loss"),
        columns.Column("final_loss", "median", columns.median),
        columns.Column("final_loss", "smallest to largest", columns.extremes),
        columns.Column(
            "at_global_minimum", "at the global minimum", columns.hits
        ),
    )
    figures = (
        figures.draw_losses,
        figures.draw_descents,
        figures.draw_final_losses,
    )
    compared = "final_loss"
    compared_label = "final loss"
    compared_digits = 3
    lower_is_better = True
    sample = "start"

    def check(self, run: experiment.Run) -> None:
        """See the base class."""
        if run.recipe.gradient_penalty:
            raise errors.UserError(
                f"toy with {run.method}: a gradient penalty needs an input, "
                "and toy has none; leave the penalty out."
            )

    def execute(self, run: experiment.Run, progress: Progress):
        """See the base class."""
        config: ToyConfig = run.config
        descent = Descent(run.recipe, config)
        starts = draw_starts(config, run.seed)
        weights = tf.constant(starts)
        state = descent.initial_state()
        curves = []
        for first in range(0, config.steps, config.halve_every):
            weights, state, curve = descent.advance(
                weights,
                state,
                first,
                config.learning_rate * 0.5 ** (first // config.halve_every),
                min(config.halve_every, config.steps - first),
            )
            done = first + curve.shape[0]
            curves.append(curve.numpy())
            if not np.isfinite(weights).all():
                raise errors.DivergedError(
                    f"step {done}: "
                    f"{np.sum(~np.isfinite(weights))} of the "
                    f"{config.num_starts} weights are not finite"
                )
            progress.update(
                done, config.steps, f"mean loss {curves[-1][-1].mean():.4f}"
            )
        final = landscape.losses(weights).numpy().sum(axis=1)
        curves = np.concatenate([*curves, final[None]])
        figures.save_curves(
            run.directory,
            starts=starts,
            final_weights=weights.numpy(),
            final_losses=final,
            mean_curve=curves.mean(axis=1),
            first_curve=curves[:, 0],
        )
        metrics = {
            "mean_loss": float(final.mean()),
            "deviation": float(final.std(ddof=min(1, final.size - 1))),
            "median": float(np.median(final)),
            "smallest": float(final.min()),
            "largest": float(final.max()),
            "share_at_global_minimum": float(
                landscape.at_global_minimum(final).mean()
            ),
        }
        model = landscape.model_of(weights.numpy())
        left = serving.leave(model, run.directory, config.steps)
        return serving.Outcome(metrics, left)

    def samples(self, record: experiment.Record) -> dict[str, np.ndarray]:
        """See the base class."""
        final = figures.load_curves(record.directory)["final_losses"]
        return {
            "final_loss": final,
            "at_global_minimum": landscape.at_global_minimum(final),
        }
