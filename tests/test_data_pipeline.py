"""Batches: the order follows seed and epoch alone, resuming is exact, and every length is known."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.data import disk_cache as store
from dltoolkit.data import pipeline
from dltoolkit.data.batches import index_batches
from dltoolkit.data.image import augment
from dltoolkit.data.image import dataset as images


@pytest.fixture
def toys(make_folder, isolated_cache) -> images.ImageSplits:
    return images.load(str(make_folder("toys", [20, 12, 8])))


def rows_of(data: images.ImageSplits, pixels: np.ndarray) -> list[int]:
    """Return which pictures of ``data`` those in a batch are."""
    index = {picture.tobytes(): row for row, picture in enumerate(data.images)}
    return [index[picture.tobytes()] for picture in pixels]


def taken(batches: tf.data.Dataset, count: int) -> list[tuple]:
    return [tuple(part.numpy() for part in element) for element in batches.take(count)]


def test_each_epoch_sees_each_index_at_most_once_in_an_order_of_its_own():
    batches = [(int(step), places.numpy()) for step, places in index_batches(10, 3, seed=5).take(9)]
    assert [step for step, _ in batches] == list(range(9))
    epochs = [np.concatenate([places for _, places in batches[i : i + 3]]) for i in (0, 3, 6)]
    assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({int(set(range(10)).difference(epoch.tolist()).pop()) for epoch in epochs}) > 1


@pytest.mark.parametrize("start", [0, 1, 3, 7, 3000])
def test_a_later_start_goes_on_exactly(start):
    whole = list(index_batches(10, 3, seed=5).skip(start).take(4))
    resumed = list(index_batches(10, 3, seed=5, start_step=start).take(4))
    for (step, places), (other_step, other_places) in zip(whole, resumed, strict=True):
        assert step == other_step
        assert (places == other_places).numpy().all()


def test_seeds_differ_and_batches_are_never_larger_than_the_set():
    first = next(iter(index_batches(50, 50, seed=0)))[1].numpy()
    assert (first == next(iter(index_batches(50, 50, seed=0)))[1].numpy()).all()
    assert (first != next(iter(index_batches(50, 50, seed=1)))[1].numpy()).any()
    assert sorted(next(iter(index_batches(5, 128, seed=0)))[1].numpy()) == list(range(5))


def test_training_batches_are_training_pictures_with_their_labels(toys):
    batches = pipeline.training_pipeline(toys, batch_size=8, seed=0)
    pictures, targets = batches.element_spec
    assert (pictures.shape, pictures.dtype) == ((8, 16, 16, 3), tf.uint8)
    assert (targets.shape, targets.dtype) == ((8, 3), tf.float32)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    steps = len(toys.train) // 8
    seen = []
    for pixels, one_hot in taken(batches, steps):
        rows = rows_of(toys, pixels)
        assert (one_hot.argmax(1) == toys.labels[rows]).all()
        seen += rows
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(toys.train.tolist())


def test_augmented_training_can_be_resumed_exactly(toys):
    options = augment.Augment(flip=True, shift=2, mixup=0.2)
    settings = {"batch_size": 8, "seed": 3, "augment": options, "class_weights": toys.balanced_weights()}
    whole = taken(pipeline.training_pipeline(toys, **settings), 9)
    resumed = taken(pipeline.training_pipeline(toys, **settings, start_step=5), 4)
    for expected, found in zip(whole[5:], resumed, strict=True):
        assert all((a == b).all() for a, b in zip(expected, found, strict=True))
    plain = taken(pipeline.training_pipeline(toys, batch_size=8, seed=3), 1)
    assert (whole[0][0] != plain[0][0]).any()


def test_an_epoch_later_the_same_picture_is_augmented_otherwise(toys):
    toys.train = toys.train[:1]
    options = augment.Augment(shift=4)
    batches = taken(pipeline.training_pipeline(toys, batch_size=8, seed=0, augment=options), 8)
    assert len({pixels.tobytes() for pixels, _ in batches}) > 3


def test_class_weights_follow_the_label(toys):
    weights = np.array([1.0, 2.0, 5.0])
    for _, one_hot, sample_weight in taken(
        pipeline.training_pipeline(toys, batch_size=8, seed=0, class_weights=weights), 3
    ):
        assert np.allclose(sample_weight, weights[one_hot.argmax(1)])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_evaluation_sees_everything_once_in_order(toys, part):
    batches = pipeline.evaluation_pipeline(toys, part, 4)
    rows = getattr(toys, part)
    assert batches.cardinality() == -(-len(rows) // 4)
    elements = taken(batches, 100)
    assert [row for pixels, _ in elements for row in rows_of(toys, pixels)] == rows.tolist()
    assert (np.concatenate([one_hot for _, one_hot in elements]).argmax(1) == toys.labels[rows]).all()


def test_pictures_on_disk_give_the_same_batches(toys, monkeypatch):
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    on_disk = images.load(toys.source)
    assert isinstance(on_disk.images, np.memmap)
    options = {"batch_size": 8, "seed": 0, "augment": augment.Augment(shift=2)}
    expected = pipeline.training_pipeline(toys, **options), pipeline.evaluation_pipeline(toys, "test", 4)
    found = pipeline.training_pipeline(on_disk, **options), pipeline.evaluation_pipeline(on_disk, "test", 4)
    for a, b in zip(expected, found, strict=True):
        assert a.element_spec == b.element_spec
        for (pixels, targets), (other_pixels, other_targets) in zip(taken(a, 7), taken(b, 7), strict=True):
            assert (pixels == other_pixels).all()
            assert (targets == other_targets).all()


@pytest.mark.parametrize("offset", [0, 1, 16])
def test_arrays_made_elsewhere_are_served_too(toys, offset):
    """TensorFlow would abort the process on memory that is not aligned."""
    pixels = np.empty(toys.images.size + 64, np.uint8)
    start = -pixels.ctypes.data % 64 + offset
    pixels = pixels[start : start + toys.images.size].reshape(toys.images.shape)
    pixels[...] = toys.images
    pixels.flags.writeable = offset != 16
    toys.images = pixels
    ((served, _),) = taken(pipeline.evaluation_pipeline(toys, "test", 100), 2)
    assert (served == pixels[toys.test]).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
def test_large_arrays_are_not_copied(toys):
    """A data set that fills most of the memory can be trained on all the same."""
    pixels = store.room((40_000, 64, 64, 1))  # 164 MB
    pixels[...] = np.arange(64, dtype=np.uint8)[:, None]
    rows = np.arange(len(pixels))
    data = images.ImageSplits(
        images=pixels,
        labels=(rows % 2).astype(np.int32),
        names=rows,
        train=rows,
        validation=rows[:9],
        test=rows[:9],
        classes=["a", "b"],
        fingerprint="",
        source="",
    )
    taken(pipeline.training_pipeline(toys, batch_size=8, seed=0), 1)  # TensorFlow itself is up now
    before = memory()
    batches = iter(pipeline.training_pipeline(data, batch_size=8, seed=0))
    held_out = iter(pipeline.evaluation_pipeline(data, "train", 8))
    next(batches), next(held_out)
    assert memory() - before < pixels.nbytes / 2


def memory() -> int:
    """Return the bytes of memory that this process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_keras_counts_the_steps_right(toys):
    """No phantom step, which Keras adds where a data set does not know its length."""
    inputs = keras.Input(toys.image_shape)
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    steps = len(toys.train) // 8
    batches = pipeline.training_pipeline(toys, batch_size=8, seed=0)
    validation = pipeline.evaluation_pipeline(toys, "validation", 4)
    model.fit(batches, epochs=2, steps_per_epoch=steps, validation_data=validation, verbose=0)
    assert int(model.optimizer.iterations) == 2 * steps
    right = model.predict(toys.images[toys.validation], verbose=0).argmax(1) == toys.labels[toys.validation]
    assert model.evaluate(validation, verbose=0, return_dict=True)["accuracy"] == pytest.approx(right.mean())
