"""Explanations of texts: exact for n-grams, leave-one-out and integrated gradients for networks, in any script."""

import csv
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import BAD, GOOD, NEUTRAL, run_command, toy_texts
from dltoolkit.recipes import sentiment_analyzer
from toy_runs import randomize

from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary, log_count_ratios
from dltoolkit.data.text.words import TokenizedTexts, without_html
from dltoolkit.errors import UserError
from dltoolkit.explanation import text_perturbation, text_reading
from dltoolkit.explanation.text_gradients import IntegratedGradients
from dltoolkit.models.text import classifiers
from dltoolkit.run import Run

TEXTS = [text for _, text in toy_texts(120)]
LABELS = np.array([label == "good" for label, _ in toy_texts(120)], np.int32)
MAX_LENGTH = 30


def make_run(folder: Path, family: str, model: keras.Model, encoder: VocabularyEncoder, labels=("bad", "good")) -> Run:
    """Return a finished run of the toy texts that holds a model."""
    with open(folder / f"{family}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "text"), *toy_texts(120)])
    options = {} if encoder.max_length is None else {"max_length": encoder.max_length}
    config = sentiment_analyzer.Config(
        data=str(folder / f"{family}.csv"), out_dir=str(folder / "runs"), name=family, model=family, **options
    )
    run = Run.create(sentiment_analyzer.__file__, config, family)
    run.save_model(model)
    encoder.save(run.path)
    run.write_json("labels.json", list(labels))
    run.update(state="finished", data={"classes": list(labels)})
    return run


def words_encoder() -> VocabularyEncoder:
    tokenized = TokenizedTexts([" ".join([*GOOD, *BAD, *NEUTRAL])])
    return VocabularyEncoder(Vocabulary.build(tokenized, np.arange(1), max_size=100, min_df=1), MAX_LENGTH)


def matched_network(vocabulary: Vocabulary) -> keras.Model:
    """Return a cnn whose filters look for the words of one class each, whatever stands around them."""
    model = classifiers.build("cnn", len(vocabulary), 2, max_length=MAX_LENGTH, embedding_dim=4, units=2)
    vectors = np.random.default_rng(0).normal(0, 0.05, (len(vocabulary), 4))
    for words, axis in ((BAD, 0), (GOOD, 1)):
        vectors[[2 + vocabulary.entries.index(word) for word in words], axis] = 1
    model.get_layer("embedding").set_weights([vectors])
    for size in classifiers.KERNEL_SIZES:
        kernel = np.zeros((size, 4, 2))
        kernel[0, 0, 0] = kernel[0, 1, 1] = 1
        model.get_layer(f"conv_{size}").set_weights([kernel, np.zeros(2)])
    model.get_layer("logits").set_weights([np.tile(np.eye(2), (3, 1)), np.zeros(2)])
    return model


@pytest.fixture(scope="module")
def ngram_run(tmp_path_factory):
    """Make a run of naive Bayes with words, bigrams and prefixes."""
    tokenized = TokenizedTexts(TEXTS)
    vocabulary = Vocabulary.build(tokenized, np.arange(100), ngrams=2, max_size=500, min_df=2, prefix_length=4)
    encoder = VocabularyEncoder(vocabulary)
    bags = encoder(tokenized)
    model = classifiers.build("ngram", len(vocabulary), 2, max_length=MAX_LENGTH)
    classifiers.set_naive_bayes(model, log_count_ratios(bags, LABELS, len(vocabulary), 2), bags.lengths.mean())
    model.get_layer("logits").bias.assign([0.3, -0.2])
    return make_run(tmp_path_factory.mktemp("ngram"), "ngram", model, encoder)


@pytest.fixture(scope="module")
def cnn_run(tmp_path_factory):
    encoder = words_encoder()
    return make_run(tmp_path_factory.mktemp("cnn"), "cnn", matched_network(encoder.vocabulary), encoder)


def test_ngram_weights_add_up_to_the_logit_minus_the_bias(ngram_run):
    for text in [*TEXTS[:5], "superb superb <b>Superb</b> film, the superb film! unheard"]:
        for label, index in (("good", 1), ("bad", 0)):
            explanation = ngram_run.explain(text, method="n-grams", label=label)
            logit = float(ngram_run.model(ngram_run.preprocess(text))[0, index])
            bias = explanation.details["bias"]
            assert bias == pytest.approx((0.3, -0.2)[index], abs=1e-6)
            assert explanation.values.sum(dtype=np.float64) == pytest.approx(logit - bias, abs=1e-5)
            assert explanation.details["logit"] == pytest.approx(logit, abs=1e-5)


def test_the_weight_of_a_bigram_is_shared_by_its_words_and_occurrences(ngram_run):
    encoder = ngram_run.explainer.predictor.encoder
    bigram = next(entry for entry in encoder.vocabulary.entries if " " in entry)
    ids, entries = text_reading.read(f"{bigram} x {bigram}", encoder).entries()
    assert dict(entries)[bigram] == [(0, 2), (3, 5)]
    assert [encoder.vocabulary.entries[i - 2] for i in ids] == [name for name, _ in entries]


@pytest.mark.parametrize("name", ["ngram_run", "cnn_run"])
def test_the_word_with_the_largest_value_is_the_telling_one(request, name):
    run = request.getfixturevalue(name)
    for method in run.explainer.available:
        explanations = run.explain(TEXTS[: 10 if method == "integrated-gradients" else 40], method=method)
        strongest = [max(each.words, key=lambda word: word["value"])["text"] for each in explanations]
        assert np.mean([word in (*GOOD, *BAD) for word in strongest]) >= 0.95, method
        assert all(each.words[i]["start"] < each.words[i + 1]["start"] for each in explanations for i in range(3))


def test_randomized_weights_change_the_values(cnn_run):
    """Adebayo et al., "Sanity Checks for Saliency Maps", 2018."""
    read = cnn_run.explainer.word_by_word(TEXTS[0])
    other = randomize(matched_network(words_encoder().vocabulary), scale=0.5)
    logits = lambda token_ids: other.predict_on_batch(token_ids).astype(np.float64)  # noqa: E731
    pairs = [
        (
            cnn_run.explainer.attribute("leave-one-out", TEXTS[0], [1])[0],
            text_perturbation.leave_one_out(read, [1], logits)[0],
        ),
        (
            cnn_run.explainer.attribute("integrated-gradients", TEXTS[0], [1])[0],
            IntegratedGradients(other, 1).attribute(read, [1])[0],
        ),
    ]
    for before, after in pairs:
        assert abs(np.corrcoef(before[0], after[0])[0, 1]) < 0.8


def completeness_error(model: keras.Model, text: str, encoder, target: int = 1) -> float:
    """Return the error of the sum of integrated gradients relative to the change of the log odds."""
    read = text_reading.read(text, encoder)
    unknown = np.where(read.words >= 0, encoder.mask_token_id, read.token_ids)
    logits = model.predict_on_batch(np.stack([unknown, read.token_ids]).astype(np.int32)).astype(np.float64)
    odds = [np.log(p[target] / (1 - p[target])) for p in np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)]
    values, details = IntegratedGradients(model, encoder.mask_token_id).attribute(read, [target])
    assert details["completeness_error"] < 0.01
    return abs(values[0].sum() - (odds[1] - odds[0])) / abs(odds[1] - odds[0])


