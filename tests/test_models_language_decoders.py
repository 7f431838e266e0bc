"""Tests of autoregressive decoding: token by token, the logits are those of the whole model."""

import zipfile

import numpy as np
import pytest
from toy_language_models import VOCAB_SIZE, build_model, random_tokens

from dltoolkit.errors import UserError
from dltoolkit.models.language import decoders, gpt


@pytest.mark.parametrize(
    ("family", "ensemble_size", "kind"),
    [
        *((family, 1, decoders.CachedDecoder) for family in gpt.FAMILIES),
        ("gpt", 3, decoders.EnsembleDecoder),
        ("gru", 2, decoders.EnsembleDecoder),
        ("gpt", 1, decoders.UncachedDecoder),
    ],
)
def test_decoder_returns_the_logits_of_the_model(family, ensemble_size, kind, tmp_path):
    """Three prompts of different lengths are continued together, token by token, from the model and from its file."""
    model, token_ids = build_model(family, ensemble_size=ensemble_size), random_tokens(3, 12)
    expected = model.predict_on_batch(token_ids)
    if kind is decoders.UncachedDecoder:
        both = [decoders.UncachedDecoder(model)]
    else:
        model.save(tmp_path / "model.keras")
        both = [decoders.build(model), decoders.load(tmp_path / "model.keras")]
    for decoder in both:
        assert isinstance(decoder, kind) and decoder.vocab_size == VOCAB_SIZE
        state, lengths = decoder.new_state(3, 12), np.array([8, 6, 1])
        logits = np.stack([decoder.prefill(state, row, token_ids[row, :length]) for row, length in enumerate(lengths)])
        for _ in range(4):
            assert softmax(logits) == pytest.approx(softmax(expected[np.arange(3), lengths - 1]), abs=1e-5)
            logits = decoder.decode_step(state, token_ids[np.arange(3), lengths])
            lengths += 1


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_rows_do_not_depend_on_the_rows_beside_them():
    """The logits are equal to the last bit, so that equal seeds give equal texts."""
    decoder, token_ids = decoders.build(build_model("gpt", embedding_dim=48)), random_tokens(5, 9)
    alone, together = decoder.new_state(1, 16), decoder.new_state(5, 16)
    prefilled = [decoder.prefill(together, row, token_ids[row, : 4 + row % 2]) for row in range(5)]
    assert (decoder.prefill(alone, 0, token_ids[3, :5]) == prefilled[3]).all()
    for position in range(5, 9):
        step = decoder.decode_step(together, token_ids[:, position])
        assert (decoder.decode_step(alone, token_ids[3:4, position]) == step[3]).all()


def test_load_refuses_damaged_files_and_leaves_other_networks_to_keras(tmp_path):
    model, path = build_model("gpt"), tmp_path / "model.keras"
    path.write_bytes(b"not a model")
    with pytest.raises(UserError, match="damaged"):
        decoders.load(path)
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # a small file that takes a lot of memory
        for name, data in content.items():
            archive.writestr(name, data + bytes(1_000_000))
    with pytest.raises(UserError, match="damaged"):
        decoders.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", b'{"config": {"layers": [{"name": "token_embedding"}]}}')
    assert decoders.load(path) is None
