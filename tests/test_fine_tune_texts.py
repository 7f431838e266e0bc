"""Fine-tuning on texts from end to end: a real small BERT, own earlier runs, real training."""

import json
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import BAD, GOOD, NEUTRAL, run_command, toy_texts, write_texts
from dltoolkit.recipes import fine_tune, sentiment_analyzer, text_generator
from test_training_fit import same_but_seconds, stopped_at, weights

import dltoolkit
from dltoolkit import evaluation
from dltoolkit.data.text.vocabulary import Corpus
from dltoolkit.errors import UserError
from dltoolkit.models import surgery
from dltoolkit.models.pretrained import text_backbones

keras_hub = pytest.importorskip("keras_hub")


@pytest.fixture(scope="module", autouse=True)
def briefly():
    """The network from scratch that stands beside each run is trained for a few steps only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.text_classification, "FROM_SCRATCH_STEPS", (40, 40))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    write_texts(path / "reviews", toy_texts(240))
    return path


LETTERS = [sign for letter in "abcdefghijklmnopqrstuvwxyz0123456789." for sign in (letter, f"##{letter}")]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *GOOD, *BAD, *NEUTRAL]


@pytest.fixture(scope="module")
def preset(folder):
    """A BERT of two small layers that has learned nothing, kept as KerasHub keeps its own."""
    keras.utils.set_random_seed(0)
    network = keras_hub.models.BertBackbone(
        len(VOCABULARY), num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=24
    )
    network.save_to_preset(str(folder / "bert"))
    keras_hub.models.BertTokenizer(vocabulary=VOCABULARY, lowercase=True).save_to_preset(str(folder / "bert"))
    return folder / "bert"


@pytest.fixture
def hugging_face(tmp_path):
    """A BERT of one small layer, kept as Hugging Face keeps its own."""
    numpy_files = pytest.importorskip("safetensors.numpy")
    dense = {"attention.self.query": (8, 8), "attention.self.key": (8, 8), "attention.self.value": (8, 8)}
    dense |= {"attention.output.dense": (8, 8), "intermediate.dense": (16, 8), "output.dense": (8, 16)}
    shapes = {f"encoder.layer.0.{name}.weight": shape for name, shape in dense.items()}
    shapes |= {f"encoder.layer.0.{name}.bias": shape[:1] for name, shape in dense.items()}
    norms = ("embeddings.", "encoder.layer.0.attention.output.", "encoder.layer.0.output.")
    shapes |= {f"{norm}LayerNorm.{part}": (8,) for norm in norms for part in ("weight", "bias")}
    tables = {"word": len(VOCABULARY), "position": 24, "token_type": 2}
    shapes |= {f"embeddings.{name}_embeddings.weight": (rows, 8) for name, rows in tables.items()}
    shapes |= {"pooler.dense.weight": (8, 8), "pooler.dense.bias": (8,)}
    random = np.random.default_rng(0)
    tensors = {name: random.normal(0, 0.5, shape).astype("float32") for name, shape in shapes.items()}
    folder = tmp_path / "hugging-face"
    folder.mkdir()
    numpy_files.save_file(tensors, folder / "model.safetensors")
    size = {"vocab_size": len(VOCABULARY), "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    size |= {"intermediate_size": 16, "max_position_embeddings": 24}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **size}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


@pytest.fixture(scope="module")
def config(folder, preset):
    return fine_tune.Config(
        data=str(folder / "reviews"),
        backbone=str(preset),
        epochs=8,
        token_dropout=0.05,
        batch_size=16,
        learning_rate=1e-2,
        layer_decay=1.0,
        unfreeze="all",
        out_dir=str(folder / "runs"),
    )


@pytest.fixture(scope="module")
def run(config):
    return fine_tune.train(replace(config, name="first"))


@pytest.fixture(scope="module")
def generator(folder):
    """A small text generator's run."""
    (folder / "prose.txt").write_text("\n".join(text for _, text in toy_texts(300)))
    return text_generator.train(
        text_generator.Config(
            ensemble_size=2,
            data=str(folder / "prose.txt"),
            layers=1,
            embedding_dim=16,
            context_length=16,
            batch_tokens=128,
            steps=20,
            sample_tokens=0,
            out_dir=str(folder / "runs"),
        )
    )


def test_a_run_is_trained_measured_and_described(run, config, capfd):
    assert run.metrics["test"]["accuracy"] > 0.8
    assert run.metrics["baseline"].keys() == {"majority", "linear", "probe", "scratch"}
    assert run.metrics["baseline"]["scratch"]["accuracy"] > 0.6
    assert run.evaluate() == run.metrics["test"]
    again = dltoolkit.load(run.path)
    others = toy_texts(60, seed=5)
    answers = again.predict([text for _, text in others])
    assert np.mean([answer.label == label for answer, (label, _) in zip(answers, others)]) > 0.8
    code, out, _ = run_command(capfd, "predict", str(run.path), "a lovely film 3.", "--format", "jsonl")
    assert (code, '"label"' in out) == (0, True)
    code, out, _ = run_command(capfd, "evaluate", str(run.path), "--data", config.data, "--format", "json")
    assert (code, '"accuracy"' in out) == (0, True)


