"""The text generator from end to end: real files, the real command line, real training."""

import itertools
import json
import signal
from dataclasses import replace

import pytest
from conftest import run_command
from dltoolkit.recipes import text_generator
from test_training_fit import same_but_seconds, weights

import dltoolkit
from dltoolkit import interrupt
from dltoolkit.errors import UserError

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
        out_dir=str(folder / "runs"),
    )


@pytest.fixture(scope="module")
def run(config):
    return text_generator.train(config)


def test_a_run_is_trained_measured_and_described(run, config):
    assert {path.name for path in run.path.iterdir()} - {"tensorboard"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "vocabulary.json"),
        *("plots", "checkpoint", "samples"),
    }
    info, test = run.info, run.metrics["test"]
    assert (info["recipe"], info["name"], info["state"]) == ("text-generator", "cats-1", "finished")
    assert info["plan"]["steps"] == 80
    assert info["chosen"]["context_length"] == 16
    assert test["loss"] < 1.5 < run.metrics["baseline"]["unigram"]["loss"]
    assert test["tokens"] == info["data"]["splits"]["test"] - 1
    assert run.metrics["baseline"].keys() == {"unigram", "5-gram", "gzip"}
    assert run.evaluate() == test
    samples = sorted((run.path / "samples").iterdir())
    assert len(samples) == len(run.history)
    assert len(samples[-1].read_text()) == 4 + 40 + 1
    page = (run.path / "report.html").read_text()
    for words in ("Generated text", "Bits per character", "dltoolkit generate"):
        assert words in page


def test_generate_from_python(run):
    text = run.generate("the ", max_tokens=60, seed=1)
    assert len(text) == 60
    assert text == dltoolkit.load(run.path).generate("the ", max_tokens=60, seed=1)
    freely = [run.generate("the ", max_tokens=60, seed=seed, temperature=2.0) for seed in (1, 2)]
    assert freely[0] != freely[1]
    assert "".join(piece for (piece,) in run.stream(["the "], max_tokens=60, seed=1)) == text
    several = run.generate(["the ", "a "], max_tokens=5, count=2)
    assert [len(one) for one in several] == [5] * 4
    greedy = {"max_tokens": 100, "temperature": 0}
    assert run.generate("the c", stop=" t", **greedy) == run.generate("the c", **greedy).partition(" t")[0]


def test_generate_from_the_command_line(run, capfd):
    options = [str(run.path), "--prompt", "the dog", "--max-tokens", "30", "--temperature", "0"]
    code, out, err = run_command(capfd, "generate", *options)
    assert (code, err) == (0, "")
    assert out == f"the dog{run.generate('the dog', max_tokens=30, temperature=0)}\n"
    code, out, _ = run_command(capfd, "generate", *options, "--prompt", "a", "--count", "2", "--format", "json")
    assert code == 0
    assert [one["prompt"] for one in json.loads(out)] == ["the dog"] * 2 + ["a"] * 2
    assert all(len(one["text"]) == 30 for one in json.loads(out))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "the §"], "'§', which training never saw"),
        (["--temperature", "-1"], "--temperature must be 0"),
        (["--top-p", "1.5"], "--top-p must be above 0 and at most 1"),
        (["--top-p", "0"], "--top-p"),
        (["--min-p", "1"], "--min-p"),
        (["--top-k", "-2"], "--top-k"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--repetition-penalty", "0"], "--repetition-penalty"),
        (["--class", "dog"], "--class has no effect on a run of text-generator"),
    ],
)
def test_what_cannot_be_generated_is_named(run, capfd, options, words):
    code, out, err = run_command(capfd, "generate", str(run.path), *options)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert words in err


def test_other_verbs_are_refused(run, capfd):
    code, out, err = run_command(capfd, "predict", str(run.path), "the ")
    assert (code, out) == (2, "")
    assert "use 'dltoolkit generate'" in err


def test_unknown_characters_can_be_dropped(run):
    same = {"max_tokens": 10, "temperature": 0}
    assert run.generate("th§e ", unknown_chars="drop", **same) == run.generate("the ", **same)


