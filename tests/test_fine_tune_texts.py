"""Fine-tuning on texts from end to end: a real small BERT, earlier runs, real training."""

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import BAD, GOOD, NEUTRAL, run_command, same_metrics, silence, toy_texts, write_texts
from dltoolkit.recipes import fine_tune, sentiment_analyzer, text_generator
from test_fine_tune import best_by_history, majority
from toy_runs import finished_run
from toy_training import equal, stop_at

import dltoolkit
from dltoolkit import evaluation, finetuning
from dltoolkit.data.language import tokenizers
from dltoolkit.data.text import encoders
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.data.text.words import TokenizedTexts, split_words
from dltoolkit.errors import UserError
from dltoolkit.finetuning import text_task
from dltoolkit.models import surgery
from dltoolkit.models.language import gpt
from dltoolkit.models.pretrained import text_backbones
from dltoolkit.models.text import classifiers
from dltoolkit.report import page
from dltoolkit.run import Run

keras_hub = pytest.importorskip("keras_hub")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts")
    write_texts(path / "reviews", toy_texts(240))
    return path


LETTERS = [piece for letter in "abcdefghijklmnopqrstuvwxyz0123456789." for piece in (letter, f"##{letter}")]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *GOOD, *BAD, *NEUTRAL]


def save_bert(folder: Path, layers: int) -> Path:
    """Write an untrained BERT of small layers in the layout of KerasHub, and return its folder."""
    keras.utils.set_random_seed(0)
    network = keras_hub.models.BertBackbone(
        len(VOCABULARY), num_layers=layers, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=24
    )
    network.save_to_preset(str(folder))
    keras_hub.models.BertTokenizer(vocabulary=VOCABULARY, lowercase=True).save_to_preset(str(folder))
    return folder


@pytest.fixture(scope="module")
def preset(folder):
    return save_bert(folder / "bert", layers=1)


@pytest.fixture
def hugging_face(tmp_path):
    """Return the folder of a BERT of one small layer in the layout of Hugging Face."""
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
        epochs=5,
        token_dropout=0.05,
        batch_size=16,
        learning_rate=1e-2,
        layer_decay=1.0,
        unfreeze="all",
        out_dir=str(folder / "runs"),
    )


