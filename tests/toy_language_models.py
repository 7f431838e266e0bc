"""Small language models for tests, with random weights."""

import keras
import numpy as np

from dltoolkit.models.language import gpt

VOCAB_SIZE = 11


def build_model(family: str, **options) -> keras.Model:
    """Return a model with random weights; zero projections, as after initialization, would hide errors."""
    keras.utils.set_random_seed(3)
    model = gpt.build(family, VOCAB_SIZE, **{"layers": 2, "embedding_dim": 16, "heads": 2, **options})
    for layer in model.layers:
        rng = np.random.default_rng(len(layer.name))
        layer.set_weights([rng.normal(0, 0.3, weight.shape) for weight in layer.get_weights()])
    return model


def random_tokens(batch: int, time: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, (batch, time)).astype("int32")
