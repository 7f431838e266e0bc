"""Transfer learning: a head on frozen features first, then the upper layers of the network as well.

:class:`Transfer` does it on one of two sides, :class:`Pictures` or :class:`Texts`, which say what is frozen and what
the rest is trained on. Both have ``top``, the network that is trained, whose last layer is the head; ``features``, what
the head reads of the training and the validation examples; batches of either for ``top``, in validation of at least
``validated_at_once``; and batches of the test split for ``whole``. ``room`` measures and concludes what was trained on
such examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from dltoolkit import evaluation, progress
from dltoolkit.data.image import augment
from dltoolkit.data.image import dataset as images
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.errors import UserError
from dltoolkit.evaluation.text_classification import BATCH, ROUNDED
from dltoolkit.finetuning import feature_cache as frozen
from dltoolkit.models.pretrained import keras_applications as backbones
from dltoolkit.training import fit, optimizer

if TYPE_CHECKING:
    import tensorflow as tf

    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.text.dataset import TextSplits

Labelled = tuple[np.ndarray, np.ndarray]  # features (n, units) and labels (n,)
MOST_NUMBERS = 250_000  # of tokens in the texts of a part that the first head is learned from or measured on


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

    Attributes:
        mirrored: whether the views are mirrored too.
    """

    room, validated_at_once, varying = evaluation.image_classification, 1, False

    def __init__(
        self,
        whole: keras.Model,
        pictures: images.ImageSplits,
        share: float,
        *,
        augment_copies: int,
        augment: Augment | None,
        seed: int,
        class_weights: np.ndarray | None = None,
    ):
        self.pictures, self.seed, self.class_weights = pictures, seed, class_weights
        self.mirrored = bool(augment and augment.flip)
        head = whole.layers[-1]
        at = backbones.cut(keras.Model(whole.input, head.input), share)
        self.top = keras.Model(at, whole.output)
        self._middle = keras.Model(at, head.input)
        bottom = keras.Model(whole.input, at)
        with progress.counting() as report:
            how = {
                "augment_copies": augment_copies if augment else 1,
                "augment": augment,
                "seed": seed,
                "progress": report,
            }
            self._train, self._validation = frozen.computed(bottom, pictures, **how)

    def features(self) -> tuple[Labelled, Labelled]:
        """What the head reads of training (all views) and validation."""
        if len(self._middle.layers) == 1:  # nothing is trained but the head
            return tuple((np.asarray(cached.values), cached.labels) for cached in (self._train, self._validation))
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

    def test(self) -> tuple[np.ndarray, tf.data.Dataset, str]:
        """The test split's labels and batches, and nothing more to say."""
        return *evaluation.image_classification.part(self.pictures, "test"), ""


class Texts:
    """Texts, and a network that reads them; what of it is frozen was decided before.

    Args:
        whole: numbers of words in, logits out.
        texts: to be trained on.
        seed: decides the order, and the texts from which the first head is learned.
        class_weights: float (classes,), the weight of each class in the loss.
    """

    room, validated_at_once, varying = evaluation.text_classification, BATCH, True

    def __init__(self, whole: keras.Model, texts: TextSplits, *, seed: int, class_weights: np.ndarray | None = None):
        self.top, self.texts, self.seed, self.class_weights = whole, texts, seed, class_weights
        self._below = keras.Model(whole.input, whole.layers[-1].input)

    def features(self) -> tuple[Labelled, Labelled]:
        """What the head reads of as many training and validation texts as can be read soon."""
        self._below.compile(jit_compile=False)
        return tuple(self._read(self.some(part), part) for part in ("train", "validation"))

    def some(self, part: str) -> np.ndarray:
        """Return as many rows of a part as can be read soon, chosen by the seed, the shortest texts first."""
        rows = np.random.default_rng(self.seed).permutation(getattr(self.texts, part))
        lengths = np.cumsum(self.texts.packed.lengths[rows])
        return self.texts.packed.shortest_first(rows[: max(1, int(np.searchsorted(lengths, MOST_NUMBERS)))])

    def _read(self, rows: np.ndarray, part: str) -> Labelled:
        with progress.counting() as report:
            counted = keras.callbacks.LambdaCallback(
                on_predict_batch_end=lambda batch, logs: report(
                    f"reading {part} texts", min(len(rows), BATCH * (batch + 1)), len(rows)
                )
            )
            batches = text_pipeline.of_rows(self.texts, rows, BATCH, ROUNDED)
            return self._below.predict(batches, verbose=0, callbacks=[counted]), self.texts.labels[rows]

    def training_batches(self, batch_size: int, start_step: int) -> tf.data.Dataset:
        """Endless batches from a step on."""
        return text_pipeline.training_pipeline(
            self.texts,
            batch_size=batch_size,
            seed=self.seed,
            class_weights=self.class_weights,
            start_step=start_step,
            rounded=ROUNDED,
        )

    def validation_batches(self, batch_size: int) -> tf.data.Dataset:
        """One pass."""
        return text_pipeline.evaluation_pipeline(self.texts, "validation", batch_size, ROUNDED)

    def test(self) -> tuple[np.ndarray, tf.data.Dataset, str]:
        """Labels and batches of as many test texts as can be read soon, and how many that are."""
        rows, of = self.some("test"), len(self.texts.test)
        remark = f", on {len(rows):,} of the {of:,} test texts" if len(rows) < of else ""
        return self.texts.labels[rows], text_pipeline.of_rows(self.texts, rows, BATCH, ROUNDED), remark


