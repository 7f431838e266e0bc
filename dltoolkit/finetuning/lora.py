"""LoRA: training low-rank updates of frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

import keras

from dltoolkit.errors import UserError
from dltoolkit.models import keras_internals, surgery


def add_lora(model: keras.Model, rank: int) -> None:
    """Freeze a model except its head, and add trainable low-rank matrices to its weights.

    All dense layers and convolutions for which Keras implements LoRA get them, embeddings do not.

    Args:
        model: A model from inputs to logits.
        rank: Rank of the matrices.

    Raises:
        UserError: If the model has no layer of these kinds.
    """
    *backbone_layers, _ = [layer for layer in surgery.flatten_layers(model) if layer.trainable_weights]
    sublayers = [part for layer in backbone_layers for part in keras_internals.all_layers(layer)]
    adaptable = [part for part in sublayers if hasattr(part, "enable_lora")]
    adaptable = [part for part in adaptable if not isinstance(part, keras.layers.Embedding)]
    if not adaptable:
        raise UserError(
            f"LoRA cannot be added to any layer of {model.name}; use --method=full or --method=linear-probe."
        )
    for layer in backbone_layers:
        layer.trainable = False
    for part in adaptable:
        part.trainable = True
        part.enable_lora(rank)
