"""Batches of images: tf.data pipelines whose order and augmentation depend on the seed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from dltoolkit.data.batches import index_batches
from dltoolkit.data.image.augment import Augment, augment_batch
from dltoolkit.data.pipeline import PARALLEL, as_tensor, eval_dataset, finalize_pipeline
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits


def training_pipeline(
    splits: ImageSplits,
    *,
    batch_size: int,
    seed: int,
    augment: Augment | None = None,
    class_weights: np.ndarray | None = None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Return an endless data set of training batches, epoch after epoch.

    Args:
        splits: Images, of which the ``train`` split is used.
        batch_size: Images per batch, at most the size of the split. Each epoch drops the images of the incomplete
            last batch.
        seed: Seed that, together with the number of the step, determines order and augmentation.
        augment: Augmentation of the images, or None.
        class_weights: Weight of each class in the loss, float (classes,).
        start_step: Number of the first step. A resumed run gets the batches that an uninterrupted run would get.

    Returns:
        Data set of (images (batch, h, w, c), one-hot labels float32 (batch, classes)) and, with ``class_weights``,
        sample weights float32 (batch,). All shapes are static.
    """
    indices = tf.constant(splits.train)
    labels = tf.constant(splits.labels)
    fetch = _fetcher(splits)
    weights = None if class_weights is None else tf.constant(class_weights, tf.float32)

    def make_batch(step: tf.Tensor, positions: tf.Tensor) -> tuple:
        rows = tf.gather(indices, positions)
        images, targets = fetch(rows), tf.one_hot(tf.gather(labels, rows), len(splits.classes))
        if augment is not None:
            step_seed = tf.stack([tf.constant(seed % 2**31, tf.int32), tf.cast(step, tf.int32)])
            images, targets = augment_batch(images, targets, step_seed, augment)
        if weights is None:
            return images, targets
        return images, targets, tf.linalg.matvec(targets, weights)  # a mixed label gets a mixed weight

    batches = index_batches(len(splits.train), batch_size, seed, start_step)
    return finalize_pipeline(batches.map(make_batch, PARALLEL))


def evaluation_pipeline(splits: ImageSplits, split: str, batch_size: int) -> tf.data.Dataset:
    """Return one pass over a split in its order; the last batch may be smaller.

    Args:
        splits: Images and their splits.
        split: "train", "validation" or "test".
        batch_size: Images per batch.

    Returns:
        Data set of (images uint8 (batch, h, w, c), one-hot labels float32 (batch, classes)).

    Raises:
        UserError: If the split is empty.
    """
    rows = getattr(splits, split)
    if not len(rows):
        raise UserError(f"{splits.source} has no {split} split.")
    labels = tf.constant(splits.labels)
    fetch = _fetcher(splits)

    def make_batch(rows: tf.Tensor) -> tuple:
        return fetch(rows), tf.one_hot(tf.gather(labels, rows), len(splits.classes))

    return eval_dataset(rows, batch_size, make_batch)


def _fetcher(splits: ImageSplits) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function from row numbers (batch,) to images uint8 (batch, h, w, c)."""
    tensor = getattr(splits, "_tensor", None)
    if tensor is None:  # all pipelines of the same data share one tensor
        tensor = splits._tensor = as_tensor(splits.images)
    return lambda rows: tf.gather(tensor, rows)