@pytest.fixture(scope="module")
def run(config):
    """Return a run with everything that belongs to one, its report included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.text_classification, "FROM_SCRATCH_STEPS", (40, 40))
        return fine_tune.train(replace(config, name="first"))


@pytest.fixture(autouse=True)
def stub_baseline_and_report(run, monkeypatch):
    """Replace the network trained from scratch and the report, which the first run has, in all other runs."""
    monkeypatch.setattr(evaluation.text_classification, "from_scratch", majority)
    monkeypatch.setattr(page, "write", lambda *args, **kwargs: None)


def test_train_beats_the_baselines_and_predicts(run, config, capfd):
    assert run.metrics["test"]["accuracy"] > 0.8
    assert run.metrics["baseline"].keys() == {"majority", "linear", "linear_probe", "from_scratch"}
    assert run.metrics["baseline"]["from_scratch"]["accuracy"] > 0.6
    assert run.info["task"] == "text"
    lengths = np.array([len(text.split()) + 2 for _, text in toy_texts(240)])
    truncated = run.info["data"]["truncated"]
    assert truncated["max_length"] == 24 and truncated["unit"] == "tokens"
    assert truncated["count"] >= (lengths > 24).sum()
    assert (truncated["count"] > 0) == any("are longer than 24 tokens" in text for text in run.info["data"]["warnings"])
    assert run.info["selected"] == best_by_history(run)
    assert same_metrics(run.evaluate(), run.metrics["test"])
    reloaded, others = dltoolkit.load(run.path), toy_texts(60, seed=5)
    predictions = reloaded.predict([text for _, text in others])
    accuracy = np.mean([prediction.label == label for prediction, (label, _) in zip(predictions, others, strict=True)])
    assert accuracy > 0.8
    code, out, _ = run_command(capfd, "predict", str(run.path), "a lovely film 3.", "--format", "jsonl")
    assert (code, '"label"' in out) == (0, True)
    code, out, _ = run_command(capfd, "evaluate", str(run.path), "--data", config.data, "--format", "json")
    assert (code, '"accuracy"' in out) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "linear-probe", "lora"])
def test_every_method_answers_as_its_metrics_say(config, method):
    options = {"epochs": 1, "unfreeze": "all" if method == "full" else None}
    if method == "linear-probe":
        options = dict.fromkeys(("epochs", "batch_size", "learning_rate", "layer_decay", "unfreeze"))
        options["token_dropout"] = 0.15
    run = fine_tune.train(replace(config, method=method, name=f"answers-{method}", **options))
    assert same_metrics(run.evaluate(), run.metrics["test"])
    scores = [*({"accuracy": row["validation_accuracy"]} for row in run.history), run.info["linear_probe"]]
    best = max(row["accuracy"] for row in scores)
    assert run.metrics["validation"]["accuracy"] == pytest.approx(best, abs=1e-4)
    (run.path / "report.html").unlink(missing_ok=True)  # so that the run is evaluated again
    assert dltoolkit.resume(run).metrics == run.metrics


def test_encoder_leaves_out_the_middle_of_long_texts(run):
    encoder = text_task.load_encoder(run)
    short, long = (
        encoder(TokenizedTexts([text])).values for text in ("lovely soup", f"lovely {'town ' * 100} superb soup")
    )
    assert len(long) == encoder.max_length == 24
    assert (long[0], long[1], long[-1]) == (short[0], short[1], short[-1])
    assert long[-2] == short[-2]


def test_padding_changes_no_prediction(run):
    text = "a lovely film 3."
    (alone,) = run.predict([text])
    padded = run.predict([text, "the room the town the price the hotel the waiter the ending the day 9."])[0]
    assert alone.probability == pytest.approx(padded.probability, abs=1e-4)


def test_linear_probe_has_no_training_loop(config):
    options = {"epochs": None, "batch_size": None, "learning_rate": None, "layer_decay": None, "unfreeze": None}
    config = replace(config, method="linear-probe", token_dropout=0.15, **options)
    run = fine_tune.train(replace(config, name="probe"))
    assert (run.info["selected"], run.history) == ("linear_probe", [])
    assert "linear_probe" not in run.metrics["baseline"], "no comparison with itself"


def test_lora_trains_few_parameters_and_saves_them(config, run):
    lora = fine_tune.train(replace(config, method="lora", rank=2, unfreeze=None, epochs=1, name="lora"))
    trainable, all_parameters = (one.info["model"]["trainable_parameters"] for one in (lora, run))
    assert trainable < all_parameters / 5
    assert lora.info["selected"] == best_by_history(lora)
    assert same_metrics(lora.evaluate(), lora.metrics["test"])


def test_resume_ends_as_an_uninterrupted_run(config, run, monkeypatch):
    stop_at(7, lambda: fine_tune.train(replace(config, name="stopped")), monkeypatch)
    resumed = dltoolkit.resume(dltoolkit.load("fine-tune/stopped", out_dir=config.out_dir))
    assert equal(resumed, run)


def finished_analyzer(folder, name, family, words):
    """Return an untrained sentiment analyzer whose vocabulary is ``words``."""
    keras.utils.set_random_seed(0)
    vocabulary = Vocabulary(words)
    model = classifiers.build(family, len(vocabulary), 2, max_length=24, units=16)
    source = finished_run(sentiment_analyzer, folder / "runs", name, model)
    source.update(config={**source.info["config"], "model": family})
    source.write("vocabulary.txt", vocabulary.to_text())
    return source


@pytest.mark.parametrize("family", ["cnn", pytest.param("transformer", marks=pytest.mark.slow)])
def test_train_continues_from_a_sentiment_analyzer(config, folder, family):
    source = finished_analyzer(folder, family, family, [*GOOD, *BAD, *NEUTRAL])
    run = fine_tune.train(replace(config, backbone=str(source.path), epochs=12, name=f"from-{family}"))
    assert run.info["model"]["name"] == family
    assert run.metrics["test"]["accuracy"] > 0.6
    assert same_metrics(run.evaluate(), run.metrics["test"])


def test_train_refuses_a_backbone_that_knows_no_word_of_the_texts(config, folder):
    source = finished_analyzer(folder, "japanese", "cnn", ["猫", "犬"])
    with pytest.raises(UserError, match=r"japanese knows none of the words of the training texts, so all texts look"):
        fine_tune.train(replace(config, backbone=str(source.path), name="nothing-known"))


def test_words_that_the_backbone_does_not_know_are_said(config, folder, capfd):
    source = finished_analyzer(folder, "few-words", "cnn", ["the", "猫"])
    config = replace(config, backbone=str(source.path), name="few-known")
    task = finetuning.tasks.resolve(config).create()
    run, splits = Run.create(fine_tune.__file__, config, "reviews"), fine_tune.build_data(config)
    run.describe_data(splits.describe())
    task.build_features(config, splits)
    task.save_encoder(run, splits)
    words = [word for row in splits.train for word in split_words(splits.texts[row])]
    share = 1 - words.count("the") / len(words)
    assert 0.5 < share < 1
    assert run.info["data"]["unknown"]["fraction"] == pytest.approx(share)
    message = f"few-words does not know {100 * share:.1f} % of the words of the training texts"
    assert message in run.info["data"]["warnings"][-1]
    assert message in " ".join(capfd.readouterr().err.split())


def test_train_refuses_a_run_of_ngrams_before_the_data_are_read(config, folder):
    source = Run.create(sentiment_analyzer.__file__, sentiment_analyzer.Config(out_dir=str(folder / "runs")), "grams")
    source.update(state="finished", config={**source.info["config"], "model": "ngram"})
    with pytest.raises(UserError, match="is a run of model='ngram', which cannot be a backbone .* model='cnn', lstm"):
        finetuning.tasks.resolve(replace(config, backbone=str(source.path)))
    source.update(model={"input_shape": [8, 8, 1]})
    with pytest.raises(UserError, match="which does not read texts"):
        finetuning.tasks.resolve(replace(config, backbone=str(source.path)))


def test_train_turns_a_text_generator_into_a_classifier(config, folder):
    keras.utils.set_random_seed(0)
    tokenizer = tokenizers.CharTokenizer("abcdefghijklmnopqrstuvwxyz 0123456789.")
    model = gpt.build("gpt", tokenizer.vocab_size, layers=1, embedding_dim=16, heads=2, ensemble_size=2)
    source = finished_run(text_generator, folder / "runs", "letters", model)
    source.write_json("vocabulary.json", tokenizer.to_json())
    run = fine_tune.train(replace(config, backbone=str(source.path), unfreeze="1", epochs=1, name="from-gpt"))
    assert run.info["model"]["name"] == "gpt"
    assert same_metrics(run.evaluate(), run.metrics["test"])
    assert {prediction.label for prediction in run.predict(["the soup"])} <= {"good", "bad"}


def test_freeze_lower_layers_keeps_the_upper_layers_of_bert_trainable(tmp_path):
    folder = save_bert(tmp_path, layers=2)

    def trainable(fraction):
        backbone, _ = text_backbones.from_preset(str(folder), 16)
        model = keras.Model(backbone.input, keras.layers.Dense(2, name="logits")(backbone.output))
        surgery.freeze_lower_layers(model, fraction)
        return [layer.name for layer in surgery.flatten_layers(model) if layer.trainable_weights]

    assert trainable(0.0) == ["logits"]
    assert trainable(0.4) == ["transformer_layer_1", "logits"]
    assert "transformer_layer_0" in trainable(1.0) and "token_embedding" not in trainable(1.0)
    assert "token_embedding" in trainable(None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": None}, "holds texts: give backbone a KerasHub preset"),
        ({"backbone": "MobileNetV2"}, "holds texts, which MobileNetV2 cannot read"),
        ({"data": "digits", "token_dropout": 0.15}, "does not read images"),
        ({"unfreeze": "some"}, "unfreeze must be a number from 0 to 1, or all, not 'some'"),
        ({"learning_curve": "5,many"}, "learning_curve must be numbers of labels per class or all"),
        ({"shots": 5000}, "shots 5000"),
        ({"augment_copies": 5}, "augment_copies has no effect on text data"),
        ({"augment": False}, "augment=False has no effect on text data"),
        ({"image_size": 32}, "image_size has no effect on text data"),
        ({"flip": True}, "flip has no effect on text data"),
        ({"tta": True}, "tta has no effect on text data"),
        ({"method": "lora"}, "unfreeze has no effect on texts with method='lora'"),
    ],
)
def test_train_refuses_a_wrong_backbone_or_option(config, options, message):
    with pytest.raises(UserError, match=message):
        fine_tune.train(replace(config, name="refused", **options))
    with pytest.raises(UserError, match="no run"):
        dltoolkit.load("fine-tune/refused", out_dir=config.out_dir)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer"),
        ("config.json", b"{", "damaged"),
        ("model.weights.h5", b"nothing", "damaged"),
    ],
)
def test_train_refuses_an_incomplete_preset(config, preset, tmp_path, name, content, message):
    shutil.copytree(preset, tmp_path / "bert")
    (tmp_path / "bert" / name).unlink() if content is None else (tmp_path / "bert" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        fine_tune.train(replace(config, backbone=str(tmp_path / "bert"), name="refused"))


def test_from_preset_reads_a_folder_of_hugging_face(hugging_face):
    backbone, encoder = text_backbones.from_preset(str(hugging_face), 256)
    token_ids = encoder(TokenizedTexts(["Lovely soup"])).to_padded()
    assert [VOCABULARY[token_id - 1] for token_id in token_ids[0]] == ["[CLS]", "lovely", "soup", "[SEP]"]
    assert backbone(token_ids).shape == (1, 8)


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"do_lower_case": True}, ["lovely"]),
        ({"do_lower_case": True, "strip_accents": None}, ["lovely"]),
        ({"do_lower_case": True, "strip_accents": False}, ["[UNK]"]),
        ({"do_lower_case": False}, ["[UNK]"]),
        ({"do_lower_case": False, "strip_accents": True}, ["[UNK]"]),  # because of the capital
        ({"do_lower_case": True, "model_max_length": 3}, ["lovely"]),
    ],
)
def test_from_preset_honors_the_tokenizer_settings_of_hugging_face(hugging_face, tmp_path, settings, tokens):
    (hugging_face / "tokenizer_config.json").write_text(json.dumps(settings))
    _, encoder = text_backbones.from_preset(str(hugging_face), 256)
    assert encoder.max_length == settings.get("model_max_length", 24)
    encoder.save(tmp_path)
    for each in (encoder, encoders.load(tmp_path, encoder.max_length)):
        token_ids = each(TokenizedTexts(["Lovèlý", "film"]))
        assert [VOCABULARY[token_id - 1] for token_id in token_ids.to_padded()[0] if token_id] == [
            *("[CLS]", *tokens, "[SEP]")
        ]
        is_known = evaluation.text_predictor.is_known(token_ids.to_padded(), each)
        assert is_known.tolist() == [tokens != ["[UNK]"], True]


def test_texts_are_normalized_for_tokenizers_that_cannot(preset):
    """ALBERT's tokenizer has no option for it; its settings of Hugging Face ask for lower case without accents."""
    tokenizer = text_backbones.from_preset(str(preset), 24).encoder.tokenizer
    del tokenizer.strip_accents
    assert text_backbones._apply_settings(tokenizer, {"do_lower_case": True}) == (True, True)
    assert text_backbones._apply_settings(tokenizer, {"do_lower_case": True, "keep_accents": True}) == (True, False)
    assert encoders._normalize("Lovèlý", True, True) == "lovely"


