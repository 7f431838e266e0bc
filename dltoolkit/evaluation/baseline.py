"""What no network is needed for: always the commonest class, and a linear model on the pixels.

A network's score means something beside what these two reach on the same split.
"""

import warnings

import numpy as np

from dltoolkit.evaluation import metrics

SIDES = {1: 32, 2: 24, 3: 16, 4: 16}  # channels -> longest side for the linear model: about 1,000 numbers
MOST_NUMBERS = 48_000_000  # in the training matrix, 190 MB as float32: 60,000 pictures of 28 x 28
CHUNK_BYTES = 16 << 20  # of pictures turned into float32 at a time
ITERATIONS = 40  # of L-BFGS; 100 gain 0.1 to 0.2 points on Fashion-MNIST and CIFAR-10, in 2.5 times the time
TUNED_UP_TO = 10_000  # training pictures up to which the penalty is chosen; beyond, it hardly matters
PENALTIES = (0.3, 0.03, 0.003)  # scikit-learn's C, the inverse of the penalty's weight
USUAL_PENALTY = 0.01


def majority(train_labels: np.ndarray, test_labels: np.ndarray, classes: list[str]) -> dict[str, float | str]:
    """Score always answering the commonest class of the training split: accuracy, macro_f1 and that label."""
    most = int(np.bincount(np.asarray(train_labels, np.int64), minlength=len(classes)).argmax())
    scores = _scores(np.full(len(test_labels), most), test_labels, len(classes))
    return {"accuracy": scores["accuracy"], "macro_f1": scores["macro_f1"], "label": classes[most]}


