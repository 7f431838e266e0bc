"""Tests of autoregressive decoding: token by token, the logits are those of the whole model."""

import numpy as np
import pytest
import tensorflow as tf
from toy_language_models import build_model, random_tokens

from dltoolkit.models.language import decoders, gpt


@pytest.mark.parametrize(
    ("family", "ensemble_size", "decoder"),
    [
        *((family, 1, decoders.CachedDecoder) for family in gpt.FAMILIES),
        ("gpt", 3, decoders.EnsembleDecoder),
        ("gru", 2, decoders.EnsembleDecoder),
        ("gpt", 1, decoders.UncachedDecoder),
    ],
)
def test_decoder_returns_the_logits_of_the_model(family, ensemble_size, decoder):
    """Three prompts of different lengths are padded on the left, prefilled together, and continued token by token."""
    model, token_ids = build_model(family, ensemble_size=ensemble_size), random_tokens(3, 12)
    expected = model.predict_on_batch(token_ids)
    padded = np.zeros((3, 16), "int32")
    prompt_start = np.array([0, 2, 3], "int32")
    for row, start in enumerate(prompt_start):
        padded[row, start : start + 12] = token_ids[row]
    if decoder is not decoders.UncachedDecoder:
        assert isinstance(decoders.build(model), decoder)
    decoder = decoder(model)
    logits, state = decoder.prefill(tf.constant(padded[:, :10]), tf.constant(prompt_start), tf.constant(8), 16)
    for position in range(8, 13):
        for row, start in enumerate(prompt_start):
            if position - start <= 12:
                assert logits[row].numpy() == pytest.approx(expected[row, position - start - 1], abs=1e-4)
        logits, state = decoder.decode_step(
            tf.constant(padded[:, position]), state, tf.constant(position), tf.constant(prompt_start)
        )