def test_of_long_texts_the_middle_is_left_out(run):
    encode = fine_tune.saved_encoder(run)
    short, long = (Corpus([text]) for text in ("lovely soup", f"lovely {'town ' * 100} superb soup"))
    begin, end = encode(short).numbers[[0, -1]]
    found = encode(long).numbers
    assert len(found) == encode.longest == 24
    assert (found[0], found[1], found[-1]) == (begin, encode(short).numbers[1], end)
    assert found[-2] == encode(short).numbers[-2]


def test_padding_changes_nothing(run):
    alone = run.predict(["a lovely film 3."])[0]
    beside = run.predict(
        ["a lovely film 3.", "the room the town the price the hotel the waiter the ending the day 9."]
    )[0]
    assert alone.probability == pytest.approx(beside.probability, abs=1e-4)


def test_only_a_head(config):
    run = fine_tune.train(replace(config, method="linear-probe", name="head"))
    assert (run.info["kept"], run.history) == ("head", [])
    assert run.metrics["test"]["accuracy"] == pytest.approx(run.metrics["baseline"]["probe"]["accuracy"])


def test_low_rank_matrices_are_trained_beside_the_layers(config, run):
    low = fine_tune.train(replace(config, method="lora", rank=2, learning_rate=2e-2, epochs=4, name="lora"))
    trained, all_of_them = (one.info["model"]["trained"] for one in (low, run))
    assert trained < all_of_them / 5
    assert low.metrics["test"]["accuracy"] > low.metrics["baseline"]["probe"]["accuracy"] - 0.1
    assert low.evaluate() == low.metrics["test"], "what was added is part of the saved model"


def test_stopped_and_resumed_is_as_if_nothing_had_happened(config, run, monkeypatch):
    stopped_at(7, lambda: fine_tune.train(replace(config, name="stopped")), monkeypatch)
    resumed = dltoolkit.resume(dltoolkit.load("fine-tune/stopped", out_dir=config.out_dir))
    assert same_but_seconds(resumed) == same_but_seconds(run)
    for one, two in zip(weights(resumed), weights(run), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("family", ["cnn", "transformer"])
def test_an_earlier_classifier_of_texts_is_gone_on_with(config, folder, family):
    shared = {"data": str(folder / "reviews"), "epochs": 1, "batch_size": 16, "out_dir": str(folder / "runs")}
    before = sentiment_analyzer.train(sentiment_analyzer.Config(model=family, name=family, **shared))
    run = fine_tune.train(replace(config, backbone=str(before.path), name=f"from-{family}"))
    assert run.info["model"]["name"] == family
    assert run.metrics["test"]["accuracy"] > 0.6
    assert run.evaluate() == run.metrics["test"]


def test_a_text_generator_becomes_a_classifier(config, generator):
    run = fine_tune.train(replace(config, backbone=str(generator.path), unfreeze="1", name="from-gpt"))
    assert run.info["model"]["name"] == "gpt"
    assert run.evaluate() == run.metrics["test"]
    assert {answer.label for answer in run.predict(["the soup"])} <= {"good", "bad"}


def test_a_text_generator_goes_on_with_other_text(config, generator, folder):
    (folder / "other.txt").write_text("\n".join(text.upper().lower() for _, text in toy_texts(200, seed=3)))
    options = {"backbone": str(generator.path), "data": str(folder / "other.txt"), "epochs": 2}
    run = fine_tune.train(fine_tune.Config(task="generate", out_dir=config.out_dir, **options))
    assert run.info["recipe"] == "text-generator"
    assert {name: run.info["chosen"][name] for name in text_generator.SHAPE} == {
        name: generator.info["chosen"][name] for name in text_generator.SHAPE
    }
    assert run.history[0]["validation_loss"] < generator.history[0]["validation_loss"]
    assert isinstance(run.generate("the ", max_tokens=5), str)
    assert run.evaluate() == run.metrics["test"]


@pytest.fixture(scope="module")
def writer(folder):
    """A GPT-2 of two small layers that has learned nothing, with a token for each letter."""
    keras.utils.set_random_seed(0)
    pieces = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz0123456789.\u0120\u010a", "th", "the"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    network = keras_hub.models.GPT2Backbone(
        len(vocabulary), num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=16
    )
    network.save_to_preset(str(folder / "gpt2"))
    keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["t h", "th e"]).save_to_preset(str(folder / "gpt2"))
    return folder / "gpt2"


