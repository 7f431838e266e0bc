"""LoRA: frozen weights, added weights, and equal outputs before training."""

import keras
import numpy as np
import pytest

from dltoolkit.errors import UserError
from dltoolkit.finetuning import lora
from dltoolkit.models.image import classifiers


def test_add_lora_trains_low_rank_matrices_and_the_head_only():
    model = classifiers.build("cnn", (8, 8, 1), 3, widths=(4, 8), dropout=0.0)
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1)).astype("float32")
    before = model(images)
    lora.add_lora(model, 2)
    np.testing.assert_allclose(model(images), before, atol=1e-5)
    layers = {layer.name for layer in model.layers if layer.trainable_weights}
    assert layers == {"stage1_a_conv", "stage1_b_conv", "stage2_a_conv", "stage2_b_conv", "logits"}
    assert all(min(weight.shape) <= 4 for weight in model.get_layer("stage2_b_conv").trainable_weights)
    assert len(model.get_layer("stage2_b_conv").trainable_weights) == 2


def test_add_lora_refuses_a_model_without_matrices_below_the_head():
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(9, 4)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling1D()(x)), name="bag")
    with pytest.raises(UserError, match="LoRA cannot be added to any layer of bag"):
        lora.add_lora(model, 2)
