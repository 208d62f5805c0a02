"""Speed and memory, as ratios measured side by side in one run.

All cases of a suite take turns, one step each, and every round starts with
another case; a ratio is that of two steps of one round. What else the machine
does meanwhile slows both, so the median of many rounds holds where seconds do
not. Beside it stands what the arithmetic alone allows: multiply-adds counted
from the shapes of the model's own layers, a forward pass as 1, a backward
pass as 2, and for each loss after the first the activation gradients of the
heads as 1. Milliseconds and rates are those of this machine at this time.

| file | contents |
| --- | --- |
| `registry.py` | all suites by name; running them |
| `measuring.py` | turns, rounds and their statistics |
| `arithmetic.py` | multiply-adds |
| `peaks.py` | memory of a step |
| `table.py` | rows as text |
| `methods.py` | the network and the methods that several suites train |
| `suites/` | a file for each suite |
"""