def share(config: Any) -> float | None:
    """The share of the backbone's layers that is trained; None for all, embeddings included."""
    if config.unfreeze == "all":
        return None
    try:
        number = float(config.unfreeze)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise UserError(f"--unfreeze must be a number from 0 to 1, or all, not '{config.unfreeze}'.")
    return number


class Transfer:
    """A network on its two sides, what is frozen and what is trained, and its first head.

    Attributes:
        whole: raw pixels or numbers of tokens in, logits out.
        side: what is trained, and on what.
        first: validation accuracy and loss of the first head.
        with_head: the weights of what is trained, with it.
    """

    def __init__(self, config: Any, whole: keras.Model, splits: images.ImageSplits | TextSplits):
        frozen.prepare_head()
        self.config, self.whole, self.splits = config, whole, splits
        self.head = whole.layers[-1]
        weights = splits.balanced_weights() if config.class_weights == "balanced" else None
        how = {"seed": config.seed, "class_weights": weights}
        if isinstance(splits, images.ImageSplits):
            trained = share(config) if config.method != "linear-probe" else 0.0
            how |= {"augment_copies": config.augment_copies, "augment": augmentation(config, splits)}
            self.side = Pictures(whole, splits, 1.0 if trained is None else trained, **how)
        else:
            self.side = Texts(whole, splits, **how)

    def fit_head(self) -> float:
        """Give the network the head that suits frozen features best, and return its inverse regularisation."""
        classes = len(self.splits.classes)
        train, validation = self.side.features()
        balanced = self.config.class_weights == "balanced"
        kernel, bias, strength = frozen.linear_head(train, validation, classes, balanced=balanced)
        self.head.set_weights([kernel, bias])
        self.with_head = self.side.top.get_weights()
        features, truth = validation
        logits = features @ kernel + bias
        loss = self._loss()(keras.ops.one_hot(truth, classes), logits)
        self.first = {
            "accuracy": round(float((logits.argmax(axis=1) == truth).mean()), 6),
            "loss": round(float(loss), 6),
        }
        return strength

    def probe(self) -> dict[str, Any]:
        """Score the head on frozen features, which the network must still have, on the test split."""
        labels, batches, remark = self.side.test()
        answers = evaluation.prediction.logits(self.whole, batches).argmax(axis=1)
        note = f"logistic regression on frozen features{remark}"
        return evaluation.baseline.scored(answers, labels, len(self.splits.classes), note, seed=self.config.seed)

    def job(self, epochs: int, seconds_before: float) -> fit.Job:
        """Say what the training loop needs: model, batches, loss.

        Args:
            epochs: how many, where neither ``--epochs`` nor ``--max-time`` is given.
            seconds_before: what the head took.
        """
        return fit.Job(
            build_model=self._restored,
            batches=self.side.training_batches,
            validation=self.side.validation_batches,
            examples=len(self.splits.train),
            validation_examples=len(self.splits.validation),
            validation_batch=self.side.validated_at_once,
            varying=self.side.varying,
            compile=self._compile,
            epochs=epochs,
            seconds_before=seconds_before,
            delivered=lambda top: self.whole,
        )

    def _loss(self) -> keras.losses.Loss:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=self.config.label_smoothing)

    def _restored(self) -> keras.Model:
        self.side.top.set_weights(self.with_head)
        return self.side.top

    def _compile(self, top: keras.Model, config: Any, batch_size: int, **how: Any) -> Any:
        """The upper a layer, the faster it learns (Howard & Ruder 2018)."""
        learning = [[variable for variable in layer.variables if variable.trainable] for layer in backbones.leaves(top)]
        factors = {
            variable.path: config.layer_decay**below
            for below, variables in enumerate(filter(None, reversed(learning)))
            for variable in variables
        }
        return optimizer.compile(
            top,
            config,
            batch_size,
            loss=self._loss(),
            metrics=["accuracy"],
            rate_factors=factors,
            **how,
        )


def augmentation(config: Any, pictures: images.ImageSplits) -> Augment | None:
    """Decide how training pictures are varied; whether mirrored ones still look like their class, the data say."""
    if not config.augment:
        return None
    flip = augment.mirroring_suits(pictures) if config.flip is None else config.flip
    return augment.for_images(pictures.image_shape, flip=flip)
