"""Conversion of trained networks to Keras' own layers, so that a saved model opens without this package.

The networks are trained with layers of this package, which are faster or draw random numbers. For inference, each of
them is replaced by a layer of Keras, or by a small functional model of Keras' layers and operations that has the same
name, inputs and outputs. Layers of language models stay, because decoding calls more than their outputs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from dltoolkit.models import fused, keras_internals, surgery
from dltoolkit.models.image.layers import BatchNorm, Dirac, ImageNetPixels, PatchEmbedding, UpConv2D
from dltoolkit.models.text.classifiers import NGRAM_WEIGHTS
from dltoolkit.models.text.layers import (
    MASKED_VALUE,
    MaskedMeanPooling,
    MeanMaxPooling,
    NaiveBayesBag,
    PositionEmbedding,
    ReverseSequence,
    TokenDropout,
    TransformerInputs,
    WordEmbedding,
)

HALF_PRECISION = ("bfloat16", "float16")
KERAS_CLASSES = {  # layers that compute the same as their base class of Keras
    BatchNorm: keras.layers.BatchNormalization,
    fused.LayerNormalization: keras.layers.LayerNormalization,
    fused.MultiHeadAttention: keras.layers.MultiHeadAttention,
}


def to_keras_layers(model: keras.Model) -> keras.Model:
    """Return a model for inference with the outputs of a trained one, made of Keras' own layers as far as possible.

    It computes in float32, whatever the precision of training, so that it gives the same answers on a processor without
    half precision. It shares the layers that need no replacement with the given model, unless that was trained in half
    precision. The others are replaced by copies. A single input or output is a tensor, not a list of one.

    Args:
        model: A functional model. Layers of language models and of other packages are not replaced.
    """
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.input
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.output
    single = keras.Model(inputs, outputs, name=model.name)
    state = random.getstate()  # new layers draw seeds from it, which must not change what follows
    try:
        if any(_is_replaced(layer) for layer in surgery.flatten_layers(single)):
            single = keras.models.clone_model(single, clone_function=_replacement, recursive=True)
        return _in_float32(single)
    finally:
        random.setstate(state)


def _in_float32(model: keras.Model) -> keras.Model:
    """Return a model whose layers compute in float32: itself, or a copy if some compute in half precision."""
    if all(layer.compute_dtype not in HALF_PRECISION for layer in surgery.flatten_layers(model)):
        return model
    description = json.dumps(keras.saving.serialize_keras_object(model))
    for dtype in HALF_PRECISION:
        for name in (f"mixed_{dtype}", dtype):
            description = description.replace(f'"{name}"', '"float32"')
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # for the layers whose description names no policy
    try:
        copy = keras.saving.deserialize_keras_object(json.loads(description))
    finally:
        keras.config.set_dtype_policy(policy)
    for layer, of_copy in zip(keras_internals.all_layers(model), keras_internals.all_layers(copy), strict=True):
        if getattr(layer, "lora_enabled", False) and not of_copy.lora_enabled:  # composite layers do not describe it
            of_copy.enable_lora(layer.lora_rank, lora_alpha=layer.lora_alpha)
    copy.set_weights(model.get_weights())
    return copy


def _is_replaced(layer: keras.Operation) -> bool:
    return type(layer) in KERAS_CLASSES or bool(_replace_function(layer)) or _has_own_initializer(layer)


def _replace_function(layer: keras.Operation) -> Callable[[Any], keras.layers.Layer] | None:
    """Return the function that replaces a layer of this package or of KerasHub, or None if the layer stays."""
    kind = type(layer)
    return REPLACEMENTS.get(kind) or HUB_REPLACEMENTS.get((kind.__module__.partition(".")[0], kind.__name__))


def _has_own_initializer(layer: keras.Operation) -> bool:
    return isinstance(getattr(layer, "kernel_initializer", None), Dirac)


def _replacement(layer: keras.Operation) -> keras.Operation:
    """Return a layer or operation, or what replaces it."""
    if not _is_replaced(layer):
        return layer
    if replace := _replace_function(layer):
        return replace(layer)
    changed = {"kernel_initializer": "he_normal"} if _has_own_initializer(layer) else {}
    return _rebuilt(layer, KERAS_CLASSES.get(type(layer), type(layer)), **changed)


def _rebuilt(layer: keras.layers.Layer, layer_class: type[keras.layers.Layer], **changed: Any) -> keras.layers.Layer:
    """Return a layer of another class with the config and the weights of ``layer``."""
    rebuilt = layer_class.from_config({**layer.get_config(), **changed})
    rebuilt.build_from_config(layer.get_build_config())
    rebuilt.set_weights(layer.get_weights())
    return rebuilt


def _functional(layer: keras.layers.Layer, call: Callable[..., Any]) -> keras.Model:
    """Return a functional model of the name and the inputs of a layer.

    Args:
        layer: A layer that has been called on symbolic tensors.
        call: Function from these tensors, cast as the layer casts them, to its outputs.
    """
    tensors = keras.tree.flatten(layer.input)
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=f"input_{i}") for i, t in enumerate(tensors)]
    cast = [keras.ops.cast(t, layer.compute_dtype) if "float" in t.dtype else t for t in inputs]
    outputs = call(keras.tree.pack_sequence_as(layer.input, cast))
    return keras.Model(keras.tree.pack_sequence_as(layer.input, inputs), outputs, name=layer.name)


def _with_weights(layer: keras.layers.Layer, inputs: keras.KerasTensor, *weights: np.ndarray) -> keras.KerasTensor:
    """Return the outputs of a new layer, after its weights are set."""
    outputs = layer(inputs)
    layer.set_weights(weights)
    return outputs


# Texts


def _positions(vectors: keras.KerasTensor) -> keras.KerasTensor:
    """Return the positions int32 (batch, time) of vectors (batch, time, units): 0, 1, 2, …"""
    return keras.ops.cumsum(keras.ops.ones_like(vectors[..., 0], dtype="int32"), axis=1) - 1


def _word_embedding(layer: WordEmbedding) -> keras.Model:
    embedding = _rebuilt(layer, keras.layers.Embedding)

    def call(token_ids):
        vectors = embedding(token_ids)
        return vectors * keras.ops.expand_dims(keras.ops.cast(token_ids != 0, vectors.dtype), -1)

    return _functional(layer, call)


def _position_embedding(layer: PositionEmbedding) -> keras.Model:
    def call(vectors):
        embedding = keras.layers.Embedding(
            layer.max_length, vectors.shape[-1], name="position_embedding", dtype=layer.dtype_policy
        )
        return vectors + _with_weights(embedding, _positions(vectors), layer.position)

    return _functional(layer, call)


def _relative_embedding(layer: keras.layers.Layer) -> keras.Model:
    """Return the position embeddings of DeBERTa, whose layer in KerasHub does not build its normalization on loading.

    Its outputs (batch, positions, units) depend on its inputs only in the size of the batch.
    """
    count, units = layer.rel_embeddings.shape

    def call(vectors):
        ones = keras.ops.repeat(keras.ops.ones_like(vectors[:, :1, 0], dtype="int32"), count, axis=1)
        options = {"dtype": layer.dtype_policy}
        embedding = keras.layers.Embedding(count, units, name="rel_embedding", **options)
        norm = keras.layers.LayerNormalization(epsilon=layer.layer_norm.epsilon, name="rel_norm", **options)
        embedded = _with_weights(embedding, keras.ops.cumsum(ones, axis=1) - 1, layer.rel_embeddings)
        return _with_weights(norm, embedded, *layer.layer_norm.get_weights())

    return _functional(layer, call)


def _reverse_sequence(inputs):
    vectors, lengths = inputs
    positions, lengths = _positions(vectors), keras.ops.expand_dims(lengths, -1)
    sources = keras.ops.where(positions < lengths, lengths - 1 - positions, positions)
    # One lookup in the vectors of all texts is faster than take_along_axis
    ones = keras.ops.ones_like(positions)
    first = (keras.ops.cumsum(ones, axis=0) - 1) * keras.ops.sum(ones, axis=1, keepdims=True)
    return keras.ops.take(keras.ops.reshape(vectors, (-1, vectors.shape[-1])), first + sources, axis=0)


def _mean_max_pooling(inputs):
    vectors, lengths = inputs
    mask = _positions(vectors) < keras.ops.expand_dims(lengths, -1)
    mask = keras.ops.expand_dims(keras.ops.cast(mask, vectors.dtype), -1)
    mean = keras.ops.sum(vectors * mask, axis=1) / keras.ops.maximum(keras.ops.sum(mask, axis=1), 1)
    return keras.ops.concatenate([mean, keras.ops.max(vectors - (1 - mask) * MASKED_VALUE, axis=1)], axis=-1)


def _naive_bayes_bag(layer: NaiveBayesBag) -> keras.Model:
    """Return a frozen embedding of the products of ratios and weights, their sum, and a dense layer with the bias."""

    def call(token_ids):
        embedding = keras.layers.Embedding(
            layer.size, layer.classes, name=NGRAM_WEIGHTS, trainable=False, dtype=layer.dtype_policy
        )
        logits = keras.layers.Dense(layer.classes, name="bias", dtype=layer.dtype_policy)
        vectors = _with_weights(embedding, token_ids, layer.ratio * layer.weight)
        return _with_weights(logits, keras.ops.sum(vectors, axis=1), np.eye(layer.classes), layer.bias)

    return _functional(layer, call)


# Images


def _patch_embedding(layer: PatchEmbedding) -> keras.Model:
    def call(images):
        side, (_, height, width, channels) = layer.patch, images.shape
        rows, columns = layer.rows, layer.columns
        padding = ((0, rows * side - height), (0, columns * side - width))
        x = keras.layers.ZeroPadding2D(padding, name="padding", dtype=layer.dtype_policy)(images)
        x = keras.ops.reshape(x, (-1, rows, side, columns, side, channels))
        x = keras.ops.transpose(x, (0, 1, 3, 2, 4, 5))
        x = keras.ops.reshape(x, (-1, rows * columns, side * side * channels))
        projection = keras.layers.EinsumDense(  # its bias is one of each patch: the position embedding
            "bpv,vu->bpu",
            (rows * columns, layer.units),
            bias_axes="pu",
            name="projection",
            dtype=layer.dtype_policy,
        )
        return _with_weights(projection, x, layer.projection.kernel, layer.projection.bias + layer.position[0])

    return _functional(layer, call)


def _up_conv_2d(layer: UpConv2D) -> keras.layers.Conv2DTranspose:
    convolution = keras.layers.Conv2DTranspose(
        layer.filters, 4, 2, padding="same", use_bias=False, name=layer.name, dtype=layer.dtype_policy
    )
    convolution.build(layer.input.shape)
    convolution.set_weights([layer.transposed_kernel()])
    return convolution


REPLACEMENTS: dict[type, Callable[[Any], keras.layers.Layer]] = {
    ImageNetPixels: lambda layer: _functional(layer, layer.call),
    MaskedMeanPooling: lambda layer: _functional(layer, layer.call),
    MeanMaxPooling: lambda layer: _functional(layer, _mean_max_pooling),
    NaiveBayesBag: _naive_bayes_bag,
    PatchEmbedding: _patch_embedding,
    PositionEmbedding: _position_embedding,
    ReverseSequence: lambda layer: _functional(layer, _reverse_sequence),
    TokenDropout: lambda layer: _functional(layer, lambda token_ids: token_ids),
    TransformerInputs: lambda layer: _functional(layer, layer.call),
    UpConv2D: _up_conv_2d,
    WordEmbedding: _word_embedding,
}
# Layers of KerasHub, by package and class, because the package is not imported here
HUB_REPLACEMENTS = {("keras_hub", "RelativeEmbedding"): _relative_embedding}