@pytest.mark.parametrize("family", ["cnn", pytest.param("transformer", marks=pytest.mark.slow)])
def test_integrated_gradients_add_up_to_the_change_of_the_log_odds(family):
    encoder = words_encoder()
    keras.utils.set_random_seed(0)
    options = {"embedding_dim": 8, "units": 8, "max_length": MAX_LENGTH}
    model = randomize(classifiers.build(family, len(encoder.vocabulary), 3, **options), scale=0.3)
    assert completeness_error(model, TEXTS[3], encoder) < 0.01


def test_integrated_gradients_find_the_embedding_in_nested_models_and_need_one():
    encoder = words_encoder()
    inner = keras.Sequential([keras.Input((None,), dtype="int32"), keras.layers.Embedding(len(encoder.vocabulary), 4)])
    layers = [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
    model = randomize(keras.Sequential([inner, *layers]), scale=1)
    assert completeness_error(model, TEXTS[0], encoder) < 0.01
    assert not IntegratedGradients(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), 1).has_embedding


def test_a_long_text_is_explained_by_sentences_and_then_by_words(cnn_run):
    encoder = VocabularyEncoder(words_encoder().vocabulary, 5000)
    sentences = ["the film and the room and the price of the town."] * 90
    sentences[70] = "the film was bland and <i>superb</i> in the town!"
    text = " ".join(sentences)
    read = text_reading.read(text, encoder)
    calls = []

    def logits(token_ids):
        calls.append(len(token_ids))
        return cnn_run.explainer.answer(token_ids)

    values, details = text_perturbation.leave_one_out(read, [1], logits)
    assert sum(calls) < 200 < len(read.spans) and len(details["sentences"]) == 90
    best = max(details["sentences"], key=lambda sentence: sentence["value"])
    assert text[best["start"] : best["end"]] == sentences[70] and best["by_word"]
    words = [text[start:end] for start, end in read.spans]
    assert words[values[0].argmax()] == "superb" and words[values[0].argmin()] == "bland"
    assert (np.abs(values[0]) > 0.1).sum() == 2


