"""Explanations of images by the activations of a layer: class activation maps, and the attention of transformers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage

from dltoolkit.explanation.gradients import log_odds
from dltoolkit.models import keras_internals, surgery

Tensors = list[tf.Tensor]
MIN_MAP_SIDE = 2  # cells of the shorter side of a map that says where something is
MIDDLE_SIDE = 4  # part of the shorter side of the image, as a divisor, that a map in the middle of the network has


def layer_methods(model: keras.Model) -> dict[str, Callable[[np.ndarray, Sequence[int]], np.ndarray]]:
    """Return the methods of this module that a model can have.

    With flip test-time augmentation, the maps are the mean of those of the image and of its mirror image.
    """
    plain = surgery.without_tta(model)
    is_flipped = plain is not model and not isinstance(model, keras.Sequential)
    views = 2 if is_flipped else 1
    functions: dict[str, Any] = {}
    attention = _attention_layers(plain)
    if not attention and (maps := _maps(plain)):
        middle = [each for each in maps if each[1] >= min(plain.inputs[0].shape[1:3]) / MIDDLE_SIDE]
        functions["grad-cam"] = _Captured(plain, [maps[-1][0]], _grad_cam, views)
        if middle and middle[-1][0] is not maps[-1][0]:
            functions["layer-cam"] = _Captured(plain, [middle[-1][0]], _layer_cam, views)
    if attention:
        functions["attention-rollout"] = _Captured(plain, attention, _attention_rollout, views)
        functions["attention-gradient"] = _Captured(plain, attention, _attention_gradient, views)
    return functions


def _maps(model: keras.Model) -> list[tuple[keras.layers.Layer, int]]:
    """Return the layers whose outputs are feature maps, in order, each with the number of cells of its shorter side."""
    layers = []
    for node in keras_internals.graph_nodes(model):
        layer = node.operation
        if isinstance(layer, keras.Model):
            layers += _maps(surgery.without_tta(layer))
            continue
        shape = node.outputs[0].shape
        is_map = isinstance(layer, keras.layers.Layer) and len(shape) == 4 and None not in shape[1:]
        if is_map and min(shape[1:3]) >= MIN_MAP_SIDE and not isinstance(layer, keras.layers.InputLayer):
            layers.append((layer, min(shape[1:3])))
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    first = next((i for i, (layer, _) in enumerate(layers) if isinstance(layer, convolutions)), len(layers))
    return layers[first:]


def _attention_layers(model: keras.Model) -> list[keras.layers.Layer]:
    layers = keras_internals.all_layers(model)
    return [layer for layer in layers if isinstance(layer, keras.layers.MultiHeadAttention)]


@contextlib.contextmanager
def _captured(layers: Sequence[keras.layers.Layer]) -> Iterator[list[tf.Tensor]]:
    """Yield a list that receives the output, or the attention weights, of each layer when it is called in the block."""
    outputs: list[tf.Tensor] = []

    def capture(layer: keras.layers.Layer, call: Callable, *args: Any, **options: Any) -> tf.Tensor:
        if isinstance(layer, keras.layers.MultiHeadAttention):
            output, weights = call(*args, **{**options, "return_attention_scores": True})
            outputs.append(weights)
            return output
        outputs.append(call(*args, **options))
        return outputs[-1]

    with keras_internals.replaced_calls(layers, capture):
        yield outputs


class _Captured:
    """A method that computes a coarse map from the outputs of some layers and their gradients, compiled once.

    Args:
        model: Pixels (batch, h, w, c) in, logits out.
        layers: The layers.
        combine: Maps the outputs and their gradients to (batch, rows, columns).
        views: 2 to average over the image and its mirror image.
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.layers.Layer], combine: Callable, views: int):
        self._views = views

        @tf.function(input_signature=[tf.TensorSpec((None, *model.inputs[0].shape[1:])), tf.TensorSpec((), tf.int32)])
        def compute(images: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape, _captured(layers) as outputs:
                tape.watch(images)
                odds = log_odds(model(images, training=False), target)
            gradients = tape.gradient(odds, outputs, unconnected_gradients="zero")
            return combine(outputs, gradients, model.inputs[0].shape[1:3])

        self._compute = compute

    def __call__(self, image: np.ndarray, targets: Sequence[int]) -> np.ndarray:
        """Return float32 (targets, h, w) for an image uint8 (h, w, c)."""
        pixels = image[None].astype(np.float32)
        images = np.concatenate([pixels, pixels[:, :, ::-1]][: self._views])
        maps = []
        for target in targets:
            coarse = self._compute(tf.constant(images), tf.constant(target)).numpy()
            maps.append((coarse[0] + coarse[-1][:, ::-1]) / 2 if self._views == 2 else coarse[0])
        return np.stack([_enlarge(each, image.shape[:2]) for each in maps])


def _enlarge(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a map with the shape of the image, interpolated between the centers of its cells."""
    axes = [(np.arange(n) + 0.5) * cells / n - 0.5 for n, cells in zip(shape, coarse.shape, strict=True)]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))
    return ndimage.map_coordinates(coarse.astype(np.float32), at, order=1, mode="nearest")


def _grad_cam(outputs: Tensors, gradients: Tensors, shape: tuple[int, int]) -> tf.Tensor:
    """Return the channels of a feature map, weighted by their mean gradient.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017. The
    paper drops negative sums; here they stay, because they say what speaks against the class.
    """
    weights = tf.reduce_mean(gradients[0], axis=(1, 2), keepdims=True)
    return tf.reduce_sum(weights * outputs[0], axis=-1)


def _layer_cam(outputs: Tensors, gradients: Tensors, shape: tuple[int, int]) -> tf.Tensor:
    """Return the channels of a feature map, each cell weighted by its own positive gradient.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", 2021.
    """
    return tf.nn.relu(tf.reduce_sum(tf.nn.relu(gradients[0]) * outputs[0], axis=-1))


def _attention_rollout(outputs: Tensors, gradients: Tensors, shape: tuple[int, int]) -> tf.Tensor:
    """Return how much of each patch reaches the pooling, through the mean attention of the heads and the residuals.

    Abnar & Zuidema, "Quantifying Attention Flow in Transformers", 2020. It is the same for all classes.
    """
    rollout = tf.eye(tf.shape(outputs[0])[-1])[None]
    for weights in outputs:  # (batch, heads, patches, patches)
        mixed = 0.5 * tf.reduce_mean(weights, axis=1) + 0.5 * tf.eye(tf.shape(weights)[-1])
        rollout = tf.matmul(mixed, rollout)
    return _to_grid(rollout, shape)


def _attention_gradient(outputs: Tensors, gradients: Tensors, shape: tuple[int, int]) -> tf.Tensor:
    """Return how much of each patch reaches the pooling through attention that speaks for the class.

    Chefer, Gur & Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", 2021.
    """
    relevance = tf.eye(tf.shape(outputs[0])[-1])[None]
    for weights, gradient in zip(outputs, gradients, strict=True):
        relevance += tf.matmul(tf.reduce_mean(tf.nn.relu(weights * gradient), axis=1), relevance)
    return _to_grid(relevance - tf.eye(tf.shape(relevance)[-1]), shape)


def _to_grid(relevance: tf.Tensor, shape: tuple[int, int]) -> tf.Tensor:
    """Return the mean over the rows of (batch, patches, patches) as the grid of the patches of an image.

    Tokens in front of the patches, such as a class token, are left out.
    """
    patches = relevance.shape[-1]
    rows = max(1, round(math.sqrt(patches * shape[0] / shape[1])))
    columns = patches // rows
    means = tf.reduce_mean(relevance, axis=1)[:, patches - rows * columns :]
    return tf.reshape(means, (-1, rows, columns))
