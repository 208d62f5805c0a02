"""Experiments, and everything that carries them out.

A folder imports only from the floors below its own.

| floor | folder or file | what it holds |
| --- | --- | --- |
| 6 | experiments | each file is its own report; `registry` knows all |
| 5 | reporting | tables, figures and the report of finished runs |
| 5 | search | searches over config values and methods' arguments |
| 4 | runs | what a run is, and how it is carried out |
| 4 | benchmarks | measurements of speed and memory |
| 3 | training | trains a compiled model to its last step |
| 3 | detection | the Waymo metric, without TensorFlow |
| 2 | config, files | values of an experiment; atomic files |
| 1 | models | networks, their losses and metrics |
| 1 | errors, drawing, text_table | what a user can mend; plots; tables |

The way of a run: `launch.train` makes a `runs.experiment.Run` of its flags.
`runs.execution` checks it and starts its experiment, which builds the model and
the data. `training.loop` restores the newest checkpoint, trains to the last
step and logs every epoch to `metrics.csv`. The experiment reduces that log to
final metrics, `runs.execution` writes them to `results.json`, and
`reporting.report` reads the files of all runs.
"""
