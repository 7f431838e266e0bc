"""Explanations of language models: surprisal, alternatives, and the words that a token rests on."""

import json
import math

import keras
import numpy as np
import pytest
import toy_language_models
from conftest import run_command
from dltoolkit.recipes import image_gan, text_generator
from scipy.special import logsumexp
from toy_runs import finished_run

from dltoolkit.data.language.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer
from dltoolkit.errors import UserError
from dltoolkit.explanation import explaining, language_reading
from dltoolkit.models.gan import networks
from dltoolkit.models.language import decoders

LETTERS = " abcdefgh\n"  # with the unknown character, as many as the toy models have tokens
CONTEXT = 8
TEXT = "abc de fgh abc\nha bad egg, feed a cab"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Make a run of a small GPT with random weights."""
    model = toy_language_models.build_model("gpt")
    made = finished_run(
        text_generator, tmp_path_factory.mktemp("runs"), "toy", model, resolved={"context_length": CONTEXT}
    )
    made.write_json("vocabulary.json", CharTokenizer(LETTERS).to_json())
    return made


class BeforeLast:
    """A model that expects the token before the last one again, and nothing else."""

    vocab_size = 11
    sure = 20.0

    def new_state(self, rows, window):
        return []

    def read(self, tokens):
        logits = np.zeros((len(tokens), self.vocab_size), np.float32)
        logits[np.arange(1, len(tokens)), tokens[:-1]] = self.sure
        return logits

    def prefill(self, state, row, tokens):
        return self.read(tokens)[-1]


def test_read_gives_the_logits_of_every_position(run):
    tokens = toy_language_models.random_tokens(1, 7)[0]
    decoder, state = run.decoder(), run.decoder().new_state(1, 7)
    logits = [decoder.prefill(state, 0, tokens[:1]), *(decoder.decode_step(state, tokens[[i]])[0] for i in range(1, 7))]
    np.testing.assert_allclose(decoder.read(tokens), logits, atol=1e-4)
    np.testing.assert_allclose(decoders.UncachedDecoder(run.model).read(tokens), logits, atol=1e-4)
    mean = decoders.EnsembleDecoder([decoder, decoder]).read(tokens)
    np.testing.assert_allclose(mean, logits - logsumexp(logits, axis=1, keepdims=True), atol=1e-4)


def test_the_bits_of_a_text_are_those_of_the_model(run):
    text = TEXT[: CONTEXT + 1]
    tokens = CharTokenizer(LETTERS).encode(text).astype("int32")
    logs = keras.ops.log_softmax(run.model(tokens[None, :-1])[0]) / math.log(2)
    bits = -np.asarray(logs)[np.arange(CONTEXT), tokens[1:]]
    described = run.explain(text).to_json()
    np.testing.assert_allclose([token["bits"] for token in described["tokens"][1:]], bits, atol=1e-3)
    assert described["bits"] == pytest.approx(bits.sum(), abs=1e-3)
    assert described["bits_per_character"] == pytest.approx(bits.sum() / len(text), abs=1e-3)


def test_each_token_is_predicted_from_at_least_half_of_the_context():
    class Recorder(BeforeLast):
        seen: list = []  # noqa: RUF012

        def read(self, tokens):
            self.seen.append(len(tokens))
            return super().read(tokens)

    for length in (1, 2, 3, 8):
        reader = language_reading.LanguageReader(Recorder(), CharTokenizer(LETTERS), length)
        tokens = np.arange(30) % 4 + 1
        bits, alternatives = reader.surprisals(tokens)
        assert max(Recorder.seen) <= length
        assert len(alternatives[0]) == 0 and all(len(each) == 5 for each in alternatives[1:])
        assert bits[0] == 0 and (bits[1:] > 0).all()
        if length > 3:  # the model reads two tokens
            whole, _ = language_reading.LanguageReader(BeforeLast(), CharTokenizer(LETTERS), 1000).surprisals(tokens)
            np.testing.assert_allclose(bits, whole, atol=1e-6)
        Recorder.seen.clear()


def test_the_likeliest_tokens_are_listed_without_the_unknown_one(run):
    described = run.explain(TEXT).to_json()
    logits = run.model(CharTokenizer(LETTERS).encode(TEXT[:4]).astype("int32")[None])[0, -1]
    order = [int(token) for token in np.argsort(-logits) if token != 0][:5]
    listed = described["tokens"][4]["alternatives"]
    assert [each["text"] for each in listed] == [LETTERS[token - 1] for token in order]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert listed[0]["probability"] == pytest.approx(float(probabilities[order[0]]), abs=1e-5)


def test_the_word_that_a_token_repeats_made_it_likelier():
    reader = language_reading.LanguageReader(BeforeLast(), CharTokenizer(LETTERS), 100)
    read = language_reading.tokenize("a b c d e e", reader.tokenizer)
    assert read.word_spans == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]
    numbers, values = reader.influences(read, 10)  # the last one, before which a space stands
    assert numbers == [0, 1, 2, 3, 4, 5] and values[4] > 5
    assert np.abs(values[:4]).max() < 1e-6


@pytest.mark.parametrize("text", ["naïve 漢字 café 😀!", "two  spaces\n\nand a tail \n", "x"])
def test_tokens_stand_where_they_are_in_the_text(text):
    pytest.importorskip("tokenizers")
    for tokenizer in (BPETokenizer.train([text * 3, "and the words"], 270), ByteTokenizer(), CharTokenizer(LETTERS)):
        read = language_reading.tokenize(text, tokenizer)
        np.testing.assert_array_equal(read.tokens, tokenizer.encode(text))
        assert len(read.spans) == len(read.words) == len(read.tokens)
        assert all(0 <= start < end <= len(text) for start, end in read.spans)
        covered = {i for start, end in read.spans for i in range(start, end)}
        assert covered == set(range(len(text)))
        for token, (start, end) in zip(read.tokens.tolist(), read.spans, strict=True):
            decoded = tokenizer.decode([token])
            assert "\ufffd" in decoded or decoded == text[start:end]


def test_a_page_and_json_show_the_tokens_and_what_they_rest_on(run, tmp_path, capfd):
    explanation = run.explain(TEXT)
    page = explanation.save_html(tmp_path / "page.html").read_text()
    assert "bits per character" in page and "What the last token rests on" in page
    assert 'class="surprise"' in page and "The training text does not contain" in page
    code, out, _ = run_command(capfd, "explain", str(run.path), TEXT, "--format", "json")
    (described,) = json.loads(out)
    assert code == 0 and [token["text"] for token in described["tokens"]] == list(TEXT)
    assert described["tokens"][0]["bits"] is None and described["unknown"] == [","]
    last = described["influences"][1]
    assert last["which"] == "last" and last["token"]["text"] == "b"
    assert [word["text"] for word in last["words"]] == ["feed", "a", "ca"]


def test_bad_input_is_answered_with_a_sentence(run, capfd):
    explanations = run.explain(["a", None, TEXT])
    assert [each.error for each in explanations] == [
        "a single token, which nothing predicts: give more text",
        "missing (None)",
        None,
    ]
    for options, message in (
        ({"method": "occlusion"}, "A language model cannot have method='occlusion'"),
        ({"label": "good"}, "label has no effect"),
        ({"data": "reviews"}, "data has no effect"),
    ):
        with pytest.raises(UserError, match=message):
            run.explain(TEXT, **options)
    code, _, err = run_command(capfd, "predict", str(run.path), TEXT, "--explain", "--format", "json")
    assert code == 2 and "use 'dltoolkit generate'" in err
    code, _, err = run_command(capfd, "explain", str(run.path))
    assert code == 2 and "name an INPUT" in err


def test_a_long_text_is_explained_up_to_a_limit(run, monkeypatch, tmp_path):
    monkeypatch.setattr("dltoolkit.explanation.language_explainer.MAX_CHARACTERS", 20)
    explanation = run.explain(TEXT)
    assert explanation.details["unread"] == {"start": 20, "end": len(TEXT)}
    assert (
        "What follows the first 20 characters is not explained"
        in explanation.save_html(tmp_path / "p.html").read_text()
    )


def test_a_gan_says_that_it_is_not_explained(tmp_path):
    generator = networks.build_generator("dcgan", (8, 8, 3), width=8)
    gan = finished_run(image_gan, tmp_path, "toy", generator)
    with pytest.raises(UserError, match="nearest training image"):
        explaining.explainer(gan)