def test_any_text_is_scored(run, tmp_path, capfd):
    (tmp_path / "like.txt").write_text("the dog sat on the mat.\n" * 20)
    (tmp_path / "unlike.txt").write_text("§ tam eht no tas god eht" * 20)
    like = run.evaluate(str(tmp_path / "like.txt"))
    unlike = run.evaluate(str(tmp_path / "unlike.txt"))
    assert like["bits_per_character"] < unlike["bits_per_character"] / 2
    assert like["characters"] == 480
    assert "never saw '§'" in capfd.readouterr().err
    code, out, _ = run_command(capfd, "evaluate", str(run.path), "--data", str(tmp_path / "like.txt"), "--format", "json")
    assert code == 0
    assert json.loads(out) == like
    run.evaluate(run.config.data)
    assert "was trained on these data" in capfd.readouterr().err
    (tmp_path / "one.txt").write_text("a")
    with pytest.raises(UserError, match="at least two"):
        run.evaluate(str(tmp_path / "one.txt"))


def test_stopped_and_resumed_is_as_if_nothing_had_happened(config, monkeypatch):
    config = replace(config, xla="off", sample_tokens=0)
    whole = text_generator.train(replace(config, name="whole"))
    calls = itertools.count()
    with monkeypatch.context() as patch:  # a signal that comes in the midst of an epoch
        patch.setattr(interrupt, "pending", lambda: signal.SIGTERM if next(calls) >= 2 else None)
        with pytest.raises(interrupt.Interrupted):
            text_generator.train(replace(config, name="cut"))
    cut = dltoolkit.load("cut", config.out_dir)
    resumed = dltoolkit.resume(cut)
    assert same_but_seconds(resumed) == same_but_seconds(whole)
    assert all((a == b).all() for a, b in zip(weights(resumed), weights(whole), strict=True))


@pytest.mark.parametrize(
    "options", [{"model": "gru", "ensemble_size": 2}, {"tokenizer": "byte"}, {"tokenizer": "bpe", "vocab_size": 300}]
)
def test_other_networks_and_tokens(config, options):
    trained = text_generator.train(replace(config, steps=10, xla="off", sample_tokens=0, **options))
    assert trained.metrics["test"]["bits_per_character"] > 0
    assert isinstance(trained.generate("the ", max_tokens=9), str)
    assert trained.metrics["baseline"]["unigram"]["tokens"] == trained.metrics["test"]["tokens"]


def test_little_text_and_much_time_make_several_networks(config):
    def ensemble_size(tokens, **options):
        return text_generator.suited(text_generator.Config(**options), tokens).ensemble_size

    assert [ensemble_size(10**6, max_time=seconds) for seconds in (None, 60.0, 600.0, 3600.0)] == [1, 1, 2, 5]
    assert ensemble_size(10**8, max_time=3600.0) == 1
    odd = text_generator.suited(text_generator.Config(ensemble_size=3, context_length=10, batch_tokens=100), 10**6)
    assert (odd.batch_size, odd.embedding_dim) == (9, 128)
    with pytest.raises(UserError, match="too short for 30 networks; give more text, or fewer --ensemble-size"):
        text_generator.train(replace(config, ensemble_size=30, context_length=300))


def test_without_a_test_part(config, capfd):
    trained = text_generator.train(replace(config, steps=10, xla="off", sample_tokens=0, validation_tail=0.1))
    assert trained.metrics.keys() == {"validation", "baseline"}
    assert trained.evaluate() == trained.metrics["validation"]
    assert "Bits per character" in (trained.path / "report.html").read_text()


def test_texts_that_will_not_do_leave_no_run(config, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "void.txt").touch()
    for name, words in (("short.txt", "too few for a context length of 16"), ("void.txt", "no text")):
        with pytest.raises(UserError, match=words):
            text_generator.train(replace(config, data=str(tmp_path / name), out_dir=str(tmp_path / "runs")))
    assert not list((tmp_path / "runs").glob("*/*"))
