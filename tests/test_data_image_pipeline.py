"""Batches of images: labels fit the images, resuming is exact, lengths are known, and arrays are not copied."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit import memory
from dltoolkit.data import disk_cache
from dltoolkit.data.image import augment, dataset, pipeline


@pytest.fixture
def toys(make_folder, isolated_cache) -> dataset.ImageSplits:
    return dataset.load(str(make_folder("toys", [20, 12, 8])))


def rows_of(splits: dataset.ImageSplits, images: np.ndarray) -> list[int]:
    """Return the row numbers of the images in a batch."""
    index = {image.tobytes(): row for row, image in enumerate(splits.images)}
    return [index[image.tobytes()] for image in images]


def take(batches: tf.data.Dataset, count: int) -> list[tuple]:
    return [tuple(array.numpy() for array in element) for element in batches.take(count)]


def test_training_pipeline_yields_training_images_with_their_labels(toys):
    batches = pipeline.training_pipeline(toys, batch_size=8, seed=0)
    images, targets = batches.element_spec
    assert (images.shape, images.dtype) == ((8, 16, 16, 3), tf.uint8)
    assert (targets.shape, targets.dtype) == ((8, 3), tf.float32)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    steps = len(toys.train) // 8
    seen = []
    for pixels, one_hot in take(batches, steps):
        rows = rows_of(toys, pixels)
        assert (one_hot.argmax(1) == toys.labels[rows]).all()
        seen += rows
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(toys.train.tolist())


def test_training_pipeline_continues_exactly_from_a_step(toys):
    options = augment.Augment(flip=True, shift=2, mixup=0.2)
    settings = {"batch_size": 8, "seed": 3, "augment": options, "class_weights": toys.balanced_weights()}
    full = take(pipeline.training_pipeline(toys, **settings), 9)
    resumed = take(pipeline.training_pipeline(toys, **settings, start_step=5), 4)
    for expected, actual in zip(full[5:], resumed, strict=True):
        assert all((a == b).all() for a, b in zip(expected, actual, strict=True))
    plain = take(pipeline.training_pipeline(toys, batch_size=8, seed=3), 1)
    assert (full[0][0] != plain[0][0]).any()


def test_training_pipeline_augments_an_image_differently_in_each_epoch(toys):
    toys.train = toys.train[:1]
    options = augment.Augment(shift=4)
    batches = take(pipeline.training_pipeline(toys, batch_size=8, seed=0, augment=options), 8)
    assert len({pixels.tobytes() for pixels, _ in batches}) > 3


def test_training_pipeline_weighs_examples_by_class(toys):
    weights = np.array([1.0, 2.0, 5.0])
    for _, one_hot, sample_weight in take(
        pipeline.training_pipeline(toys, batch_size=8, seed=0, class_weights=weights), 3
    ):
        assert np.allclose(sample_weight, weights[one_hot.argmax(1)])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluation_pipeline_yields_each_image_once_in_order(toys, split):
    batches = pipeline.evaluation_pipeline(toys, split, 4)
    rows = getattr(toys, split)
    assert batches.cardinality() == -(-len(rows) // 4)
    elements = take(batches, 100)
    assert [row for pixels, _ in elements for row in rows_of(toys, pixels)] == rows.tolist()
    assert (np.concatenate([one_hot for _, one_hot in elements]).argmax(1) == toys.labels[rows]).all()


def test_pipelines_of_images_on_disk_yield_the_same_batches(toys, monkeypatch):
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    on_disk = dataset.load(toys.source)
    assert isinstance(on_disk.images, np.memmap)
    options = {"batch_size": 8, "seed": 0, "augment": augment.Augment(shift=2)}
    expected = pipeline.training_pipeline(toys, **options), pipeline.evaluation_pipeline(toys, "test", 4)
    actual = pipeline.training_pipeline(on_disk, **options), pipeline.evaluation_pipeline(on_disk, "test", 4)
    for a, b in zip(expected, actual, strict=True):
        assert a.element_spec == b.element_spec
        for (pixels, targets), (other_pixels, other_targets) in zip(take(a, 7), take(b, 7), strict=True):
            assert (pixels == other_pixels).all()
            assert (targets == other_targets).all()


@pytest.mark.parametrize("offset", [0, 1, 16])
def test_evaluation_pipeline_accepts_arrays_that_are_not_aligned(toys, offset):
    """TensorFlow aborts the process when it is given memory that is not aligned."""
    pixels = np.empty(toys.images.size + 64, np.uint8)
    start = -pixels.ctypes.data % 64 + offset
    pixels = pixels[start : start + toys.images.size].reshape(toys.images.shape)
    pixels[...] = toys.images
    pixels.flags.writeable = offset != 16
    toys.images = pixels
    ((images, _),) = take(pipeline.evaluation_pipeline(toys, "test", 100), 2)
    assert (images == pixels[toys.test]).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
def test_pipelines_do_not_copy_large_arrays(toys):
    """A data set that fills most of the memory can still be trained on."""
    pixels = disk_cache.aligned_empty((40_000, 64, 64, 1))  # 164 MB
    pixels[...] = np.arange(64, dtype=np.uint8)[:, None]
    rows = np.arange(len(pixels))
    large = dataset.ImageSplits(
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
    take(pipeline.training_pipeline(toys, batch_size=8, seed=0), 1)  # TensorFlow allocates its own memory here
    before = resident_memory()
    batches = iter(pipeline.training_pipeline(large, batch_size=8, seed=0))
    held_out = iter(pipeline.evaluation_pipeline(large, "train", 8))
    next(batches), next(held_out)
    assert resident_memory() - before < pixels.nbytes / 2


def resident_memory() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_fit_counts_the_steps_of_a_training_pipeline(toys):
    """Keras counts an additional step for a data set of unknown length."""
    inputs = keras.Input(toys.image_shape)
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    steps = len(toys.train) // 8
    batches = pipeline.training_pipeline(toys, batch_size=8, seed=0)
    validation = pipeline.evaluation_pipeline(toys, "validation", 4)
    model.fit(batches, epochs=2, steps_per_epoch=steps, validation_data=validation, verbose=0)
    assert int(model.optimizer.iterations) == 2 * steps
    correct = model.predict(toys.images[toys.validation], verbose=0).argmax(1) == toys.labels[toys.validation]
    assert model.evaluate(validation, verbose=0, return_dict=True)["accuracy"] == pytest.approx(correct.mean())
