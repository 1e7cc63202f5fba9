import pytest

import seqnet
from seqnet.layers import Dense


@pytest.fixture
def model():
    """A model of one matrix for the five points of `helpers`."""
    made = seqnet.Model([Dense(1)])
    made.compile(seqnet.optimizers.SGD(0.1), "mse")
    return made
