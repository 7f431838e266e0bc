"""Transfer learning: learning rates by layer."""

import keras
import numpy as np
import pytest
from dltoolkit.recipes import fine_tune

from dltoolkit.training import optimizer


def test_rate_factors_slow_down_lower_layers():
    variables = [keras.Variable(np.ones(3, "float32"), name=name) for name in ("lower", "upper")]
    sgd, schedule = optimizer.make(
        fine_tune.Config(optimizer="sgd", learning_rate=1.0, weight_decay=0.0),
        32,
        rate_factors={variables[0].path: 0.1},
    )
    schedule.steps = 10
    sgd.build(variables)
    sgd.apply([np.ones(3, "float32")] * 2, variables)
    lower, upper = (1 - variable.numpy()[0] for variable in variables)
    assert lower == pytest.approx(0.1 * upper)
