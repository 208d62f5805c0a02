"""Speed and memory, as ratios measured side by side in one run.

All cases of a suite take turns, one step each, and every round starts with a
different case. A ratio compares two steps of one round: other work on the
machine slows both, so the median of many rounds is reliable where seconds are
not. The table shows it next to the ratio that counting multiply-adds predicts:
a forward pass counts as 1, a backward pass as 2, and for each loss after the
first the activation gradients of the heads as 1. Milliseconds and rates depend
on the machine and its load.

| file | contents |
| --- | --- |
| `registry.py` | all suites by name; running them |
| `measuring.py` | turns, rounds and their statistics |
| `arithmetic.py` | multiply-adds |
| `peaks.py` | memory of a process |
| `table.py` | rows as text |
| `methods.py` | the network and the methods that several suites train |
| `suites/` | a file for each suite |
"""
