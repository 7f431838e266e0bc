"""Trained networks for texts to go on from: KerasHub's, an own run's, without their heads.

A backbone is a functional model from numbers int32 (batch, time), 0 for padding, to features (batch, units), with the
encoder that makes texts these numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import keras

from dltoolkit.data.text import encoders
from dltoolkit.errors import UserError
from dltoolkit.models import fused
from dltoolkit.models.language import gpt
from dltoolkit.models.pretrained import keras_applications as backbones
from dltoolkit.models.pretrained import keras_hub as hub
from dltoolkit.models.text.layers import MaskedMean, TokenDropout, TokenIds


class TextBackbone(NamedTuple):
    """A network without its head, and what makes texts its numbers."""

    model: keras.Model
    encoder: encoders.TextEncoder

    def hiding(self, rate: float) -> keras.Model:
        """The network, but so that training hides such a share of each text's tokens; as it is where it has no sign."""
        if self.encoder.hidden is None:
            return self.model
        numbers = keras.Input((None,), dtype="int32", name="words")
        seen = TokenDropout(rate, self.encoder.hidden, self.encoder.spared, name="token_dropout")(numbers)
        return keras.Model(numbers, self.model(seen), name=self.model.name)


def of_hub(preset: str, longest: int, dropout: float = 0.0) -> TextBackbone:
    """Return a transformer of KerasHub; a text's features are the mean of what it makes of the tokens.

    Args:
        preset: a name, ``hf://…``, ``kaggle://…`` or a local folder, also one of Hugging Face's.
        longest: tokens of a text at most; no more than the network has positions for.
        dropout: rate within its layers, in place of its own, which takes a third of a training step's time.

    Raises:
        UserError: if there is no such preset, it is damaged, it cannot be downloaded, or it reads no texts.
    """
    network, tokenizer = hub.fetch(preset, "Backbone", "Tokenizer")
    hub.set_dropout(network, dropout)
    fused.quicken(network)
    read = {tensor.name for tensor in keras.tree.flatten(network.input)}
    if not {"token_ids", "padding_mask"} <= read <= {"token_ids", "padding_mask", "segment_ids"}:
        raise UserError(f"{preset} reads {', '.join(sorted(read))}, not a text; give an encoder of texts.")
    output = network.output["sequence_output"] if isinstance(network.output, dict) else network.output
    longest = min(longest, getattr(network, "max_sequence_length", longest))
    model = _pooled(keras.Model(network.input, output, name=network.name), tokenizer.pad_token_id or 0, read)
    return TextBackbone(model, encoders.HubEncoder(tokenizer, longest))


def of_run(model: keras.Model, folder: Path, said: str, longest: int) -> TextBackbone:
    """Return the network of a sentiment analyzer or a text generator.

    Args:
        model: the run's.
        folder: the run's, where its tokenizer is.
        said: what the user called it.
        longest: numbers of a text at most.

    Raises:
        UserError: if the run has no tokenizer, or its network no layers before the head.
    """
    encoder = encoders.load(folder, longest)
    if isinstance(encoder, encoders.TokenEncoder):
        body = keras.Model(gpt.first_tokens(model), model.get_layer("logits").input, name=model.name)
        return TextBackbone(_pooled(body), encoder)
    return TextBackbone(backbones.headless(model, said), encoder)


def _pooled(network: keras.Model, padding: int = 0, read: Collection[str] | None = None) -> keras.Model:
    """From numbers to the mean of what a network makes of the tokens.

    Args:
        network: vectors (batch, time, units) out.
        padding: the token that stands for padding.
        read: names of what the network takes, where that is not just the tokens.
    """
    numbers = keras.Input((None,), dtype="int32", name="words")
    given = TokenIds(padding, name="token_ids")(numbers)
    taken = {name: tensor for name, tensor in given.items() if name in read} if read else given["token_ids"]
    features = MaskedMean(name="features", dtype="float32")([network(taken), given["padding_mask"]])
    return keras.Model(numbers, features, name=network.name)
