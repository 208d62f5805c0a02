"""The network with a head for each loss."""

import graddrop_tf as gd
from trainers.benchmarks.suites import layer


def test_network_takes_branches():
    trunk, heads = layer.task_network(2, (2, 2, 2, 2))
    branches = gd.GradDrop(num_losses=2)(trunk.output)
    outputs = [h(b) for h, b in zip(heads, branches, strict=True)]
    assert [o.shape for o in outputs] == [(None, 10)] * 2
