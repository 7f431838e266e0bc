"""What a text classifier has to beat: logistic regression on naive-Bayes-weighted words and word pairs."""

from __future__ import annotations

import numpy as np

from dltoolkit.data.text.vocabulary import FIRST, Corpus, Packed, Vocabulary, log_count_ratios
from dltoolkit.evaluation import baseline
from dltoolkit.report.page import Word

MOST_ENTRIES = 500_000
TUNED_UP_TO = 10_000  # training texts up to which the penalty is chosen; beyond, it hardly matters
PENALTIES = (0.03, 0.1, 0.3, 1.0)  # scikit-learn's C, the inverse of the penalty's weight
USUAL_PENALTY = 0.1
ITERATIONS = 30
SHOWN = 15  # telling words of a class


def linear(
    corpus: Corpus, labels: np.ndarray, train: np.ndarray, test: np.ndarray, classes: list[str], *, seed: int = 0
) -> tuple[dict[str, float | list | str], list[list[Word]]]:
    """Score the linear classifier of Wang & Manning (2012), trained on the same training split.

    Args:
        corpus: all texts, cut into words.
        labels: int (n,).
        train, test: rows of the corpus.
        classes: the label of each class number.
        seed: draws the held-out fifth that chooses the penalty of a small set.

    Returns:
        accuracy, accuracy_ci95, macro_f1 and note, which says how the model was trained; and for each class the words
        that speak for it most.
    """
    minimum = 2 if len(train) > 1000 else 1
    vocabulary = Vocabulary.build(corpus, train, ngrams=2, size=MOST_ENTRIES, minimum=minimum)
    packed = vocabulary.bags(corpus)
    size, known = len(vocabulary), packed.take(train)
    ratios = log_count_ratios(known, labels[train], size, len(classes)).astype(np.float64)
    x, y = _matrix(known, size), labels[train]
    penalty = USUAL_PENALTY
    if len(train) <= TUNED_UP_TO:
        penalty = _best_penalty(x, y, ratios, np.random.default_rng(seed))
    weights, offsets = _fit(x, y, ratios, penalty)
    answers = (_matrix(packed.take(test), size) @ weights + offsets).argmax(axis=1)
    note = f"logistic regression (C = {penalty:g}) on naive-Bayes-weighted words and word pairs"
    scores = baseline.scored(answers, labels[test], len(classes), note, seed=seed)
    return scores, telling(vocabulary, weights, known)


def telling(vocabulary: Vocabulary, weights: np.ndarray, packed: Packed) -> list[list[Word]]:
    """Return for each class the words that speak for it most in the training texts, the most telling first.

    Ranked by weight times the root of the texts that hold them, so that neither a word of one text nor a weak but
    common one comes first.

    Args:
        weights: float (entries, classes), what each adds to a class' score.
        packed: the entries that occur in each training text.
    """
    texts = np.bincount(packed.numbers, minlength=len(vocabulary))
    relative = weights - weights.mean(axis=1, keepdims=True)
    rank = relative * np.sqrt(texts)[:, None]
    found = []
    for number in range(weights.shape[1]):
        best = np.argsort(-rank[FIRST:, number], kind="stable")[:SHOWN] + FIRST
        found.append(
            [
                Word(vocabulary.entries[i - FIRST], float(relative[i, number]), int(texts[i]))
                for i in best
                if relative[i, number] > 0
            ]
        )
    return found


def _matrix(packed: Packed, size: int):
    from scipy.sparse import csr_matrix

    ones = np.ones(len(packed.numbers))
    return csr_matrix((ones, packed.numbers.astype(np.int32), packed.ends.astype(np.int32)), (len(packed), size))


def _fit(x, y: np.ndarray, ratios: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit one class against the rest for every class: weights (entries, classes) and offsets (classes,)."""
    import warnings

    from scipy.sparse import diags
    from sklearn.linear_model import LogisticRegression

    weights, offsets = np.zeros_like(ratios), np.zeros(ratios.shape[1])
    for number in range(ratios.shape[1]):
        if number == 1 and ratios.shape[1] == 2:  # the other class' mirror image
            weights[:, 1], offsets[1] = -weights[:, 0], -offsets[0]
            break
        scaled = x @ diags(ratios[:, number])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that more iterations would gain a little
            model = LogisticRegression(C=penalty, solver="liblinear", dual=True, max_iter=ITERATIONS, random_state=0)
            model.fit(scaled, y == number)
        weights[:, number], offsets[number] = model.coef_[0] * ratios[:, number], model.intercept_[0]
    return weights, offsets


def _best_penalty(x, y: np.ndarray, ratios: np.ndarray, rng: np.random.Generator) -> float:
    """The penalty that does best on a fifth of the training split that it has not seen."""
    order = rng.permutation(len(y))
    held, rest = order[: len(y) // 5], order[len(y) // 5 :]
    if not len(held) or len(np.unique(y[rest])) < len(np.unique(y)):
        return USUAL_PENALTY
    right = []
    for penalty in PENALTIES:
        weights, offsets = _fit(x[rest], y[rest], ratios, penalty)
        right.append(int(((x[held] @ weights + offsets).argmax(axis=1) == y[held]).sum()))
    return PENALTIES[int(np.argmax(right))]