def test_a_decoder_of_kerashub_goes_on_with_other_text(config, writer, generator):
    options = {"backbone": str(writer), "data": generator.config.data, "epochs": 2, "learning_rate": 1e-2}
    run = fine_tune.train(fine_tune.Config(task="generate", out_dir=config.out_dir, batch_size=16, **options))
    assert run.config.batch_size == 16, "what both recipes know is handed on"
    assert {name: run.info["chosen"][name] for name in ("layers", "embedding_dim", "heads")} == {
        "layers": 2,
        "embedding_dim": 16,
        "heads": 2,
    }
    assert run.history[-1]["validation_loss"] < run.history[0]["validation_loss"]
    assert run.info["chosen"]["context_length"] == 16
    one, two = (
        run.generate(prompts, max_tokens=20, temperature=0) for prompts in (["the "], ["the ", "a much longer "])
    )
    assert two[0] == one[0], "a longer text beside it changes nothing"
    tokens = np.array([text_generator.saved_tokenizer(run).encode("the ")])
    first = int(np.argmax(run.model.predict(tokens, verbose=0)[0, -1]))
    assert one[0].startswith(text_generator.saved_tokenizer(run).decode([first]))
    assert run.evaluate() == run.metrics["test"]


def test_layers_are_frozen_from_below(preset, config):
    def trained(share):
        backbone, _ = text_backbones.from_preset(str(preset), 16)
        model = keras.Model(backbone.input, keras.layers.Dense(2, name="logits")(backbone.output))
        surgery.freeze_lower_layers(model, share)
        return [layer.name for layer in surgery.flatten_layers(model) if layer.trainable_weights]

    assert trained(0.0) == ["logits"]
    assert trained(0.4) == ["transformer_layer_1", "logits"]
    assert "transformer_layer_0" in trained(1.0) and "token_embedding" not in trained(1.0)
    assert "token_embedding" in trained(None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": None}, "holds texts: give --backbone a KerasHub preset"),
        ({"backbone": "MobileNetV2"}, "holds texts, which MobileNetV2 cannot read"),
        ({"data": "digits"}, "does not read images"),
        ({"unfreeze": "some"}, "--unfreeze must be a number from 0 to 1, or all, not 'some'"),
        ({"learning_curve": "5,many"}, "--learning-curve must be numbers of labels, or all"),
        ({"shots": 5000}, "--shots 5000: no class of .* has more than"),
        ({"task": "generate"}, "--task generate has no use for --unfreeze, --layer-decay, --token-dropout: leave"),
        ({"task": "generate", "backbone": None}, "--task generate goes on from a run of text-generator"),
    ],
)
def test_what_cannot_be_done_is_said(config, options, words):
    with pytest.raises(UserError, match=words):
        fine_tune.train(replace(config, name="refused", **options))
    with pytest.raises(UserError, match="no run"):
        dltoolkit.load("fine-tune/refused", out_dir=config.out_dir)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer.json", None, "has no tokenizer"),
        ("config.json", b"{", "damaged"),
        ("model.weights.h5", b"nothing", "damaged"),
    ],
)
def test_an_incomplete_preset_is_refused(config, preset, tmp_path, name, content, words):
    shutil.copytree(preset, tmp_path / "bert")
    (tmp_path / "bert" / name).unlink() if content is None else (tmp_path / "bert" / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        fine_tune.train(replace(config, backbone=str(tmp_path / "bert"), name="refused"))


def test_a_folder_of_hugging_face(hugging_face):
    backbone, encode = text_backbones.from_preset(str(hugging_face), 256)
    numbers = encode(Corpus(["Lovely soup"])).padded()
    assert [VOCABULARY[number - 1] for number in numbers[0]] == ["[CLS]", "lovely", "soup", "[SEP]"]
    assert backbone(numbers).shape == (1, 8)


def test_low_rank_matrices_on_two_replicas(preset, folder, tmp_path):
    """In a process of its own, which has two logical CPUs."""
    words = ["--data", folder / "reviews", "--backbone", preset, "--method", "lora", "--rank", 2, "--epochs", 1]
    words = ["train", "fine-tune", *words, "--batch-size", 16, "--device", "cpu:2", "--out-dir", tmp_path]
    done = subprocess.run([sys.executable, "-m", "dltoolkit", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = dltoolkit.runs(tmp_path)
    assert run.info["device"]["replicas"] == 2
    assert run.info["model"]["trained"] < run.info["model"]["parameters"] / 4


def test_tokenizers_without_what_they_need_are_said(config, preset, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(UserError, match="need tensorflow-text"):
        fine_tune.train(replace(config, backbone=str(preset), name="refused"))


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json", "model.safetensors"])
def test_a_folder_of_hugging_face_that_lacks_a_file_is_refused(config, hugging_face, name):
    (hugging_face / name).unlink()
    if name == "model.safetensors":  # a pickle in its place is not opened
        (hugging_face / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match=f"has no {name}"):
        fine_tune.train(replace(config, backbone=str(hugging_face), name="refused"))


def test_presets_that_cannot_be_fetched_are_said_soon(config):
    began = time.monotonic()
    with pytest.raises(UserError, match="not on this machine .* cannot be downloaded"):
        fine_tune.train(replace(config, backbone="hf://nobody/nothing-at-all", name="refused"))
    assert time.monotonic() - began < 30
