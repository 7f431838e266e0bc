"""Language models as Keras functional models: token IDs in, logits of the next token out.

``gpt`` is a decoder-only transformer (Radford et al. 2018) with rotary position embeddings (Su et al. 2021), root mean
square normalization (Zhang & Sennrich 2019) of the residual stream and of queries and keys (Henry et al. 2020), squared
ReLU (So et al. 2021) and output projections initialized to zero. ``lstm``, ``gru`` and ``rnn`` are stacks of recurrent
layers. All families add the embedding of a token to the embedding of its bigram with the previous token.
"""

from __future__ import annotations

from typing import Any

import keras

from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.models.language.decoder_layers import BigramEmbedding, DecoderBlock, EnsembleAverage, EnsembleSplit
from dltoolkit.models.pretrained import keras_hub

FAMILIES = ("gpt", "lstm", "gru", "rnn")
KERAS_HUB_HEADS = ("num_heads", "num_query_heads", "num_attention_heads")  # attributes of KerasHub's decoders
KERAS_HUB_MAX_LENGTH = 1024  # context length of the KerasHub decoders that set no limit, which is that of GPT-2


def build(
    family: str,
    vocab_size: int,
    *,
    layers: int,
    embedding_dim: int,
    heads: int = 4,
    dropout: float = 0.0,
    ensemble_size: int = 1,
) -> keras.Model:
    """Return an untrained language model.

    Args:
        family: One of :data:`FAMILIES`.
        vocab_size: Number of tokens in the vocabulary.
        layers: Number of decoder blocks or recurrent layers.
        embedding_dim: Size of the token embeddings, and units of a recurrent layer.
        heads: Number of attention heads; the recurrent families ignore it.
        dropout: Dropout rate of every residual branch or recurrent layer.
        ensemble_size: Number of models that train together, each on its own rows of a batch. Outside training, the
            ensemble averages their probabilities (Hansen & Salamon 1990).

    Returns:
        A functional model named after the family: int32 (batch, time) -> float32 logits (batch, time, vocab_size).

    Raises:
        UserError: If the family is unknown, or ``embedding_dim / heads`` is not an even integer.
    """
    if family not in FAMILIES:
        near = did_you_mean(family, FAMILIES)
        raise UserError(f"There is no network family '{family}'; use one of {', '.join(FAMILIES)}.{near}")
    if family == "gpt" and embedding_dim % (2 * heads):
        raise UserError(
            f"An embedding dimension of {embedding_dim} cannot be divided among {heads} heads of even size: use a "
            f"multiple of {2 * heads}, for example {2 * heads * 16}."
        )
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    sizes = {"layers": layers, "embedding_dim": embedding_dim, "heads": heads, "dropout": dropout}
    if ensemble_size == 1:
        return keras.Model(token_ids, _logits(token_ids, family, vocab_size, **sizes), name=family)
    logits = []
    for i in range(ensemble_size):
        rows = EnsembleSplit(i, ensemble_size, name=f"ensemble_split{layer_suffix(i)}")(token_ids)
        logits.append(_logits(rows, family, vocab_size, **sizes, suffix=layer_suffix(i)))
    return keras.Model(token_ids, EnsembleAverage(name="ensemble_average")(logits), name=family)


def layer_suffix(index: int) -> str:
    """Return the suffix of the layer names of one model of an ensemble; the first model has plain names."""
    return f"_model_{index + 1}" if index else ""


def first_input(model: keras.Model) -> keras.KerasTensor:
    """Return the token IDs that the first model of an ensemble reads; a single model is an ensemble of one."""
    return model.get_layer("embedding").input


def from_preset(preset: str) -> tuple[keras.Model, Any, dict[str, int]]:
    """Return a decoder of KerasHub as a language model like those of :func:`build`.

    Args:
        preset: A name, ``hf://…``, ``kaggle://…`` or a local folder.

    Returns:
        The model, its tokenizer, and its sizes: ``layers``, ``embedding_dim``, ``heads`` and ``max_length``, the
        maximum number of tokens in its input.

    Raises:
        UserError: If the preset cannot be loaded, or is not a language model.
    """
    network, tokenizer = keras_hub.fetch(preset, "Backbone", "Tokenizer")
    embedding = getattr(network, "token_embedding", None)
    inputs = {tensor.name for tensor in keras.tree.flatten(network.input)}
    tied = hasattr(embedding, "tie_weights")
    if inputs != {"token_ids", "padding_mask"} or isinstance(network.output, dict) or not tied:
        raise UserError(f"{preset} is not a language model that can generate text: give a GPT.")
    keras_hub.set_dropout(network, 0.0)
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    hidden = network.call({"token_ids": token_ids, "padding_mask": keras.ops.ones_like(token_ids)})
    sizes = {
        "layers": network.num_layers,
        "embedding_dim": network.hidden_dim,
        "heads": next(getattr(network, name) for name in KERAS_HUB_HEADS if hasattr(network, name)),
        "max_length": getattr(network, "max_sequence_length", KERAS_HUB_MAX_LENGTH),
    }
    return keras.Model(token_ids, embedding(hidden, reverse=True), name=network.name), tokenizer, sizes


def _logits(
    token_ids: keras.KerasTensor,
    family: str,
    vocab_size: int,
    *,
    layers: int,
    embedding_dim: int,
    heads: int,
    dropout: float,
    suffix: str = "",
) -> keras.KerasTensor:
    normal = keras.initializers.RandomNormal(stddev=1.0)
    x = keras.layers.Embedding(vocab_size, embedding_dim, embeddings_initializer=normal, name=f"embedding{suffix}")(
        token_ids
    )
    x += BigramEmbedding(vocab_size, embedding_dim, name=f"bigram_embedding{suffix}")(token_ids)
    for i in range(1, layers + 1):
        if family == "gpt":
            x = DecoderBlock(heads, dropout=dropout, name=f"block_{i}{suffix}")(x)
            continue
        layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[family]
        x = layer(embedding_dim, return_sequences=True, name=f"layer_{i}{suffix}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{i}{suffix}")(x) if dropout else x
    if family == "gpt":
        x = keras.layers.RMSNormalization(name=f"norm{suffix}")(x)
    return keras.layers.Dense(
        vocab_size, use_bias=False, kernel_initializer="zeros", dtype="float32", name=f"logits{suffix}"
    )(x)
