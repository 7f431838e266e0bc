"""Saved models open with Keras alone, and give the answers of the trained networks."""

import os
import random
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import toy_language_models
from conftest import toy_images
from dltoolkit.recipes import fine_tune, image_classifier, image_gan, sentiment_analyzer, text_generator
from toy_runs import finished_run, randomize

import dltoolkit
from dltoolkit import finetuning
from dltoolkit.models import keras_internals, model_file, portable, surgery
from dltoolkit.models.gan import networks, sampling
from dltoolkit.models.image import classifiers
from dltoolkit.models.image.layers import ImageNetPixels
from dltoolkit.models.pretrained import text_backbones
from dltoolkit.models.text import classifiers as text_classifiers

ANSWERS = 20
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
# A Python that imports neither this package nor KerasHub, and in which warnings are errors
KERAS_ALONE = """
import sys, warnings

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("dltoolkit", "keras_hub"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import keras, numpy as np
from pathlib import Path
warnings.simplefilter("error", UserWarning)
answers = {}
for path in sorted(Path(".").rglob("model.keras")):
    inputs = np.load(path.with_name("inputs.npz"))
    inputs = [inputs[name] for name in inputs.files]
    try:
        model = keras.saving.load_model(path)
    except TypeError as error:
        answers[str(path.parent)] = str(error)
        continue
    call = model.predict_on_batch if path.parent.name == "tta" else model  # predicting takes a second to compile
    answers[str(path.parent)] = call(inputs[0] if len(inputs) == 1 else inputs)
np.savez("answers.npz", **answers)
"""


def random_texts(vocab_size: int) -> np.ndarray:
    """Return padded token IDs int32 (ANSWERS, 12) of texts of one word and more."""
    rng = np.random.default_rng(1)
    token_ids = rng.integers(1, vocab_size, (ANSWERS, 12))
    token_ids[np.arange(12) >= rng.integers(1, 13, (ANSWERS, 1))] = 0
    return token_ids.astype("int32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Save an untrained network of every kind in a run; return the runs' folder, and inputs and answers by run."""
    folder = tmp_path_factory.mktemp("runs")
    expected = {}

    def save(recipe, name, model, *inputs, **info):
        run = finished_run(recipe, folder, name, randomize(model), **info)
        np.savez(run.path / "inputs.npz", *inputs)
        answers = model(inputs[0] if len(model.inputs) == 1 and not isinstance(model.input, list) else list(inputs))
        expected[str(run.path.relative_to(folder))] = inputs, np.asarray(answers)
        return run

    images, labels = toy_images(20, side=16)
    np.savez(folder / "toys.npz", x=images, y=labels)
    config = image_classifier.Config(data=str(folder / "toys.npz"))
    widths = {"resnet": (8, 8, 8), "cnn": (8, 8), "alexnet": (8,) * 7, "mlp": (16,), "vit": (32,)}
    splits = image_classifier.build_data(config)
    for family in classifiers.FAMILIES:
        model = image_classifier.build_model(replace(config, model=family, widths=widths[family]), splits)
        backbone = save(image_classifier, family, model, images[:ANSWERS])
    model = image_classifier.build_model(replace(config, widths=widths["resnet"]), splits)
    save(image_classifier, "tta", classifiers.with_flip_tta(model), images[:ANSWERS])
    save(
        fine_tune,
        "images",
        fine_tune.build_model(fine_tune.Config(data=config.data, backbone=str(backbone.path)), splits),
        images[:ANSWERS],
    )
    for mode in ("tf", "torch", "caffe"):
        image = keras.Input((16, 16, 3), name="image")
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(ImageNetPixels(mode)(image)))
        save(fine_tune, mode, keras.Model(image, keras.layers.Dense(3, name="logits")(x)), images[:ANSWERS])

    config = sentiment_analyzer.Config(limit=100)
    splits = {family: sentiment_analyzer.build_data(replace(config, model=family)) for family in ("ngram", "cnn")}
    for family in ("ngram", "lstm", "gru", "rnn", "transformer", "cnn"):
        data = splits["ngram" if family == "ngram" else "cnn"]
        model = sentiment_analyzer.build_model(replace(config, model=family), data)
        texts = random_texts(len(data.encoder.vocabulary))
        backbone = save(sentiment_analyzer, family, model, texts, config={"model": family})
    data.encoder.save(backbone.path)
    tuned = fine_tune.Config(data=config.data, backbone=str(backbone.path), limit=100)
    tuned = fine_tune.resolve_defaults(tuned, finetuning.tasks.resolve(tuned))
    save(fine_tune, "texts", fine_tune.build_model(tuned, data), random_texts(len(data.encoder.vocabulary)))

    latents = sampling.sample_latents(ANSWERS, seed=0)
    for architecture in ("dcgan", "resnet"):
        generator = networks.build_generator(architecture, (16, 16, 3), width=8)
        save(image_gan, f"{architecture}-unconditional", generator, latents)
        generator = networks.build_generator(architecture, (20, 28, 3), 3, width=8)
        save(image_gan, architecture, generator, latents, np.arange(ANSWERS, dtype="int32") % 3)
    save(text_generator, "gpt", toy_language_models.build_model("gpt"), random_texts(toy_language_models.VOCAB_SIZE))
    return folder, expected