def test_few_words_of_a_text_of_the_length_of_a_book_are_in_memory_at_a_time():
    count, sizes = 30_000, []

    class Book(text_reading.ReadText):
        def variants(self, kept):
            sizes.append(kept.size)
            return np.count_nonzero(~kept, axis=1)[:, None].astype(np.int32)

    book = Book("word " * count, [(5 * i, 5 * i + 4) for i in range(count)], [], None, 0)
    values, details = text_perturbation.leave_one_out(book, [0], lambda lost: np.hstack([-lost, 0 * lost]) / count)
    assert values.shape == (1, count) and len(details["sentences"]) == 100
    assert values.sum() == pytest.approx(1, abs=1e-4)
    assert max(sizes) <= text_perturbation.MAX_WORDS
    assert sum(sizes) < 110 * count  # the parts, and no words


def test_the_page_says_how_a_long_text_was_read(cnn_run, tmp_path):
    text = " ".join(["the film and the room."] * 20 + ["a superb town."] + ["the price."] * 60)
    encoder = VocabularyEncoder(words_encoder().vocabulary, 5000)
    long_run = make_run(tmp_path, "cnn", matched_network(encoder.vocabulary), encoder)
    page = long_run.explain(text, method="leave-one-out").save_html(tmp_path / "page.html").read_text()
    assert re.search(r"The text is long: each of its \d+ parts .*most important parts \(\d+\)", page)
    page = cnn_run.explain(text, method="leave-one-out").save_html(tmp_path / "page.html").read_text()
    assert '<span class="unread" title="not read by the model">' in page and "words in gray, was not read" in page


def test_a_text_without_ends_of_sentences_is_divided(cnn_run):
    encoder = VocabularyEncoder(words_encoder().vocabulary, 5000)
    read = text_reading.read("the film " * 500 + "superb", encoder)
    values, details = text_perturbation.leave_one_out(read, [1], cnn_run.explainer.answer)
    assert values[0].argmax() == 1000 and len(details["sentences"]) > 5


def test_what_was_not_read_and_what_is_unknown_are_said(cnn_run):
    text = "Superb " + "film " * 40 + "zorbly room"
    explanation = cnn_run.explain(text, method="leave-one-out")
    described = explanation.to_json()
    assert described["unread"]["words"] == 43 - MAX_LENGTH and described["unknown"] == ["zorbly"]
    assert {word["text"] for word in described["words"]} == {"Superb", "film", "zorbly", "room"}
    start, end = described["unread"]["start"], described["unread"]["end"]
    assert not any(start <= word["start"] < end for word in described["words"])


def test_a_text_without_a_known_word_has_no_class(cnn_run, tmp_path):
    explanations = cnn_run.explain(["qwx zzk", " ", TEXTS[0]], method="leave-one-out")
    described = [each.to_json() for each in explanations]
    assert described[0]["label"] == "unknown_input" and described[0]["probability"] is None
    assert described[1] == {"input": " ", "error": "empty"}
    assert described[2]["label"] in ("bad", "good")
    page = explanations[0].save_html(tmp_path / "page.html").read_text()
    assert "knows none of the words" in page


def test_right_to_left_text_keeps_its_direction_and_offsets(tmp_path):
    good, text = "נהדר", "הסרט הזה <b>נהדר</b>, באמת!"
    vocabulary = Vocabulary.build(TokenizedTexts([text]), np.arange(1), max_size=20, min_df=1)
    model = classifiers.build("ngram", len(vocabulary), 2, max_length=MAX_LENGTH)
    ratios = np.zeros((len(vocabulary), 2))
    ratios[2 + vocabulary.entries.index(good)] = -1, 1
    classifiers.set_naive_bayes(model, ratios, 4)
    run = make_run(tmp_path, "ngram", model, VocabularyEncoder(vocabulary))
    explanation = run.explain(text, method="leave-one-out")
    (word,) = [each for each in explanation.words if each["value"] > 0.1]
    assert text[word["start"] : word["end"]] == word["text"] == good
    page = explanation.save_html(tmp_path / "page.html").read_text()
    assert re.search(rf'dir="auto".*<mark class="for" [^>]*title="\+[\d.]+">{good}</mark>', page)
    assert "&lt;b&gt;" in page


