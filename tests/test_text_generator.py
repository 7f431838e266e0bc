"""The text generator from end to end: real files, the real command line, real training."""

import itertools
import json
import signal
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import run_command, silence, toy_texts
from dltoolkit.recipes import text_generator
from toy_training import equal

import dltoolkit
from dltoolkit import evaluation, interrupt, models
from dltoolkit.errors import UserError
from dltoolkit.report import page

TEXT = "the cat sat on the mat. the dog sat on the log.\n" * 120


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    (folder / "cats.txt").write_text(TEXT)
    return text_generator.Config(
        data=str(folder / "cats.txt"),
        layers=1,
        embedding_dim=32,
        context_length=16,
        batch_size=8,
        steps=80,
        sample_tokens=40,
        xla="off",
        out_dir=str(folder / "runs"),
    )


@pytest.fixture(scope="module")
def run(config):
    return text_generator.train(config)


@pytest.fixture
def quick(config, monkeypatch):
    """Return options of a short training without a report, which the shared run has."""
    monkeypatch.setattr(page, "write", lambda *args, **kwargs: None)
    return replace(config, steps=10, sample_tokens=0)


def test_train_writes_metrics_samples_and_report(run):
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "vocabulary.json"),
        *("plots", "checkpoint", "samples"),
    }
    info, test = run.info, run.metrics["test"]
    assert (info["recipe"], info["name"], info["state"]) == ("text-generator", "cats-1", "finished")
    assert info["plan"]["steps"] == 80
    assert info["resolved"]["context_length"] == 16
    assert test["loss"] < 1.5 < run.metrics["baseline"]["unigram"]["loss"]
    assert test["tokens"] == info["data"]["splits"]["test"] - 1
    assert run.metrics["baseline"].keys() == {"unigram", "5-gram", "gzip"}
    assert run.evaluate() == test
    samples = sorted((run.path / "samples").iterdir())
    assert len(samples) == len(run.history)
    assert len(samples[-1].read_text()) == 4 + 40 + 1
    html = (run.path / "report.html").read_text()
    assert all(words in html for words in ("Generated text", "Bits per character", "dltoolkit generate"))


def test_generate_depends_on_the_seed_alone(run):
    options = {"max_tokens": 60, "temperature": 2.0}
    text = run.generate("the ", seed=1, **options)
    assert len(text) == 60
    assert text == dltoolkit.load(run.path).generate("the ", seed=1, **options)
    assert text != run.generate("the ", seed=2, **options)
    assert "".join(piece for (piece,) in run.stream_text(["the "], seed=1, **options)) == text


def test_generate_writes_the_same_text_whatever_stands_beside_a_prompt(run):
    options = {"max_tokens": 40, "temperature": 1.5, "top_p": 0.95}
    alone = run.generate("the cat", **options)
    together = run.generate(["the dog sat on the log.", "the cat", "the cat"], **options)
    assert together[1] == alone
    assert together[2] != alone


def test_generate_never_writes_the_unknown_character(run):
    text = run.generate("the ", max_tokens=300, temperature=50.0)
    assert len(set(text)) == len(set(TEXT))  # at this temperature, every token is about equally probable
    assert "\ufffd" not in text


def test_generate_says_that_a_prompt_is_longer_than_the_context(run, capfd):
    code, out, err = run_command(capfd, "generate", str(run.path), "--prompt", TEXT[:30], "--max-tokens", "1")
    assert (code, len(out)) == (0, 32)
    assert err == "Warning: The prompt has 30 tokens; the model reads only the last 16 of them.\n"
    read = run.generate(TEXT[14:30], max_tokens=9, temperature=0)
    assert run.generate(TEXT[:30], max_tokens=9, temperature=0) == read


def test_generate_does_without_tensorflow(run):
    """Importing TensorFlow and compiling its functions takes longer than writing a page."""
    code = f"import sys, dltoolkit; dltoolkit.load({str(run.path)!r}).generate('the ', max_tokens=5)"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'tensorflow' not in sys.modules"], check=True)


