"""Operations on the layers of any functional model: split it, remove its head, freeze parts of it."""

from __future__ import annotations

import keras

from dltoolkit.errors import UserError
from dltoolkit.models import keras_internals


def without_head(model: keras.Model, name: str) -> keras.Model:
    """Return a trained classifier up to the input of its last dense layer.

    Args:
        model: The classifier, with or without flip test-time augmentation. It may end in layers that only turn the
            outputs of the dense layer into probabilities or scale them.
        name: The classifier as the user named it, for the error message.

    Raises:
        UserError: If the model does not end in a dense layer.
    """
    model = without_tta(model)
    last = _last_node(model, (keras.layers.Rescaling, keras.layers.Softmax, keras.layers.Activation)).operation
    inputs = dict(_dense_inputs(model)).get(last.name)  # None if the last layer is of another kind
    if inputs is None:
        raise UserError(f"{name} does not end in a dense layer that could be replaced; give a classifier.")
    return keras.Model(model.input, inputs, name=model.name)


def without_tta(model: keras.Model) -> keras.Model:
    """Return a classifier without flip test-time augmentation, and a sequential one as a functional model."""
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    # The mean of the logits of an image and its mirror image, which a custom model divides by its temperature
    if inner and isinstance(_last_node(model, keras.layers.Rescaling).operation, keras.layers.Average):
        return without_tta(inner[0])
    return model


def _last_node(model: keras.Model, skipped: type | tuple[type, ...]) -> keras_internals.GraphNode:
    """Return the last node of a model whose operation is not of the skipped types."""
    nodes = keras_internals.graph_nodes(model)
    return next((node for node in reversed(nodes) if not isinstance(node.operation, skipped)), nodes[-1])


def features(model: keras.Model) -> keras.Model:
    """Return a classifier up to the input of its last dense layer, float32 (batch, features).

    Of a model with flip test-time augmentation, these are the features of the image that is not mirrored.

    Raises:
        UserError: If the model has no dense layer.
    """
    model = without_tta(model)
    dense_inputs = _dense_inputs(model)
    if not dense_inputs:
        raise UserError(
            f"The {model.name} model has no embeddings, because it has no dense layer: train another family of models."
        )
    _, inputs = dense_inputs[-1]
    result = keras.Model(model.input, keras.ops.cast(inputs, "float32"), name=f"{model.name}_features")
    result.jit_compile = False
    return result


def _dense_inputs(model: keras.Model) -> list[tuple[str, keras.KerasTensor]]:
    """Return name and input, of shape (batch, features), of the dense layers of a model on vectors, in order.

    The attribute ``input`` of a layer may belong to another model that shares the layer.
    """
    nodes = keras_internals.graph_nodes(model)
    dense = [node for node in nodes if isinstance(node.operation, keras.layers.Dense)]
    return [(node.operation.name, node.inputs[0]) for node in dense if len(node.inputs[0].shape) == 2]


def with_input_shape(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Return a model with the layers of another that takes inputs of any size, for inputs of one shape."""
    inputs = keras.Input(shape, name="image")
    # Calling model.call() instead of the model makes its layers part of the new model, so that it can be split.
    return keras.Model(inputs, model.call(inputs), name=model.name)


def flatten_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model in order, with each nested model replaced by its layers.

    Composite layers stay whole; ``keras_internals.all_layers`` also returns the layers within them.
    """
    return [
        leaf
        for layer in model.layers
        for leaf in (flatten_layers(layer) if isinstance(layer, keras.Model) else [layer])
    ]


def split_points(model: keras.Model) -> list[keras.KerasTensor]:
    """Return the tensors at which a model can be split in two, from the input to the output.

    Every path from the input to the output passes through each of these tensors.
    """
    nodes = keras_internals.graph_nodes(model)
    producer = {id(tensor): i for i, node in enumerate(nodes) for tensor in node.outputs}
    last_reader = list(range(len(nodes)))
    for i, node in enumerate(nodes):
        for tensor in node.inputs:
            last_reader[producer[id(tensor)]] = i
    points, pending = [], 0
    for i, node in enumerate(nodes):
        if pending <= i:
            points.append(node.outputs[0])
        pending = max(pending, last_reader[i])
    return points


def split_point(model: keras.Model, trainable_fraction: float) -> keras.KerasTensor:
    """Return the first split point with at most a fraction of the trainable layers after it.

    Args:
        model: A model from inputs to features.
        trainable_fraction: Fraction of the layers with trainable weights that may follow the split point, 0 to 1.
    """
    nodes = keras_internals.graph_nodes(model)
    weighted = [i for i, node in enumerate(nodes) if getattr(node.operation, "trainable_weights", [])]
    position = {id(node.outputs[0]): i for i, node in enumerate(nodes)}
    most = round(trainable_fraction * len(weighted))
    return next(tensor for tensor in split_points(model) if sum(i > position[id(tensor)] for i in weighted) <= most)


def freeze_lower_layers(model: keras.Model, trainable_fraction: float | None) -> None:
    """Freeze the layers of a model except the head and the last layers before it.

    Embeddings are frozen as well, because each step updates only a few of their rows.

    Args:
        model: A model from inputs to logits. Its last layer with weights is the head, which stays trainable.
        trainable_fraction: Fraction of the layers with weights, without embeddings and head, that stay trainable,
            counted from the end, 0 to 1. None freezes nothing.
    """
    if trainable_fraction is None:
        return
    *backbone_layers, _ = [layer for layer in flatten_layers(model) if layer.trainable_weights]
    for layer in backbone_layers:
        if "Embedding" in type(layer).__name__:
            layer.trainable = False
    trainable = [layer for layer in backbone_layers if layer.trainable]
    for layer in trainable[: len(trainable) - round(trainable_fraction * len(trainable))]:
        layer.trainable = False


def freeze_batch_normalization(model: keras.Model) -> None:
    """Run batch normalization in inference mode, because a few images would spoil its moving statistics."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