@pytest.mark.slow
def test_lora_trains_on_two_replicas(preset, folder, tmp_path):
    """Logical CPUs must be set before TensorFlow starts, so the training runs in another process."""
    options = ["--data", folder / "reviews", "--backbone", preset, "--method", "lora", "--rank", 2, "--epochs", 1]
    words = ["train", "fine-tune", *options, "--batch-size", 16, "--device", "cpu:2", "--out-dir", tmp_path]
    done = subprocess.run([sys.executable, "-m", "dltoolkit", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = dltoolkit.runs(tmp_path)
    assert run.info["device"]["replicas"] == 2
    assert run.info["model"]["trainable_parameters"] < run.info["model"]["parameters"] / 4


def test_train_names_the_package_that_tokenizers_need(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(UserError, match="need tensorflow-text"):
        fine_tune.train(replace(config, name="refused"))


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer_config.json", "model.safetensors"])
def test_train_refuses_an_incomplete_folder_of_hugging_face(config, hugging_face, name):
    (hugging_face / name).unlink()
    if name == "model.safetensors":  # a pickle in its place is not opened
        (hugging_face / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(UserError, match=f"has no {name}"):
        fine_tune.train(replace(config, backbone=str(hugging_face), name="refused"))


def test_load_evaluate_and_predict_print_no_warning(run, capfd):
    with silence(capfd):
        loaded = dltoolkit.load(str(run.path))
        loaded.evaluate()
        loaded.predict("a lovely film")
