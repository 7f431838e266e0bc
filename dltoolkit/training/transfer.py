"""The two sides of transfer learning, pictures and texts: what is frozen, and what the rest is trained on.

Both have ``top``, the network that is trained, whose last layer is the head; ``features``, what the head reads of the
training and the validation examples; and ``training_batches`` and ``validation_batches`` for ``top``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from dltoolkit.data import text_pipeline
from dltoolkit.models import backbones
from dltoolkit.training import frozen, progress

if TYPE_CHECKING:
    import tensorflow as tf

    from dltoolkit.data.augment import Augment
    from dltoolkit.data.images import ImageSplits
    from dltoolkit.data.text import TextSplits

Labelled = tuple[np.ndarray, np.ndarray]  # features (n, units) and labels (n,)
MOST_NUMBERS = 500_000  # of training texts from which the first head is learned, and of as many of validation
TEXTS_AT_ONCE = 64


class Pictures:
    """Pictures, and a network parted where one tensor passes: what comes before it is computed only once.

    Args:
        whole: raw pixels in, logits out.
        pictures: to be trained on.
        share: of the backbone's layers, from the top, that are trained.
        views: how often each training picture is taken, varied, where ``augment`` says how.
        augment: how they are varied.
        seed: decides order and variations.
        class_weights: float (classes,), the weight of each class in the loss.
    """

    def __init__(
        self,
        whole: keras.Model,
        pictures: ImageSplits,
        share: float,
        *,
        views: int,
        augment: Augment | None,
        seed: int,
        class_weights: np.ndarray | None = None,
    ):
        self.seed, self.class_weights = seed, class_weights
        head = whole.layers[-1]
        at = backbones.cut(keras.Model(whole.input, head.input), share)
        self.top = keras.Model(at, whole.output)
        self._middle = keras.Model(at, head.input)
        bottom = keras.Model(whole.input, at)
        with progress.counting() as report:
            how = {"views": views if augment else 1, "augment": augment, "seed": seed, "progress": report}
            self._train = frozen.computed(bottom, pictures, "train", **how)
            self._validation = frozen.computed(bottom, pictures, "validation", progress=report)

    def features(self) -> tuple[Labelled, Labelled]:
        """What the head reads of training (all views) and validation."""
        self._middle.compile(jit_compile=False)
        return tuple(
            (self._middle.predict(cached.evaluation_batches(256), verbose=0), cached.labels)
            for cached in (self._train, self._validation)
        )

    def training_batches(self, batch_size: int, start_step: int) -> tf.data.Dataset:
        """Endless batches from a step on."""
        return self._train.training_batches(batch_size, self.seed, start_step, self.class_weights)

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """One pass."""
        return self._validation.evaluation_batches(batch_size)


class Texts:
    """Texts, and a network that reads them; what of it is frozen was decided before.

    Args:
        whole: numbers of words in, logits out.
        texts: to be trained on.
        seed: decides the order, and the texts from which the first head is learned.
        class_weights: float (classes,), the weight of each class in the loss.
    """

    def __init__(self, whole: keras.Model, texts: TextSplits, *, seed: int, class_weights: np.ndarray | None = None):
        self.top, self.texts, self.seed, self.class_weights = whole, texts, seed, class_weights
        self._below = keras.Model(whole.input, whole.layers[-1].input)

    def features(self) -> tuple[Labelled, Labelled]:
        """What the head reads of as many training and validation texts as can be read soon."""
        self._below.compile(jit_compile=False)
        rng = np.random.default_rng(self.seed)
        return tuple(self._read(rng.permutation(getattr(self.texts, part)), part) for part in ("train", "validation"))

    def _read(self, rows: np.ndarray, part: str) -> Labelled:
        lengths = np.cumsum(self.texts.packed.lengths[rows])
        rows = self.texts.packed.shortest_first(rows[: max(1, int(np.searchsorted(lengths, MOST_NUMBERS)))])
        with progress.counting() as report:
            counted = keras.callbacks.LambdaCallback(
                on_predict_batch_end=lambda batch, logs: report(
                    f"reading {part} texts", min(len(rows), TEXTS_AT_ONCE * (batch + 1)), len(rows)
                )
            )
            batches = text_pipeline.of_rows(self.texts, rows, TEXTS_AT_ONCE)
            return self._below.predict(batches, verbose=0, callbacks=[counted]), self.texts.labels[rows]

    def training_batches(self, batch_size: int, start_step: int) -> tf.data.Dataset:
        """Endless batches from a step on."""
        return text_pipeline.training_pipeline(
            self.texts,
            batch_size=batch_size,
            seed=self.seed,
            class_weights=self.class_weights,
            start_step=start_step,
        )

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """One pass."""
        return text_pipeline.evaluation_pipeline(self.texts, "validation", TEXTS_AT_ONCE)
