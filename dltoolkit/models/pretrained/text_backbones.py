"""Pretrained text networks of KerasHub and of earlier runs without their heads.

A backbone is a functional model from token IDs int32 (batch, time), with 0 for padding, to features (batch, units),
together with the encoder that turns texts into these token IDs.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import keras

from dltoolkit.data.text import encoders
from dltoolkit.errors import UserError
from dltoolkit.models import fused, surgery
from dltoolkit.models.language import gpt
from dltoolkit.models.pretrained import keras_hub
from dltoolkit.models.text.layers import MaskedMeanPooling, TokenDropout, TransformerInputs


class TextBackbone(NamedTuple):
    """A text network without its head, and the encoder of its inputs."""

    model: keras.Model
    encoder: encoders.TextEncoder

    def with_token_dropout(self, rate: float) -> keras.Model:
        """Return the network with a fraction of each text's tokens masked in training.

        A network whose encoder has no mask token is returned as it is.
        """
        if self.encoder.mask_token_id is None:
            return self.model
        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        dropout = TokenDropout(rate, self.encoder.mask_token_id, self.encoder.special_token_ids, name="token_dropout")
        return keras.Model(token_ids, self.model(dropout(token_ids)), name=self.model.name)


def from_preset(preset: str, max_length: int, dropout: float = 0.0) -> TextBackbone:
    """Return a transformer of KerasHub; the features are the mean of its outputs over the tokens.

    Args:
        preset: A name, ``hf://…``, ``kaggle://…`` or a local folder, which may be one of Hugging Face.
        max_length: Maximum number of tokens per text; the network's number of positions limits it further.
        dropout: Dropout rate inside the network, instead of its own rate, which costs a third of a training step.

    Raises:
        UserError: If the preset does not exist, is damaged, cannot be downloaded, or does not read texts.
    """
    network, tokenizer = keras_hub.fetch(preset, "Backbone", "Tokenizer")
    keras_hub.set_dropout(network, dropout)
    fused.use_fused_ops(network)
    inputs = {tensor.name for tensor in keras.tree.flatten(network.input)}
    if not {"token_ids", "padding_mask"} <= inputs <= {"token_ids", "padding_mask", "segment_ids"}:
        raise UserError(f"{preset} reads {', '.join(sorted(inputs))} instead of a text; give a text encoder.")
    output = network.output["sequence_output"] if isinstance(network.output, dict) else network.output
    settings = keras_hub.tokenizer_settings(preset)
    limits = (getattr(network, "max_sequence_length", None), settings.get("model_max_length"))
    lengths = [int(limit) for limit in limits if isinstance(limit, int | float) and 1 <= limit < math.inf]
    max_length = min([max_length, *lengths])
    model = keras.Model(network.input, output, name=network.name)
    lowercase, strip_accents = _apply_settings(tokenizer, settings)
    encoder = encoders.KerasHubEncoder(tokenizer, max_length, lowercase, strip_accents)
    return TextBackbone(_pooled(model, tokenizer.pad_token_id or 0, inputs), encoder)


def _apply_settings(tokenizer: Any, settings: dict[str, Any]) -> tuple[bool, bool]:
    """Let a tokenizer of KerasHub treat letters as its tokenizer_config.json of Hugging Face says.

    KerasHub reads ``do_lower_case`` of BERT only.

    Returns:
        Whether texts must be in lower case, and whether without accents, before the tokenizer reads them, because it
        has no such options itself.
    """
    lowercase = bool(settings.get("do_lower_case"))
    strip_accents = settings.get("strip_accents")
    if strip_accents is None:
        strip_accents = lowercase and not settings.get("keep_accents")
    if not hasattr(tokenizer, "strip_accents"):
        return lowercase, bool(strip_accents)
    if settings:
        tokenizer.strip_accents = bool(strip_accents)
        tokenizer.split_on_cjk = settings.get("tokenize_chinese_chars", tokenizer.split_on_cjk)
    return False, False


def from_run(model: keras.Model, folder: Path, name: str, max_length: int) -> TextBackbone:
    """Return the network of a sentiment analyzer or a text generator.

    Args:
        model: The model of the run.
        folder: The folder of the run, which contains its tokenizer.
        name: The run as the user named it, for the error message.
        max_length: Maximum number of tokens per text.

    Raises:
        UserError: If the run has no tokenizer, or its network has no layers before the head.
    """
    encoder = encoders.load(folder, max_length)
    if isinstance(encoder, encoders.TokenEncoder):
        body = keras.Model(gpt.first_input(model), model.get_layer("logits").input, name=model.name)
        return TextBackbone(_pooled(body), encoder)
    return TextBackbone(surgery.without_head(model, name), encoder)


def _pooled(network: keras.Model, padding: int = 0, inputs: Collection[str] | None = None) -> keras.Model:
    """Return a model from token IDs to the mean of a network's outputs over the tokens that are not padding.

    Args:
        network: A network with outputs (batch, time, units).
        padding: The network's token ID for padding.
        inputs: Names of the network's inputs; None if it takes the token IDs only.
    """
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    tensors = TransformerInputs(padding, name="transformer_inputs")(token_ids)
    taken = {name: tensor for name, tensor in tensors.items() if name in inputs} if inputs else tensors["token_ids"]
    features = MaskedMeanPooling(name="features", dtype="float32")([network(taken), tensors["padding_mask"]])
    return keras.Model(token_ids, features, name=network.name)