def test_the_page_shows_signs_without_color_and_both_classes(ngram_run, tmp_path):
    explanation = ngram_run.explain("a lovely film, a dreadful room", method="n-grams", label="good")
    page = explanation.save_html(tmp_path / "page.html").read_text()
    assert re.search(r'<mark class="for" [^>]*title="\+[\d.]+">lovely</mark>', page)
    assert re.search(r'<mark class="against" [^>]*title="-[\d.]+">dreadful</mark>', page)
    assert "dotted" in page and "For good:" in page and "Against good:" in page
    assert "Unknown to the model" in page


def test_faithful_values_are_more_faithful_than_others(cnn_run):
    explainer, texts = cnn_run.explainer, TEXTS[:20]
    targets = explainer.logits(texts).argmax(axis=1).tolist()
    values = [
        explainer.attribute("leave-one-out", text, [target])[0][0] for text, target in zip(texts, targets, strict=True)
    ]
    figures = explainer.faithfulness(texts, values, targets)
    reverse = explainer.faithfulness(texts, [-each for each in values], targets)
    assert figures["comprehensiveness"].shape == (20,) and figures["comprehensiveness"].min() > 0.3
    assert figures["sufficiency"].max() < 0.1 < reverse["sufficiency"].mean()
    assert (figures["score"] > reverse["score"]).all()


def test_methods_are_those_that_the_model_can_have(ngram_run, cnn_run):
    assert ngram_run.explainer.available == ["n-grams", "leave-one-out"]
    assert cnn_run.explainer.available == ["leave-one-out", "integrated-gradients"]
    with pytest.raises(UserError, match="n-grams.*use method='auto', or one of leave-one-out, integrated-gradients"):
        cnn_run.explain(TEXTS[0], method="n-grams")
    with pytest.raises(UserError, match="Did you mean 'good'"):
        cnn_run.explain(TEXTS[0], method="leave-one-out", label="goood")


def test_explain_and_predict_print_the_words(ngram_run, capfd, tmp_path):
    text = "A &amp; the LOVELY film"
    code, out, _ = run_command(
        capfd, "explain", str(ngram_run.path), text, "--method", "leave-one-out", "--format", "json"
    )
    (explained,) = json.loads(out)
    assert code == 0 and explained["label"] == explained["top"][0]["label"] == "good"
    best = max(explained["words"], key=lambda word: word["value"])
    assert best["text"] == text[best["start"] : best["end"]] == "LOVELY"
    code, out, _ = run_command(capfd, "predict", str(ngram_run.path), text, "--explain", "--format", "json")
    assert code == 0 and json.loads(out)[0]["words"][0]["text"] == "LOVELY"


def test_files_are_read_in_the_encoding_that_is_named(ngram_run, capfd, tmp_path):
    (tmp_path / "review.txt").write_text(GOOD[0], encoding="utf-16-le")
    words = ("explain", str(ngram_run.path), str(tmp_path / "review.txt"), "--method", "n-grams", "--format", "json")
    code, out, _ = run_command(capfd, *words)
    assert code == 2 and "give --encoding" in out
    code, out, _ = run_command(capfd, *words, "--encoding", "utf-16-le")
    assert code == 0 and json.loads(out)[0]["words"][0]["text"] == GOOD[0]


def test_words_of_markup_are_read_as_the_model_reads_them(cnn_run):
    text = "The <b>super</b>b film<br />was super&#98;"
    explanation = cnn_run.explain(text, method="leave-one-out")
    assert without_html(text).split()[0] == "The"
    best = max(explanation.words, key=lambda word: word["value"])
    assert best["text"] == "super&#98;"


@pytest.mark.slow
def test_the_pieces_of_a_pretrained_network_add_up_to_words(tmp_path):
    pytest.importorskip("keras_hub")
    from test_fine_tune_texts import save_bert

    from dltoolkit.models.pretrained import text_backbones

    backbone = text_backbones.from_preset(str(save_bert(tmp_path / "bert", layers=1)), 24)
    head = keras.layers.Dense(2)(backbone.model.output)
    model, encoder = randomize(keras.Model(backbone.model.input, head)), backbone.encoder
    text = "A Superb <b>zorbly</b> film, dreadful&#33;"
    read = text_reading.read(text, encoder)
    assert [text[start:end] for start, end in read.spans] == ["A", "Superb", "zorbly", "film", ",", "dreadful", "&#33;"]
    everything = read.variants(np.ones((1, 7), bool))
    np.testing.assert_array_equal(everything, encoder(TokenizedTexts([text])).to_padded())
    without = read.variants(np.arange(7)[None] != 2)
    np.testing.assert_array_equal(without, encoder(TokenizedTexts(["a superb film, dreadful!"])).to_padded())
    assert completeness_error(model, text, encoder) < 0.01
