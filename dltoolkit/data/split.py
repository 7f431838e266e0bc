"""Honest splits: who is trained on, who picks the epoch, who is asked once at the end.

The content decides. Each example's bytes are hashed, the hash is mixed with the seed, and the order of these keys
within a class tells which examples are held out. So equal contents always land in the same part, the order of the
files does not matter, and adding a few files moves only a few of the old ones.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from dltoolkit.errors import UserError


def content_hashes(array: np.ndarray) -> np.ndarray:
    """Return one 64-bit hash per row of ``array`` (n, …): uint64 (n,). Equal rows have equal hashes.

    BLAKE2b (RFC 7693) of the row's bytes, cut to 8 bytes: among a million different rows, two share a hash with a
    probability of 3e-8.
    """
    rows = (hashlib.blake2b(np.ascontiguousarray(row), digest_size=8).digest() for row in array)
    return np.frombuffer(b"".join(rows), np.uint64)


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """Return one 64-bit hash per name: uint64 (n,)."""
    rows = (hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(rows), np.uint64)


def three_way(
    hashes: np.ndarray,
    labels: np.ndarray,
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int,
    classes: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Split examples into train, validation and test, each class in the same proportion.

    Args:
        hashes: uint64 (n,), from `content_hashes`.
        labels: integers (n,).
        validation, test: fractions of each class, between 0 and 1; every class gives at least one example to each part.
        seed: another seed, another split.
        classes: names for messages; by default the label's number.

    Returns:
        {"train", "validation", "test"}: int64 indices, ascending.

    Raises:
        UserError: if a class has fewer than three different examples.
    """
    if not 0 < validation < 1 or not 0 < test < 1 or validation + test >= 1:
        raise UserError(
            f"Held-out fractions of {validation} and {test} must be above 0 and leave something to train on."
        )
    part = _assign(hashes, labels, (("validation", validation), ("test", test)), seed, classes)
    return {name: np.flatnonzero(part == number) for number, name in enumerate(("train", "validation", "test"))}


def carve_validation(
    hashes: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    *,
    validation: float = 0.15,
    seed: int,
    classes: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a validation part from the ``train`` indices of a set that brings one held-out part only.

    Returns:
        What is left of train, and validation: int64 indices, ascending.

    Raises:
        UserError: if a class has fewer than two different examples to train on.
    """
    if not 0 < validation < 1:
        raise UserError(f"The validation fraction {validation} must lie between 0 and 1.")
    train = np.sort(train)
    part = _assign(hashes[train], labels[train], (("validation", validation),), seed, classes)
    return train[part == 0], train[part == 1]


def pick(
    keys: np.ndarray, labels: np.ndarray, count: int, *, seed: int, minimum: int = 1, parts: np.ndarray | None = None
) -> np.ndarray:
    """Return ``count`` indices (ascending int64), each class of each part in proportion to its size.

    Args:
        keys: uint64 (n,), hashes of names or contents; with the seed they decide who is taken.
        labels: integers (n,).
        count: how many to take; all if there are no more.
        minimum: taken from each class of each part as far as it has so many.
        parts: integers (n,), the given split of each example; by default one part.

    Raises:
        UserError: if ``count`` is too small for that minimum.
    """
    if count >= len(labels):
        return np.arange(len(labels))
    group = labels.astype(np.int64)
    if parts is not None:
        group = group + parts.astype(np.int64) * (int(labels.max()) + 1)
    _, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
    least = np.minimum(sizes, minimum)
    if least.sum() > count:
        raise UserError(f"A limit of {count} examples is too few for these classes: at least {least.sum()} are needed.")
    share = sizes * (count / sizes.sum())
    take = np.maximum(np.floor(share).astype(np.int64), least)
    while take.sum() > count:  # the minimum gave small groups more than their share: the best served give it back
        take[np.argmax(np.where(take > least, take - share, -np.inf))] -= 1
    while take.sum() < count:
        take[np.argmax(np.where(take < sizes, share - take, -np.inf))] += 1
    order = np.lexsort((_mixed(keys, seed), group))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(len(order)) - starts[group[order]]
    return np.sort(order[rank < take[group[order]]])


def per_class(hashes: np.ndarray, labels: np.ndarray, train: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Return the ``train`` indices reduced to at most ``count`` of each class, chosen by hash and seed (ascending)."""
    train = np.sort(train)
    order = np.lexsort((_mixed(hashes[train], seed), labels[train]))
    _, starts, sizes = np.unique(labels[train][order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    return np.sort(train[order[rank < count]])


def duplicates(hashes: np.ndarray) -> int:
    """Return how many examples repeat another one (all but the first of each content)."""
    return len(hashes) - len(np.unique(hashes))


def contradictions(hashes: np.ndarray, labels: np.ndarray) -> int:
    """Return how many contents appear under more than one label."""
    pairs = np.unique(np.stack([hashes, labels.astype(np.uint64)]), axis=1)[0]
    return int((np.unique(pairs, return_counts=True)[1] > 1).sum())


def leaked(hashes: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> int:
    """Return how many of the ``held_out`` examples have a content that is in ``train`` too."""
    return int(np.isin(hashes[held_out], hashes[train]).sum())


def _assign(
    hashes: np.ndarray,
    labels: np.ndarray,
    held_out: Sequence[tuple[str, float]],
    seed: int,
    classes: Sequence[str] | None,
) -> np.ndarray:
    """Return the part of each example: 0 for train, 1, 2, … for those held out."""
    contents, inverse = np.unique(hashes, return_inverse=True)
    owner = np.full(len(contents), np.iinfo(np.int64).max)
    np.minimum.at(owner, inverse, labels.astype(np.int64))  # a content under two labels counts for one of them
    keys = _mixed(contents, seed)
    part = np.zeros(len(contents), np.int8)
    needed = len(held_out) + 1
    for label in np.unique(labels):
        own = np.flatnonzero(owner == label)
        if len(own) < needed:
            name = classes[label] if classes is not None else label
            raise UserError(
                f"Class '{name}' has {_number(len(own))} of its own, but "
                f"{' and '.join(['train', *(n for n, _ in held_out)])} need one each: add more or remove the class."
            )
        own = own[np.argsort(keys[own])]
        taken = 0
        for number, (_, fraction) in enumerate(held_out, start=1):
            count = min(max(1, round(fraction * len(own))), len(own) - taken - (needed - number))
            # one part from each end of the order, so that a new file shifts each border by one at most
            chosen = own[:count] if number % 2 else own[len(own) - count :]
            part[chosen] = number
            taken += count
    return part[inverse]


def _number(count: int) -> str:
    return {0: "no example", 1: "only 1 different example"}.get(count, f"only {count} different examples")


def _mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Return uint64 keys that order ``hashes`` anew for each seed (SplitMix64's finaliser, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = hashes ^ (np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