def test_generate_continues_several_prompts_and_stops(run):
    several = run.generate(["the ", "a "], max_tokens=5, count=2)
    assert [len(text) for text in several] == [5] * 4
    greedy = {"max_tokens": 60, "temperature": 0}
    assert run.generate("the c", stop=" t", **greedy) == run.generate("the c", **greedy).partition(" t")[0]


def test_generate_from_the_command_line(run, capfd):
    options = [str(run.path), "--prompt", "the dog", "--max-tokens", "30", "--temperature", "0"]
    code, out, err = run_command(capfd, "generate", *options)
    assert (code, err) == (0, "")
    assert out == f"the dog{run.generate('the dog', max_tokens=30, temperature=0)}\n"
    code, out, _ = run_command(capfd, "generate", *options, "--prompt", "a", "--count", "2", "--format", "json")
    assert code == 0
    assert [entry["prompt"] for entry in json.loads(out)] == ["the dog"] * 2 + ["a"] * 2
    assert all(len(entry["text"]) == 30 for entry in json.loads(out))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "the §"], "'§', which the training text does not contain"),
        (["--temperature", "-1"], "--temperature must be 0"),
        (["--top-p", "1.5"], "--top-p must be above 0 and at most 1"),
        (["--top-p", "0"], "--top-p must be above 0 and at most 1"),
        (["--min-p", "1"], "--min-p must be at least 0 and below 1"),
        (["--top-k", "-2"], "--top-k must be 0 (all) or more"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1"),
        (["--repetition-penalty", "0"], "--repetition-penalty must be above 0"),
        (["--class", "dog"], "--class"),
    ],
)
def test_generate_refuses_wrong_options(run, capfd, options, message):
    code, out, err = run_command(capfd, "generate", str(run.path), *options)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert message in err


def test_predict_is_refused(run, capfd):
    code, out, err = run_command(capfd, "predict", str(run.path), "the ")
    assert (code, out) == (2, "")
    assert "dltoolkit generate" in err


def test_generate_drops_unknown_characters_if_asked(run):
    options = {"max_tokens": 10, "temperature": 0}
    assert run.generate("th§e ", unknown_chars="drop", **options) == run.generate("the ", **options)


def test_evaluate_scores_any_text(run, tmp_path, capfd):
    (tmp_path / "like.txt").write_text("the dog sat on the mat.\n" * 20)
    (tmp_path / "unlike.txt").write_text("§ tam eht no tas god eht" * 20)
    like = run.evaluate(str(tmp_path / "like.txt"))
    unlike = run.evaluate(str(tmp_path / "unlike.txt"))
    assert like["bits_per_character"] < unlike["bits_per_character"] / 2
    assert like["characters"] == 480
    assert "does not contain '§'" in capfd.readouterr().err
    code, out, err = run_command(
        capfd, "evaluate", str(run.path), "--data", str(tmp_path / "like.txt"), "--format", "json"
    )
    assert (code, json.loads(out)) == (0, like)
    assert err == f"Evaluating 480 characters: all of {tmp_path / 'like.txt'}.\n"
    (tmp_path / "like.txt").write_bytes(("the dog sat on the mat.\n" * 20).encode("utf-16-le"))
    assert run.evaluate(str(tmp_path / "like.txt"), encoding="utf-16-le") == like
    run.evaluate(run.config.data)
    assert "trained on" in capfd.readouterr().err
    (tmp_path / "one.txt").write_text("a")
    with pytest.raises(UserError, match="fewer than two tokens"):
        run.evaluate(str(tmp_path / "one.txt"))


