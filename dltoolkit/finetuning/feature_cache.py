"""What comes before the part of a network that is trained: computed once, and a first head on top of it."""

from __future__ import annotations

import importlib
import itertools
import tempfile
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.data import batches, pipeline
from dltoolkit.data import disk_cache as store
from dltoolkit.data.image import augment as augmentation
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.image.dataset import ImageSplits

BATCH = 32  # pictures at a time
STRENGTHS = tuple(10.0**power for power in range(-5, 3))  # inverse regularisation that is tried
ITERATIONS = 200
MOST_CONSTANTS = 1 << 28  # bytes of weights that a graph may hold, which is copied while it is prepared


@dataclass(frozen=True)
class Cached:
    """What a frozen network made of pictures.

    Attributes:
        values: float16 (views * n, …), uint8 where the pictures stay as they are, in a file without a name; all of the
            first view come first.
        labels: int (views * n,).
        classes: how many there are.
    """

    values: np.ndarray
    labels: np.ndarray
    classes: int

    def training_batches(
        self, batch_size: int, seed: int, start_step: int, class_weights: np.ndarray | None = None
    ) -> tf.data.Dataset:
        """Endless batches from a step on: (float32 (batch, …), one-hot labels float32 (batch, classes)).

        With ``class_weights``, float (classes,), sample weights float32 (batch,) come third.
        """
        fetch = self._fetch(class_weights)
        order = batches.index_batches(len(self.labels), batch_size, seed, start_step)
        return pipeline.served(order.map(lambda _, rows: fetch(rows), pipeline.PARALLEL))

    def evaluation_batches(self, batch_size: int) -> tf.data.Dataset:
        """One pass in order; the last batch may be smaller."""
        return pipeline.one_pass(np.arange(len(self.labels)), batch_size, self._fetch())

    def _fetch(self, class_weights: np.ndarray | None = None) -> Callable:
        values, labels = pipeline.in_place(self.values), tf.constant(self.labels)

        def fetch(rows: tf.Tensor) -> tuple:
            label = tf.gather(labels, rows)
            pair = tf.cast(tf.gather(values, rows), tf.float32), tf.one_hot(label, self.classes)
            return pair if class_weights is None else (*pair, tf.gather(tf.constant(class_weights, tf.float32), label))

        return fetch


def computed(
    model: keras.Model,
    pictures: ImageSplits,
    *,
    augment_copies: int = 1,
    augment: Augment | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> tuple[Cached, Cached]:
    """Run the training and the validation pictures through a frozen network.

    Args:
        model: pictures (batch, h, w, c) in.
        pictures: where they come from.
        views: how often each training picture is taken: once as it is, then varied as ``augment`` says.
        augment: how to vary them.
        seed: decides the variations.
        progress: called with what is being done, how many pictures are done, and how many there are.
    """
    answer = _prepared(model)
    kind = np.float16 if len(model.layers) > 1 else np.uint8  # pictures stay pictures

    def made(images: np.ndarray | tf.Tensor) -> np.ndarray:
        found = answer(tf.cast(images, tf.float32)).numpy()
        return found if kind is np.float16 else np.rint(found)

    def of_part(part: str, times: int) -> Cached:
        rows, done, values = getattr(pictures, part), 0, None
        for view, begin in itertools.product(range(times), range(0, len(rows), BATCH)):
            wanted = rows[np.minimum(np.arange(begin, begin + BATCH), len(rows) - 1)]
            images = pictures.images[wanted]
            if view:
                one_hot = np.zeros((BATCH, len(pictures.classes)), np.float32)
                images, _ = augmentation.batch(images, one_hot, np.array([seed, done], np.int32), augment)
            found = made(images)[: len(rows) - begin]
            if values is None:
                values = _on_disk((times * len(rows), *found.shape[1:]), kind)
            values[done : done + len(found)] = found
            done += len(found)
            progress(f"computing {part} features", done, len(values))
        return Cached(values, np.tile(pictures.labels[rows], times), len(pictures.classes))

    return of_part("train", augment_copies), of_part("validation", 1)


def _prepared(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the model in inference mode, prepared once for one shape.

    Its weights become constants: TensorFlow then makes each convolution and the normalisation behind it one operation.
    """
    weights = [np.asarray(variable) for variable in model.variables]
    if sum(each.nbytes for each in weights) > MOST_CONSTANTS:
        return tf.function(lambda images: model(images, training=False), autograph=False)

    @tf.function(autograph=False)
    def answer(images: tf.Tensor) -> tf.Tensor:
        constants = map(tf.constant, weights)
        with keras.StatelessScope(list(zip(model.variables, constants, strict=True))):
            return model(images, training=False)

    return answer


def _on_disk(shape: tuple[int, ...], kind: type) -> np.ndarray:
    """Return room for an array in a file without a name, which lives as long as the array."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        store.reserve(file, size)
    except OSError as error:
        raise UserError(
            f"What is computed once takes {size / store.GIGABYTE:.1f} GiB, which do not fit in {tempfile.gettempdir()} "
            f"({error.strerror}): set TMPDIR to a larger disk, or use fewer --augment-copies or less of the data (--limit)."
        ) from None
    return np.memmap(file, kind, "r+", shape=shape)


def prepare_head() -> None:
    """Begin to import what :func:`linear_head` needs, which takes a second or two, beside what is done next."""
    threading.Thread(target=importlib.import_module, args=("sklearn.linear_model",), daemon=True).start()


def linear_head(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
    *,
    balanced: bool = False,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit multinomial logistic regression on features, as strongly regularised as suits the validation best.

    Args:
        train: features float (n, units) and labels int (n,).
        validation: likewise.
        classes: how many there are.
        balanced: whether all classes weigh the same.

    Returns:
        kernel (units, classes) and bias (classes,) of a dense layer, and the inverse strength that was chosen.
    """
    from sklearn.linear_model import LogisticRegression

    x, y = np.asarray(train[0], np.float32), train[1]
    mean, variance = x.mean(axis=0), x.var(axis=0)
    spread = np.sqrt(variance + variance.mean() + 1e-6)  # of few examples, what hardly varies is none the louder
    x = (x - mean) / spread
    held, truth = (np.asarray(validation[0], np.float32) - mean) / spread, validation[1]
    basis = None
    if len(x) < x.shape[1]:  # the weights lie in what the examples span, which has fewer dimensions
        basis, x = np.linalg.qr(x.T)
        x, held = x.T, held @ basis
    best = None
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that more iterations would gain a little
            weights = "balanced" if balanced else None
            model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-3, class_weight=weights).fit(x, y)
        weights, bias = model.coef_.T, model.intercept_
        if weights.shape[1] == 1:  # two classes
            weights, bias = weights * [[-0.5, 0.5]], bias * [-0.5, 0.5]
        kernel, offset = np.zeros((x.shape[1], classes)), np.full(classes, -10.0)
        kernel[:, model.classes_], offset[model.classes_] = weights, bias
        logits = held @ kernel + offset
        lost = np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(truth)), truth])
        if best is None or lost < best[0]:
            best = lost, kernel, offset, strength
    _, kernel, offset, strength = best
    kernel = (kernel if basis is None else basis @ kernel) / spread[:, None]
    return kernel.astype("float32"), (offset - mean @ kernel).astype("float32"), strength
