"""Tests that XLA can compile the training step of every recipe for static shapes, as a TPU requires.

The steps are lowered to XLA's representation (HLO), which fails for operations that XLA does not support. They are not
run, because compiling them for a CPU would take most of the time.
"""

import keras
import pytest
import tensorflow as tf
from conftest import toy_texts, write_images, write_texts
from dltoolkit.recipes import fine_tune, image_classifier, image_gan, sentiment_analyzer, text_generator

from dltoolkit import models
from dltoolkit.evaluation import feature_extractor
from dltoolkit.interrupt import Interrupted
from dltoolkit.training import fit

BATCH_SIZE = 8
CASES = {
    "resnet": (image_classifier, {"model": "resnet", "widths": (8, 8)}, "images"),
    "vit": (image_classifier, {"model": "vit", "widths": (32, 32)}, "images"),
    "ngram": (sentiment_analyzer, {"model": "ngram"}, "texts"),
    "lstm": (sentiment_analyzer, {"model": "lstm", "units": 8}, "texts"),
    "transformer": (sentiment_analyzer, {"model": "transformer", "units": 8}, "texts"),
    "gpt": (text_generator, {"layers": 1, "embedding_dim": 32, "context_length": 16}, "book.txt"),
    "gan": (image_gan, {"width": 8}, "images"),
    "fine-tune": (fine_tune, {"unfreeze": "all", "optimizer": "adamw", "backbone": "backbone.keras"}, "images"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("xla")
    write_images(path / "images", 12, side=12)
    texts = toy_texts(60)
    write_texts(path / "texts", texts)
    (path / "book.txt").write_text("\n".join(text for _, text in texts * 4))
    models.image.classifiers.build("resnet", (12, 12, 3), 3, widths=(8, 8)).save(path / "backbone.keras")
    return path


def lower(model: keras.Model, batch: tuple[tf.Tensor, ...]) -> str:
    """Return the HLO of a compiled model's training step."""
    tf.config.run_functions_eagerly(True)
    try:
        model.train_step(batch)  # creates the metric variables
    finally:
        tf.config.run_functions_eagerly(False)
    return tf.function(model.train_step, jit_compile=True).experimental_get_compiler_ir(batch)(stage="hlo")


@pytest.mark.parametrize("case", CASES)
def test_xla_lowers_the_training_step(case, folder, monkeypatch):
    recipe, options, data = CASES[case]
    if "backbone" in options:
        options = {**options, "backbone": str(folder / options["backbone"])}
    setups = []

    def stop_before_training(spec, setup, *arguments):
        setups.append((setup, spec.batches(setup.batch_size, 0)))
        raise Interrupted(15)

    monkeypatch.setattr(fit, "_train", stop_before_training)
    monkeypatch.setattr(feature_extractor, "MAX_STEPS", 20)
    config = recipe.Config(
        data=str(folder / data), batch_size=BATCH_SIZE, xla="on", name=case, out_dir=str(folder), **options
    )
    with pytest.raises(Interrupted):
        recipe.train(config)
    ((setup, batches),) = setups
    assert setup.xla and setup.model.jit_compile, "Keras compiles the step with XLA"
    assert lower(setup.model, next(iter(batches))).startswith("HloModule")
    shapes = [tuple(spec.shape) for spec in tf.nest.flatten(batches.element_spec)]
    assert shapes[0][0] == BATCH_SIZE, "no batch is incomplete"
    unknown = [size for shape in shapes for size in shape if size is None]
    assert len(unknown) == (1 if recipe is sentiment_analyzer else 0), "only texts differ in length"


def test_lowering_fails_for_operations_that_xla_does_not_support():
    """Prove that the test above can fail."""

    class OnTheHost(keras.layers.Layer):
        def call(self, inputs):
            return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), (8, 4))

    inputs = keras.Input((4,), batch_size=8)
    model = keras.Model(inputs, keras.layers.Dense(1)(OnTheHost()(inputs)))
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="numpy_function|PyFunc"):
        lower(model, (tf.zeros((8, 4)), tf.zeros((8, 1))))