def test_resume_ends_as_an_uninterrupted_run(quick, monkeypatch):
    config = replace(quick, steps=40)
    uninterrupted = text_generator.train(replace(config, name="uninterrupted"))
    calls = itertools.count()
    with monkeypatch.context() as patch:  # a signal in the middle of an epoch
        patch.setattr(interrupt, "pending", lambda: signal.SIGTERM if next(calls) >= 2 else None)
        with pytest.raises(interrupt.Interrupted):
            text_generator.train(replace(config, name="interrupted"))
    resumed = dltoolkit.resume(dltoolkit.load("interrupted", config.out_dir))
    assert equal(resumed, uninterrupted)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"model": "gru", "ensemble_size": 2, "tokenizer": "byte"}, marks=pytest.mark.slow),
        {"tokenizer": "bpe", "vocab_size": 300},
    ],
)
def test_train_supports_other_networks_and_tokenizers(quick, options):
    trained = text_generator.train(replace(quick, **options))
    uniform = np.log(trained.info["data"]["vocab_size"])
    assert 0 < trained.metrics["test"]["loss"] < uniform, "ten steps must beat a uniform distribution"
    assert isinstance(trained.generate("the ", max_tokens=9), str)
    assert trained.metrics["baseline"]["unigram"]["tokens"] == trained.metrics["test"]["tokens"]


def test_resolve_defaults_chooses_an_ensemble_for_a_short_text_and_much_time(config):
    def ensemble_size(tokens, **options):
        return text_generator.resolve_defaults(text_generator.Config(**options), tokens).ensemble_size

    assert [ensemble_size(10**6, max_time=seconds) for seconds in (None, 60.0, 600.0, 3600.0)] == [1, 1, 2, 5]
    assert ensemble_size(10**8, max_time=3600.0) == 1
    options = {"ensemble_size": 3, "context_length": 10, "batch_tokens": 100}
    odd = text_generator.resolve_defaults(text_generator.Config(**options), 10**6)
    assert (odd.batch_size, odd.embedding_dim) == (9, 128)
    with pytest.raises(UserError, match="too short for 30 models: use more text or a lower ensemble_size"):
        text_generator.train(replace(config, ensemble_size=30, context_length=300))


