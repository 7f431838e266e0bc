"""The linear baseline of text classification: logistic regression on naive-Bayes-weighted words and word pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dltoolkit import progress
from dltoolkit.data.text.ragged import Ragged
from dltoolkit.data.text.vocabulary import FIRST_ID, Vocabulary, log_count_ratios
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.evaluation import baseline, logistic_regression

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAX_FEATURES = 500_000  # most frequent n-grams that form the vocabulary
MAX_TUNED = 10_000  # training texts up to which C is tuned; with more texts it hardly changes the accuracy
CANDIDATES = (0.03, 0.1, 0.3, 1.0)  # values of C, the inverse regularization strength, that are compared
DEFAULT_C = 0.1  # value of C for training splits that are too small or too large to tune it
MAX_ITER = 30  # iterations of liblinear
TOP_FEATURES = 15  # n-grams of each class in the report


class NgramWeight(NamedTuple):
    """An n-gram, its weight in the logit of a class, and the number of training texts that contain it."""

    ngram: str
    weight: float
    texts: int


@progress.phase("Fitting the linear baseline")
def linear(
    tokenized: TokenizedTexts,
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    classes: list[str],
    *,
    seed: int = 0,
) -> tuple[baseline.Baseline, list[list[NgramWeight]]]:
    """Classify by the NBSVM classifier of Wang & Manning (2012), trained on the same training split.

    Args:
        tokenized: All texts, tokenized into words.
        labels: Labels, int (n,).
        train: Rows of the training split.
        test: Rows of the test split.
        classes: Label of each class index.
        seed: Draws the held-out fifth that C is tuned on.

    Returns:
        ``(predictions, top features)``: the predictions for ``test`` with a note on the training, and the n-grams with
        the largest weights of each class.
    """
    min_df = 2 if len(train) > 1000 else 1
    vocabulary = Vocabulary.build(tokenized, train, ngrams=2, max_size=MAX_FEATURES, min_df=min_df)
    bags = vocabulary.encode_bags(tokenized)
    size, train_bags = len(vocabulary), bags.take(train)
    ratios = log_count_ratios(train_bags, labels[train], size, len(classes)).astype(np.float64)
    x, y = _to_csr(train_bags, size), labels[train]

    def predict(fitted: np.ndarray, predicted: np.ndarray, C: float) -> np.ndarray:
        weights, biases = _fit(x[fitted], y[fitted], ratios, C)
        return (x[predicted] @ weights + biases).argmax(axis=1)

    C = DEFAULT_C
    if len(train) <= MAX_TUNED:
        C = logistic_regression.search_held_out(
            CANDIDATES,
            predict,
            y,
            np.random.default_rng(seed),
            default=DEFAULT_C,
            min_classes=len(np.unique(y)),
        )
    weights, biases = _fit(x, y, ratios, C)
    predictions = (_to_csr(bags.take(test), size) @ weights + biases).argmax(axis=1)
    note = f"logistic regression (C = {C:g}) on naive-Bayes-weighted words and word pairs"
    scored = baseline.Baseline(test, labels[test], predictions, len(classes), {"note": note})
    return scored, top_features(vocabulary, weights, train_bags)


def top_features(vocabulary: Vocabulary, weights: np.ndarray, bags: Ragged) -> list[list[NgramWeight]]:
    """Return for each class the n-grams with the largest positive weights, in descending order.

    They are ranked by the weight times the square root of the number of texts that contain them, so that neither an
    n-gram of a single text nor a frequent one with a small weight comes first.

    Args:
        vocabulary: N-grams.
        weights: Weights in the logits, float (n-grams, classes).
        bags: N-grams that occur in each training text.
    """
    texts = np.bincount(bags.values, minlength=len(vocabulary))
    relative = weights - weights.mean(axis=1, keepdims=True)
    rank = relative * np.sqrt(texts)[:, None]
    features = []
    for number in range(weights.shape[1]):
        best = np.argsort(-rank[FIRST_ID:, number], kind="stable")[:TOP_FEATURES] + FIRST_ID
        features.append(
            [
                NgramWeight(vocabulary.entries[i - FIRST_ID], float(relative[i, number]), int(texts[i]))
                for i in best
                if relative[i, number] > 0
            ]
        )
    return features


def _to_csr(bags: Ragged, size: int) -> csr_matrix:
    """Return a matrix (texts, size) that is 1 for every n-gram that occurs in a text."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(bags.values))
    return csr_matrix((ones, bags.values.astype(np.int32), bags.row_splits.astype(np.int32)), (len(bags), size))


def _fit(x: csr_matrix, y: np.ndarray, ratios: np.ndarray, C: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit one classifier per class against the rest; return weights (n-grams, classes) and biases (classes,)."""
    from scipy.sparse import diags

    weights, biases = np.zeros_like(ratios), np.zeros(ratios.shape[1])
    for number in range(ratios.shape[1]):
        if number == 1 and ratios.shape[1] == 2:  # the second of two classes is the mirror image of the first
            weights[:, 1], biases[1] = -weights[:, 0], -biases[0]
            break
        scaled = x @ diags(ratios[:, number])
        model = logistic_regression.fit(scaled, y == number, C, max_iter=MAX_ITER, solver="liblinear")
        weights[:, number], biases[number] = model.coef_[0] * ratios[:, number], model.intercept_[0]
    return weights, biases