def linear(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    classes: list[str],
    *,
    seed: int = 0,
    train_rows: np.ndarray | None = None,
    test_rows: np.ndarray | None = None,
) -> dict[str, float | list | str]:
    """Score multinomial logistic regression on standardised pixels, trained on the same training split.

    Large pictures are averaged down first (see ``pixels``), and of a very large training split a random part is
    used, so that it takes about ten seconds on two cores and 400 MB at the most; ``note`` tells which.

    Args:
        train_x, test_x: pictures (n, height, width, channels) with values 0 to 255, in memory or an
            ``np.memmap``; or what ``pixels`` made of them, float32 (n, numbers). Left as they are.
        train_y, test_y: class numbers of the rows used, int.
        classes: the label of each class number.
        seed: draws the part of the training split that is used, and the held-out fifth that chooses the penalty.
        train_rows, test_rows: which rows of ``train_x`` and ``test_x`` form the split; by default all.

    Returns:
        accuracy, accuracy_ci95, macro_f1, and note, which says how the model was trained.
    """
    train_y, test_y = np.asarray(train_y, np.int64), np.asarray(test_y, np.int64)
    train_rows = np.arange(len(train_x)) if train_rows is None else np.asarray(train_rows)
    test_rows = np.arange(len(test_x)) if test_rows is None else np.asarray(test_rows)
    rng = np.random.default_rng(seed)

    numbers = int(np.prod(_shape(train_x)))
    many_classes = max(1.0, (len(classes) + 80) / 90)  # a step with 100 classes takes about twice one with 10
    most = max(1, int(MOST_NUMBERS / many_classes / numbers))
    part = ""
    if len(train_y) > most:
        chosen = np.sort(rng.choice(len(train_y), most, replace=False))
        part = f", on {most:,} of the {len(train_y):,} training pictures"
        train_rows, train_y = train_rows[chosen], train_y[chosen]

    x = _matrix(train_x, train_rows)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1.0  # plus one grey level: a pixel that is always dark stays small
    x -= mean
    x /= spread
    if len(np.unique(train_y)) > 1:
        penalty = _best_penalty(x, train_y, rng) if len(train_y) <= TUNED_UP_TO else USUAL_PENALTY
        model = _fit(x, train_y, penalty)
        del x
        parts = np.array_split(test_rows, len(test_rows) // 10_000 + 1)  # not all in memory at once
        answers = np.concatenate([model.predict((_matrix(test_x, rows) - mean) / spread) for rows in parts])
    else:
        penalty, answers = USUAL_PENALTY, np.full(len(test_y), train_y[0])

    shrunk = _shape(train_x) != train_x.shape[1:]
    what = f"pixels averaged down to {_shape(train_x)[1]}×{_shape(train_x)[0]}" if shrunk else "pixels"
    note = f"logistic regression (C = {penalty:g}) on standardised {what}{part}"
    return scored(answers, test_y, len(classes), note, seed=seed)


def scored(answers: np.ndarray, labels: np.ndarray, classes: int, note: str, *, seed: int) -> dict:
    """Return accuracy, accuracy_ci95 and macro_f1 of a baseline's answers, and the note beside them."""
    scores = _scores(answers, labels, classes)
    return {
        "accuracy": scores["accuracy"],
        "accuracy_ci95": metrics.interval(int((answers == labels).sum()), len(labels), seed=seed),
        "macro_f1": scores["macro_f1"],
        "note": note,
    }


def pixels(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Read pictures in chunks, average large ones down, and return one row of numbers each.

    Args:
        images: uint8 (n, height, width, channels), in memory or an ``np.memmap``.
        indices: int (m,), which pictures, in this order.

    Returns:
        float32 (m, numbers), values 0 to 255. No side is longer than 32 (grey) or 16 (colour) pixels; each pixel is
        the mean of the area it covers.
    """
    height, width, channels = _shape(images)
    down, across = _averaging(images.shape[1], height), _averaging(images.shape[2], width)
    rows = np.empty((len(indices), height * width * channels), np.float32)
    chunk = max(1, CHUNK_BYTES // (4 * int(np.prod(images.shape[1:]))))
    for start in range(0, len(indices), chunk):
        some = np.asarray(images[indices[start : start + chunk]], np.float32)  # (chunk, h, w, c)
        if some.shape[1:] != (height, width, channels):
            some = np.einsum("hH,nHWc->nhWc", down, some, optimize=True)
            some = np.einsum("wW,nhWc->nhwc", across, some, optimize=True)
        rows[start : start + chunk] = some.reshape(len(some), -1)
    return rows


def _matrix(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The chosen rows as a float32 matrix of its own."""
    return np.asarray(x[rows], np.float32) if x.ndim == 2 else pixels(x, rows)


def _shape(x: np.ndarray) -> tuple[int, ...]:
    """The shape of one picture as the linear model sees it, (height, width, channels) or (numbers,)."""
    if x.ndim == 2:
        return x.shape[1:]
    height, width, channels = x.shape[1:]
    side = SIDES.get(channels, 16)
    return min(height, side), min(width, side), channels


def _averaging(size: int, smaller: int) -> np.ndarray:
    """The matrix (smaller, size) that averages ``size`` pixels down to ``smaller`` ones, split if need be."""
    edges = np.linspace(0, size, smaller + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (covered * smaller / size).astype(np.float32)


def _best_penalty(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
    """The penalty that does best on a fifth of the training split that it has not seen."""
    order = rng.permutation(len(y))
    held, rest = order[: len(y) // 5], order[len(y) // 5 :]
    if not len(held) or len(np.unique(y[rest])) < 2:
        return USUAL_PENALTY
    right = [(_fit(x[rest], y[rest], penalty).predict(x[held]) == y[held]).sum() for penalty in PENALTIES]
    return PENALTIES[int(np.argmax(right))]


def _fit(x: np.ndarray, y: np.ndarray, penalty: float):
    from sklearn.linear_model import LogisticRegression  # takes a second or two to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that more iterations would gain a little: known, see ITERATIONS
        return LogisticRegression(C=penalty, max_iter=ITERATIONS, tol=1e-3).fit(x, y)


def _scores(answers: np.ndarray, labels: np.ndarray, classes: int) -> dict:
    return metrics.from_confusion(metrics.confusion(labels, answers, classes))
