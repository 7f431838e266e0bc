"""Exports of every kind of run from end to end: networks that are fine-tuned, texts, language models, generators."""

import csv
import functools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import test_export_keras_hub
from conftest import run_command, toy_images, toy_texts, write_images, write_texts
from dltoolkit.recipes import fine_tune, image_classifier, image_gan, sentiment_analyzer, text_generator
from test_export import RUN_EXAMPLE, run_python
from test_export_example import run_example
from toy_runs import finished_run, randomize

import dltoolkit
from dltoolkit import finetuning
from dltoolkit.data.language import tokenizers
from dltoolkit.data.text import encoders
from dltoolkit.export import speed
from dltoolkit.models import portable
from dltoolkit.models.gan import networks
from dltoolkit.models.image import classifiers
from dltoolkit.models.language import gpt
from dltoolkit.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def skip_speed(monkeypatch):
    """Leave out the measurement of the speed, which takes seconds."""
    monkeypatch.setattr(speed, "measure", lambda path: {})


def test_classifier_of_texts_answers_as_its_run_does(tmp_path, capfd):
    texts = [("bad", "dull and long"), ("good", "a moving, wonderful film"), *toy_texts(40)]
    config = sentiment_analyzer.Config(data=str(write_texts(tmp_path / "reviews", texts)), out_dir=str(tmp_path))
    data = sentiment_analyzer.build_data(config)
    model = randomize(sentiment_analyzer.build_model(config, data))
    run = untrained_run(sentiment_analyzer, config, model, data)
    data.encoder.save(run.path)
    path = run.export("onnx")
    texts = ["a moving, wonderful film", "zzzq", "dull <b>and</b> long"]
    labels = [[each.label for each in answering.predict(texts)] for answering in (run, dltoolkit.load(path))]
    assert labels[0] == labels[1]
    _, expected, _ = run_command(capfd, "predict", str(path), "--text", *texts, "--format", "csv")
    assert run_python(RUN_EXAMPLE, *texts, cwd=path, blocked=("tensorflow", "keras", "dltoolkit")) == expected
    for method in ("n-grams", "leave-one-out"):
        code = (
            "import dltoolkit, json, sys\n"
            f"print(json.dumps(dltoolkit.load(sys.argv[1]).explain(sys.argv[2], method={method!r}).words))"
        )
        words = json.loads(run_python(code, path, texts[2], cwd=path, blocked=("tensorflow", "keras")))
        assert [word["text"] for word in words] == ["dull", "and", "long"]
        expected_values = run.explain(texts[2], method=method).values
        np.testing.assert_allclose([word["value"] for word in words], expected_values, atol=2e-4)


def untrained_run(recipe, config, model: keras.Model, data, **info) -> Run:
    """Return a finished run of a recipe without training.

    Args:
        recipe: The recipe's module.
        config: Its options.
        model: The model.
        data: The data that the recipe has read.
        info: Further entries of run.json.
    """
    run = Run.create(recipe.__file__, config, "it")
    run.describe_data(data.describe())
    run.save_model(model)
    run.update(state="finished", **info)
    return run


def test_generator_of_images_answers_as_its_run_does(tmp_path):
    x, y = toy_images(12, side=8)
    np.savez(tmp_path / "toys.npz", x=x, y=y)
    config = image_gan.Config(data=str(tmp_path / "toys.npz"), out_dir=str(tmp_path))
    generator = portable.to_keras_layers(randomize(networks.build_generator("dcgan", (8, 8, 3), 3, width=8)))
    run = untrained_run(image_gan, config, generator, image_gan.build_data(config), conditional=True)
    path = run.export("litert")
    expected = run.generate(count=5, seed=3).astype(int)
    assert np.abs(dltoolkit.load(path).generate(count=5, seed=3) - expected).max() <= 1
    blocked = ("tensorflow", "keras", "dltoolkit", "scipy")
    run_python(RUN_EXAMPLE, 3, tmp_path / "images", cwd=path, blocked=blocked)
    assert len(list((tmp_path / "images").iterdir())) == 3


@pytest.mark.parametrize(("source", "runtime"), [("characters", "litert"), ("gpt2", "onnx"), ("albert", "onnx")])
def test_language_model_writes_the_text_of_its_run(source, runtime, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cat sat on the mat and the dog sat on the log. " * 20)
    config, tokenizer = text_generator.Config(data=str(corpus), out_dir=str(tmp_path)), None
    if source == "gpt2":
        hub = test_export_keras_hub.hub.models
        preset = save_preset(tmp_path / "gpt2", hub.GPT2Backbone, test_export_keras_hub.gpt2())
        model, tokenizer, _ = finetuning.backbone.resolve(preset).language_model(24)
    elif source == "albert":  # SentencePiece
        tokenizer = tokenizers.KerasHubTokenizer(test_export_keras_hub.albert())
    data = text_generator.build_data(config, tokenizer)
    if source != "gpt2":
        model = gpt.build("gpt", data.tokenizer.vocab_size, layers=1, embedding_dim=16, heads=2)
    model = randomize(model, scale=0.3)
    run = untrained_run(text_generator, config, model, data, resolved={"context_length": 24})
    encoders.TokenEncoder(data.tokenizer, 0).save(run.path)
    path = run.export(runtime)
    prompts = ["the ", "the cat sat on the mat and"]
    expected = run.generate(prompts, max_tokens=30, seed=1)
    assert dltoolkit.load(path).generate(prompts, max_tokens=30, seed=1) == expected
    explained = [opened.explain(prompts[1]).details["bits"] for opened in (run, dltoolkit.load(path))]
    assert explained[1] == pytest.approx(explained[0], abs=0.01)
    text = run.generate("the ", max_tokens=30)
    blocked = ("tensorflow", "keras", "keras_hub", "dltoolkit")
    assert run_python(RUN_EXAMPLE, "the ", 30, cwd=path, blocked=blocked) == f"the {text}\n"
    assert len((path / "example.py").read_text().splitlines()) <= 60


def fine_tuned(out_dir: Path, name: str, **options) -> Run:
    """Return a finished fine-tuning run with the network and the encoder of one, but without training."""
    config = fine_tune.Config(out_dir=str(out_dir), name=name, **options)
    spec = finetuning.tasks.resolve(config)
    splits, task = spec.load_data(config), spec.create()
    model = randomize(fine_tune.build_model(fine_tune.resolve_defaults(config, task), splits, task), scale=0.02)
    if config.method == "lora":
        finetuning.lora.add_lora(model, 2)
        randomize(model, scale=0.05)
    model = classifiers.with_flip_tta(model) if config.tta else model
    run = untrained_run(fine_tune, config, model, splits, task=task.name)
    task.save_encoder(run, splits)
    return run


def save_preset(folder: Path, make_network, tokenizer) -> str:
    """Write an untrained network of KerasHub with its tokenizer, and return the folder."""
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 24}
    make_network(tokenizer.vocabulary_size(), **sizes).save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))
    return str(folder)


