"""The linear baseline of text classification."""

import numpy as np
import pytest

from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.evaluation import ngram_baseline

CLASSES = ["negative", "positive"]


@pytest.fixture(scope="module")
def reviews() -> tuple[TokenizedTexts, np.ndarray, np.ndarray, np.ndarray]:
    """200 tokenized reviews, their labels, and rows of a training and a test split."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    words = [["awful", "dull"], ["great", "fun"]]
    texts = [f"the film was {rng.choice(words[label])} and {rng.choice(['long', 'short'])}" for label in labels]
    return TokenizedTexts(texts), labels, np.arange(140), np.arange(140, 200)


def test_linear_classifies_by_words_and_names_them(reviews):
    scored, features = ngram_baseline.linear(*reviews, CLASSES)
    scores = scored.scores()
    assert scores["accuracy"] == 1.0
    assert scores["macro_f1"] == 1.0
    assert scores["accuracy_ci95"] == pytest.approx([0.94, 1.0], abs=0.01)
    assert "naive-Bayes-weighted words and word pairs" in scores["note"]
    negative, positive = ({feature.ngram for feature in of_class} for of_class in features)
    assert {"awful", "dull"} <= negative
    assert {"great", "fun"} <= positive
    assert not negative & positive


def test_top_features_have_falling_ranks_and_count_the_texts_of_the_training_split(reviews):
    _, features = ngram_baseline.linear(*reviews, CLASSES)
    for of_class in features:
        ranks = [feature.weight * np.sqrt(feature.texts) for feature in of_class]
        assert ranks == sorted(ranks, reverse=True)
        assert min(ranks) > 0
    counts = {feature.ngram: feature.texts for of_class in features for feature in of_class}
    labels = reviews[1][:140]
    assert counts["awful"] + counts["dull"] == (labels == 0).sum()


def test_linear_learns_from_the_training_rows_only(reviews):
    corpus, labels, train, test = reviews
    flipped = labels.copy()
    flipped[test] = 1 - flipped[test]
    assert ngram_baseline.linear(corpus, flipped, train, test, CLASSES)[0].scores()["accuracy"] == 0.0


def test_linear_takes_more_than_two_classes():
    texts = [f"{color} thing number {i}" for i in range(30) for color in ("red", "green", "blue")]
    labels = np.arange(90) % 3
    scored, features = ngram_baseline.linear(
        TokenizedTexts(texts), labels, np.arange(60), np.arange(60, 90), ["red", "green", "blue"]
    )
    assert scored.scores()["accuracy"] == 1.0
    assert [of_class[0].ngram.split()[0] for of_class in features] == ["red", "green", "blue"]
