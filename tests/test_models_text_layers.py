"""Tests of the layers of text classifiers."""

import keras
import numpy as np
import pytest

from dltoolkit.models.text.layers import (
    MaskedMeanPooling,
    MeanMaxPooling,
    ReverseSequence,
    TokenDropout,
    TransformerInputs,
)

VECTORS = np.array([[[1.0, -2.0], [3.0, -4.0], [9.0, 9.0]]], "float32")  # the last position is padding


def test_reverse_sequence_leaves_padding_at_the_end():
    reversed_ = ReverseSequence()([VECTORS, np.array([2])]).numpy()
    assert reversed_[0].tolist() == [[3, -4], [1, -2], [9, 9]]


def test_pooling_ignores_padding():
    pooled = MeanMaxPooling()([VECTORS, np.array([2])]).numpy()
    assert pooled.tolist() == [[2, -3, 3, -2]]
    mean = MaskedMeanPooling()([VECTORS, np.array([[1, 1, 0]])])
    assert keras.ops.convert_to_numpy(mean).tolist() == [[2, -3]]


def test_token_dropout_masks_neither_padding_nor_special_tokens():
    keras.utils.set_random_seed(0)
    layer = TokenDropout(0.3, mask_token_id=1, special_token_ids=(7,))
    token_ids = np.tile(np.array([[7, 5, 6, 0]], "int32"), (2000, 1))
    assert (np.asarray(layer(token_ids)) == token_ids).all()
    masked = np.asarray(layer(token_ids, training=True))
    assert (masked[:, [0, 3]] == token_ids[:, [0, 3]]).all()
    assert set(masked[:, 1]) == {1, 5}
    assert (masked[:, 1:3] == 1).mean() == pytest.approx(0.3, abs=0.03)  # four standard errors of 4,000 draws
    assert TokenDropout.from_config(layer.get_config()).special_token_ids == (7,)


def test_transformer_inputs_shift_token_ids_and_mask_padding():
    inputs = TransformerInputs(padding_id=4)(np.array([[3, 1, 0]], "int32"))
    assert {name: np.asarray(value).tolist() for name, value in inputs.items()} == {
        "token_ids": [[2, 0, 4]],
        "padding_mask": [[1, 1, 0]],
        "segment_ids": [[0, 0, 0]],
    }