def test_train_without_a_test_split_reports_validation_and_continues_by_epochs(quick, tmp_path):
    (tmp_path / "some_cats.txt").write_text(TEXT[: len(TEXT) // 3])
    options = {"data": str(tmp_path / "some_cats.txt"), "validation_tail": 0.1, "steps": 14, "max_time": "1h"}
    trained = text_generator.train(replace(quick, **options))
    assert trained.history[-1]["step"] == trained.info["plan"]["steps"] == 14, "exactly, and before the time is planned"
    assert trained.metrics.keys() == {"validation", "baseline"}
    assert trained.evaluate() == trained.metrics["validation"]
    steps_per_epoch = trained.info["plan"]["steps_per_epoch"]
    longer = dltoolkit.resume(trained, epochs=2)
    assert [row["step"] for row in longer.history] == [steps_per_epoch, 2 * steps_per_epoch], "epochs keep their length"
    assert (longer.info["config"]["steps"], longer.info["config"]["epochs"]) == (None, 2)


def test_train_refuses_short_texts_and_leaves_no_run(config, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "void.txt").touch()
    for name, message in (("short.txt", "too few for a context length of 16"), ("void.txt", "no text")):
        with pytest.raises(UserError, match=message):
            text_generator.train(replace(config, data=str(tmp_path / name), out_dir=str(tmp_path / "runs")))
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.fixture
def other_text(tmp_path):
    """Return the options of a training on another text, for a network that --backbone names."""
    (tmp_path / "other.txt").write_text("\n".join(text for _, text in toy_texts(200, seed=3)))
    return text_generator.Config(data=str(tmp_path / "other.txt"), epochs=1, sample_tokens=0, xla="off")


def test_train_continues_from_a_run_and_loads_it_once(run, quick, other_text, monkeypatch):
    loaded, load_model = [], models.model_file.load_model
    monkeypatch.setattr(models.model_file, "load_model", lambda path: loaded.append(path) or load_model(path))
    fine_tuned = text_generator.train(replace(other_text, backbone=str(run.path), out_dir=quick.out_dir))
    assert loaded == [run.path / "model.keras"]
    sizes = [name for name in text_generator.RESOLVED if name != "batch_tokens"]
    assert {name: fine_tuned.info["resolved"][name] for name in sizes} == {
        name: run.info["resolved"][name] for name in sizes
    }
    assert fine_tuned.info["backbone_sha256"]
    assert fine_tuned.metrics["test"]["loss"] < run.evaluate(other_text.data)["loss"]
    assert isinstance(fine_tuned.generate("the ", max_tokens=5), str)
    assert fine_tuned.evaluate() == fine_tuned.metrics["test"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Return the folder of an untrained GPT-2 of one small layer with a token for each letter."""
    keras_hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    tokens = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz0123456789.\u0120\u010a", "th", "the"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    network = keras_hub.models.GPT2Backbone(
        len(vocabulary), num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=16
    )
    network.save_to_preset(str(folder))
    keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["t h", "th e"]).save_to_preset(str(folder))
    return folder


def test_train_continues_from_a_kerashub_preset(quick, other_text, gpt2):
    options = {"backbone": str(gpt2), "epochs": 2, "learning_rate": 1e-2, "batch_size": 16}
    run = text_generator.train(replace(other_text, out_dir=quick.out_dir, **options))
    sizes = {name: run.info["resolved"][name] for name in ("layers", "embedding_dim", "heads", "context_length")}
    assert sizes == {"layers": 1, "embedding_dim": 16, "heads": 2, "context_length": 16}
    assert run.history[-1]["validation_loss"] < run.history[0]["validation_loss"]
    (alone,) = run.generate(["the "], max_tokens=20, temperature=0)
    together = run.generate(["the ", "a much longer "], max_tokens=20, temperature=0)
    assert together[0] == alone, "a longer prompt in the batch changes nothing"
    tokenizer = evaluation.text_generation.load_tokenizer(run)
    logits = run.model.predict(np.array([tokenizer.encode("the ")]), verbose=0)[0, -1]
    assert alone.startswith(tokenizer.decode([int(np.argmax(logits))]))
    assert run.evaluate() == pytest.approx(run.metrics["test"], rel=1e-5)
    with pytest.raises(UserError, match="optimizer has no effect if the network is a KerasHub preset"):
        text_generator.train(replace(other_text, backbone=str(gpt2), optimizer="sgd"))


@pytest.mark.parametrize(
    "options",
    [
        {"model": "lstm"},
        {"layers": 2},
        {"embedding_dim": 64},
        {"heads": 2},
        {"ensemble_size": 2},
        {"dropout": 0.1},
        {"tokenizer": "byte"},
        {"tokenizer": "bpe", "vocab_size": 400},
    ],
)
def test_config_refuses_options_that_the_backbone_decides(options):
    with pytest.raises(UserError, match="has no effect with backbone"):
        text_generator.Config(backbone="anything", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 2, "model": "lstm"}, "heads has no effect with model='lstm'"),
        ({"vocab_size": 400}, "vocab_size has no effect with tokenizer='char'"),
        ({"batch_size": 8, "batch_tokens": 100}, "batch_tokens has no effect with batch_size"),
    ],
)
def test_config_refuses_options_that_the_mode_ignores(options, message):
    with pytest.raises(UserError, match=message):
        text_generator.Config(**options)


def test_train_refuses_options_that_a_run_decides(run, other_text):
    with pytest.raises(UserError, match="context_length has no effect if the network is a run"):
        text_generator.train(replace(other_text, backbone=str(run.path), context_length=8))
    with pytest.raises(UserError, match="steps has no effect with epochs"):
        text_generator.train(replace(other_text, steps=8))


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "There is no backbone 'nothing'"), ("MobileNetV2", "MobileNetV2 does not generate text")],
)
def test_train_refuses_a_backbone_that_generates_no_text(other_text, tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        text_generator.train(replace(other_text, backbone=name, out_dir=str(tmp_path)))
    assert not list(tmp_path.glob("text-generator/*"))


def test_load_evaluate_and_generate_print_no_warning(run, capfd):
    with silence(capfd):
        loaded = dltoolkit.load(str(run.path))
        loaded.evaluate()
        loaded.generate(["the "], max_tokens=2)