def answers_of_keras_alone(folder):
    """Return the answers of all models in a folder to their inputs by name, computed without this package."""
    environment = {**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", KERAS_ALONE], check=True, capture_output=True, cwd=folder, env=environment)
    return np.load(folder / "answers.npz")


def test_saved_models_open_with_keras_alone_and_give_equal_answers(trained):
    folder, expected = trained
    actual = answers_of_keras_alone(folder)
    assert set(actual.files) == set(expected)
    for name, (_, answers) in expected.items():
        if name == "text-generator/gpt":  # docs/python.md quotes this message
            assert "Could not locate class 'BigramEmbedding'" in str(actual[name])
            continue
        assert len(actual[name]) == ANSWERS
        np.testing.assert_allclose(actual[name], answers, **TOLERANCE, err_msg=name)


def test_run_model_has_one_tensor_in_and_one_out_and_gives_equal_answers(trained):
    folder, expected = trained
    for name, (inputs, answers) in expected.items():
        model = dltoolkit.load(str(folder / name)).model
        conditional = name in ("image-gan/dcgan", "image-gan/resnet")  # these also take class numbers
        assert isinstance(model.input, list) == conditional, name
        assert isinstance(model.output, keras.KerasTensor), name
        np.testing.assert_allclose(
            model(list(inputs) if conditional else inputs[0]), answers, **TOLERANCE, err_msg=name
        )


def test_conversion_shares_keras_layers_and_leaves_the_model_and_random_numbers_as_they_are():
    model = classifiers.build("resnet", (12, 12, 3), 3, widths=(4, 8, 8), dropout=0.1)
    names, state = [type(layer) for layer in model.layers], random.getstate()
    converted = portable.to_keras_layers(model)
    assert random.getstate() == state
    assert [type(layer) for layer in model.layers] == names
    assert converted.get_layer("logits") is model.get_layer("logits")
    assert converted.get_layer("stage1_norm") is not model.get_layer("stage1_norm")
    again = portable.to_keras_layers(converted)
    assert all(one is other for one, other in zip(again.layers, converted.layers, strict=True))
    assert surgery.without_head(classifiers.with_flip_tta(converted), "it").output.shape == (None, 8)


@pytest.mark.parametrize("dtype", portable.HALF_PRECISION)
def test_model_that_was_trained_in_half_precision_computes_in_float32(dtype):
    pixels = toy_images(4, side=12)[0]
    texts = random_texts(50)
    for build, inputs in (
        (lambda: classifiers.with_flip_tta(classifiers.build("vit", (12, 12, 3), 3, widths=(32,))), pixels),
        (lambda: text_classifiers.build("lstm", 50, 2, max_length=20, units=4), texts),
    ):
        expected = randomize(build())
        keras.config.set_dtype_policy(f"mixed_{dtype}")
        trained = build()
        trained.set_weights(expected.get_weights())
        converted = portable.to_keras_layers(trained)
        assert keras.config.dtype_policy().name == f"mixed_{dtype}"
        keras.config.set_dtype_policy("float32")
        np.testing.assert_allclose(converted(inputs), expected(inputs), **TOLERANCE)


def with_adapters(model: keras.Model) -> keras.Model:
    """Add the matrices of LoRA to a layer and to the layers within a composite layer."""
    for layer in (*keras_internals.all_layers(model.get_layer("block1_attention")), model.get_layer("block1_expand")):
        if hasattr(layer, "enable_lora"):
            layer.enable_lora(2)
    return model


def test_adapters_of_a_model_that_was_trained_in_half_precision_are_merged():
    expected = randomize(with_adapters(classifiers.build("vit", (12, 12, 3), 3, widths=(32,))))
    keras.config.set_dtype_policy("mixed_bfloat16")
    trained = with_adapters(classifiers.build("vit", (12, 12, 3), 3, widths=(32,)))
    trained.set_weights(expected.get_weights())
    converted = portable.to_keras_layers(trained)
    pixels = toy_images(4, side=12)[0]
    np.testing.assert_allclose(converted(pixels), expected(pixels), **TOLERANCE)


@pytest.mark.slow
def test_trained_models_open_with_keras_alone(tmp_path):
    options = {"out_dir": str(tmp_path), "epochs": 1, "limit": 100, "name": "a"}
    images = image_classifier.train(image_classifier.Config(tta=True, **options))
    texts = sentiment_analyzer.train(sentiment_analyzer.Config(**options))
    lora = {**options, "method": "lora", "tta": True, "backbone": str(images.path)}
    runs = {images: None, texts: None, fine_tune.train(fine_tune.Config(**lora)): None}
    pixels = image_classifier.build_data(images.config)
    token_ids = np.zeros((ANSWERS, 300), "int32")
    rows = sentiment_analyzer.build_data(texts.config).token_ids
    for row, text in enumerate(range(ANSWERS)):
        values = rows.take(np.array([text])).values[:300]
        token_ids[row, : len(values)] = values
    for run in runs:
        inputs = token_ids if run is texts else pixels.images[pixels.test[:ANSWERS]]
        np.savez(run.path / "inputs.npz", inputs)
        runs[run] = run.model(inputs)
    actual = answers_of_keras_alone(tmp_path)
    for run, answers in runs.items():
        np.testing.assert_allclose(actual[str(run.path.relative_to(tmp_path))], answers, **TOLERANCE)


def test_transformer_of_deberta_is_saved_and_loaded(tmp_path):
    hub = pytest.importorskip("keras_hub")
    sizes = {"vocabulary_size": 50, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    network = hub.models.DebertaV3Backbone(**sizes, max_sequence_length=16, bucket_size=4)
    network = keras.Model(network.input, network.output, name=network.name)
    model = text_backbones._pooled(network, 0, ["token_ids", "padding_mask"])
    tokens = np.array([[1, 2, 3, 0], [4, 5, 6, 7]])
    portable.to_keras_layers(model).save(tmp_path / "model.keras")
    np.testing.assert_allclose(model_file.load_model(tmp_path / "model.keras")(tokens), model(tokens), **TOLERANCE)