def nested_model(path: Path) -> str:
    """Write a .keras file with a Sequential model, convolutions in groups, and a Normalization layer.

    Keras lets XLA compile convolutions in groups, and the mean of the normalization is no variable.
    """
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Input((16, 16, 8)), layers.Conv2D(8, 3, groups=4, activation="gelu"), layers.Flatten()]
    )
    pixels = layers.Input((16, 16, 3))
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[900.0] * 3)(pixels)
    x = inner(layers.Conv2D(8, 3, padding="same", activation="swish")(x))
    keras.Model(pixels, layers.Dense(4, activation="softmax")(x)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def fine_tuned_run(tmp_path_factory):
    """A function that returns the run that was fine-tuned from a kind of backbone."""
    root = tmp_path_factory.mktemp("backbones")
    images = {"data": str(write_images(root / "toys", 12, side=16))}
    texts = {"data": str(write_texts(root / "reviews", toy_texts(60)))}
    cnn = classifiers.build("cnn", (16, 16, 3), 2, widths=(8, 8))
    run = finished_run(image_classifier, root / "runs", "cnn", cnn)
    writer = finished_run(
        text_generator, root / "runs", "gpt", randomize(gpt.build("gpt", 256, layers=1, embedding_dim=16, heads=2))
    )
    encoders.TokenEncoder(tokenizers.BPETokenizer.train(["a lovely film " * 9], 256), 0).save(writer.path)
    bert = save_preset(
        root / "bert", test_export_keras_hub.hub.models.BertBackbone, test_export_keras_hub.word_pieces(lowercase=True)
    )
    options = {
        "images": {**images, "backbone": str(run.path), "tta": True, "method": "lora"},
        "nested": {**images, "backbone": nested_model(root / "nested.keras")},
        "bert": {**texts, "backbone": bert, "method": "lora"},
        "generator": {**texts, "backbone": str(writer.path)},
    }
    return functools.cache(lambda name: fine_tuned(root / "runs", name, **options[name]))


@pytest.mark.parametrize(
    ("name", "runtime"),
    [("images", "litert"), ("nested", "onnx"), ("bert", "onnx"), ("bert", "litert"), ("generator", "litert")],
)
def test_fine_tuned_networks_answer_as_their_runs_do(fine_tuned_run, name, runtime, capfd):
    run = fine_tuned_run(name)
    path = run.export(runtime)
    info = json.loads((path / "export.json").read_text())
    assert info["passed"] and info["parity"]["max_difference"] < 1e-4
    if run.info["task"] == "image":
        inputs, flag = [str(next(Path(run.config.data).rglob("*.png")))], "--files"
    else:
        inputs, flag = ["a lovely <b>film</b>, the dog's Café 123", "☃", "the ending was dreadful " * 9], "--text"
    expected = run.predict_proba(inputs)
    np.testing.assert_allclose(dltoolkit.load(path).predict_proba(inputs), expected, atol=1e-4)
    if run.info["task"] == "text" and f"{name} {runtime}" != "bert litert":  # one runtime suffices
        explained = [opened.explain(inputs, method="leave-one-out") for opened in (run, dltoolkit.load(path))]
        for of_run, of_export in zip(*explained, strict=True):
            assert [word["text"] for word in of_run.words] == [word["text"] for word in of_export.words]
            if of_run.top:
                np.testing.assert_allclose(of_export.values, of_run.values, atol=1e-3)
    code, out, _ = run_command(capfd, "predict", str(path), flag, *inputs, "--format", "csv")
    assert code == 0
    blocked = ("tensorflow", "keras", "keras_hub", "dltoolkit", "scipy")
    assert run_python(RUN_EXAMPLE, *inputs, cwd=path, blocked=blocked) == out
    assert len((path / "example.py").read_text().splitlines()) <= 60


def test_example_of_a_savedmodel_prints_what_its_run_answers(fine_tuned_run, monkeypatch, capsys):
    run = fine_tuned_run("bert")
    path = run.export("savedmodel")
    info = json.loads((path / "export.json").read_text())
    assert info["passed"] and info["parity"]["label_agreement"] == 1
    texts = ["a lovely <b>film</b>, the dog's Café 123", "the ending was dreadful " * 9]
    lines = run_example(path, monkeypatch, capsys, *texts).splitlines()
    probabilities = [float(row["probability"]) for row in csv.DictReader(lines)]
    np.testing.assert_allclose(probabilities, run.predict_proba(texts).max(axis=1), atol=1e-4)
