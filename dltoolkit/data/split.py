"""Train, validation and test splits that depend on the contents of the examples.

The bytes of each example are hashed, the hash is mixed with the seed, and the order of these keys within a class
decides which examples are held out. Equal contents therefore always belong to the same split, the order of the files
does not matter, and a few new files move only a few of the old ones.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from dltoolkit.errors import UserError


def content_hashes(array: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each row of an array (n, …) as uint64 (n,). Equal rows have equal hashes.

    The hash is BLAKE2b (RFC 7693) of the row's bytes, cut to 8 bytes. Among a million different rows, two have the same
    hash with a probability of 3e-8.
    """
    return np.fromiter(map(content_hash, array), np.uint64, len(array))


def content_hash(content: bytes | np.ndarray) -> np.uint64:
    """Return the hash of :func:`content_hashes` of one content."""
    content = np.ascontiguousarray(content) if isinstance(content, np.ndarray) else content
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint64)[0]


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """Return a 64-bit hash of each name as uint64 (n,)."""
    rows = (hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(rows), np.uint64)


def group_keys(keys: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the key of each example's group, uint64 (n,): the smallest key of the examples that no model tells apart.

    Examples of one group belong to the same split. An example that is alone in its group keeps its own key.

    Args:
        keys: uint64 (n,), hashes of the contents.
        groups: uint64 (n,), hashes of what a model can tell apart at best, such as the words of a text.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    smallest = np.full(len(keys), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, inverse, keys)
    return smallest[inverse]


def train_validation_test_split(
    hashes: np.ndarray,
    labels: np.ndarray,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Split examples into train, validation and test with the same proportions in each class.

    Args:
        hashes: uint64 (n,), from :func:`content_hashes`.
        labels: Class indices (n,).
        validation: Fraction of each class for validation, between 0 and 1; each split gets at least one example.
        test: Fraction of each class for the test, likewise.
        seed: Seed of the split.
        classes: Names of the classes in messages (default: their indices).

    Returns:
        {"train", "validation", "test"}: int64 indices, ascending.

    Raises:
        UserError: If a class has fewer than three different examples.
    """
    if not 0 < validation < 1 or not 0 < test < 1 or validation + test >= 1:
        raise UserError(
            f"The validation fraction {validation} and the test fraction {test} must be above 0 and sum to less than 1."
        )
    split = _assign_splits(hashes, labels, {"validation": validation, "test": test}, seed, classes)
    return {name: np.flatnonzero(split == index) for index, name in enumerate(("train", "validation", "test"))}


def split_validation(
    hashes: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    *,
    validation: float = 0.15,
    seed: int,
    classes: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the training examples of a data set with one predefined held-out split into train and validation.

    Args:
        hashes: uint64 (n,), from :func:`content_hashes`.
        labels: Class indices (n,).
        train: Indices of the training examples.
        validation: Fraction of each class for validation, between 0 and 1.
        seed: Seed of the split.
        classes: Names of the classes in messages (default: their indices).

    Returns:
        The remaining training examples and the validation examples: int64 indices, ascending.

    Raises:
        UserError: If a class has fewer than two different training examples.
    """
    if not 0 < validation < 1:
        raise UserError(f"The validation fraction {validation} must be between 0 and 1.")
    train = np.sort(train)
    split = _assign_splits(hashes[train], labels[train], {"validation": validation}, seed, classes)
    return train[split == 0], train[split == 1]


def stratified_sample(
    hashes: np.ndarray, labels: np.ndarray, count: int, *, seed: int, minimum: int = 1, splits: np.ndarray | None = None
) -> np.ndarray:
    """Return ``count`` indices (ascending int64), each class of each split in proportion to its size.

    Args:
        hashes: uint64 (n,), of names or contents; the seed and they decide which examples are selected.
        labels: Class indices (n,).
        count: Size of the sample; at most n are returned.
        seed: Seed of the sample.
        minimum: Number of examples of each class of each split that are selected, if it has that many.
        splits: Integers (n,), the predefined split of each example; None stands for a single split.

    Raises:
        UserError: If ``count`` is too small for that minimum.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    group = labels.astype(np.int64)
    if splits is not None:
        group = group + splits.astype(np.int64) * (int(labels.max()) + 1)
    _, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
    minimums = np.minimum(sizes, minimum)
    if minimums.sum() > count:
        raise UserError(
            f"A limit of {count} examples is too small for these classes: set --limit to at least {minimums.sum()}."
        )
    shares = sizes * (count / sizes.sum())
    selected = np.maximum(np.floor(shares).astype(np.int64), minimums)
    while selected.sum() > count:  # small groups have more than their share: reduce the groups furthest above theirs
        selected[np.argmax(np.where(selected > minimums, selected - shares, -np.inf))] -= 1
    while selected.sum() < count:
        selected[np.argmax(np.where(selected < sizes, shares - selected, -np.inf))] += 1
    order = np.lexsort((_mix(hashes, seed), group))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(len(order)) - starts[group[order]]
    return np.sort(order[rank < selected[group[order]]])


def sample_per_class(hashes: np.ndarray, labels: np.ndarray, train: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Return a sample of the ``train`` indices with at most ``count`` examples of each class, ascending."""
    train = np.sort(train)
    order = np.lexsort((_mix(hashes[train], seed), labels[train]))
    _, starts, sizes = np.unique(labels[train][order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    return np.sort(train[order[rank < count]])


def conflicting_labels(hashes: np.ndarray, labels: np.ndarray) -> int:
    """Return the number of contents that have more than one label."""
    contents = np.unique(np.stack([hashes, labels.astype(np.uint64)]), axis=1)[0]
    return int((np.unique(contents, return_counts=True)[1] > 1).sum())


def count_leaked(hashes: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> int:
    """Return the number of ``held_out`` examples whose content is in ``train`` too."""
    return int(np.isin(hashes[held_out], hashes[train]).sum())


def _assign_splits(
    hashes: np.ndarray, labels: np.ndarray, fractions: dict[str, float], seed: int, classes: Sequence[str] | None
) -> np.ndarray:
    """Return the split of each example: 0 for train, 1, 2, … for the held-out splits in the order of ``fractions``."""
    contents, inverse = np.unique(hashes, return_inverse=True)
    content_labels = np.full(len(contents), np.iinfo(np.int64).max)
    np.minimum.at(content_labels, inverse, labels.astype(np.int64))  # a content with two labels counts for one class
    keys = _mix(contents, seed)
    split = np.zeros(len(contents), np.int8)
    needed = len(fractions) + 1
    for label in np.unique(labels):
        rows = np.flatnonzero(content_labels == label)
        if len(rows) < needed:
            name = classes[label] if classes is not None else label
            raise UserError(
                f"Class '{name}' has {_count_different(len(rows))}, but {' and '.join(['train', *fractions])} need one "
                "each: add more or remove the class."
            )
        rows = rows[np.argsort(keys[rows])]
        assigned = 0
        for number, fraction in enumerate(fractions.values(), start=1):
            count = min(max(1, round(fraction * len(rows))), len(rows) - assigned - (needed - number))
            # The held-out splits take the two ends of the order, so that a new file moves each border by at most one
            split[rows[:count] if number % 2 else rows[len(rows) - count :]] = number
            assigned += count
    return split[inverse]


def _count_different(count: int) -> str:
    return {0: "no example of its own", 1: "only 1 different example"}.get(count, f"only {count} different examples")


def _mix(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Return uint64 keys whose order depends on the seed (the finalizer of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = hashes ^ (np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
