"""Splits: stratified, decided by content and seed, and nothing leaks."""

import numpy as np
import pytest

from dltoolkit.data import split
from dltoolkit.errors import UserError


@pytest.fixture
def labeled():
    """Hashes of 300 different contents, with 200, 80 and 20 of three classes."""
    contents = np.random.default_rng(0).integers(0, 256, (300, 12), np.uint8)
    return split.content_hashes(contents), np.repeat([0, 1, 2], [200, 80, 20])


def parts_by_hash(hashes, parts):
    return {part: set(hashes[rows].tolist()) for part, rows in parts.items()}


def test_equal_contents_have_equal_hashes():
    rows = np.array([[1, 2], [2, 1], [1, 2]], np.uint8)
    hashes = split.content_hashes(rows)
    assert hashes.dtype == np.uint64
    assert hashes[0] == hashes[2] != hashes[1]
    assert (split.content_hashes(np.asfortranarray(rows)) == hashes).all()


def test_each_class_is_split_in_proportion(labeled):
    hashes, labels = labeled
    parts = split.three_way(hashes, labels, validation=0.2, test=0.1, seed=1)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(300))
    assert np.bincount(labels[parts["validation"]]).tolist() == [40, 16, 4]
    assert np.bincount(labels[parts["test"]]).tolist() == [20, 8, 2]


def test_order_does_not_matter_but_the_seed_does(labeled):
    hashes, labels = labeled
    before = parts_by_hash(hashes, split.three_way(hashes, labels, seed=1))
    shuffled = np.random.default_rng(1).permutation(300)
    after = parts_by_hash(hashes[shuffled], split.three_way(hashes[shuffled], labels[shuffled], seed=1))
    assert before == after
    other = parts_by_hash(hashes, split.three_way(hashes, labels, seed=2))
    assert len(before["test"] & other["test"]) < 20  # of 45; 7 by chance


def test_new_examples_move_few_of_the_old(labeled):
    hashes, labels = labeled
    before = parts_by_hash(hashes, split.three_way(hashes, labels, seed=1))
    more = np.concatenate([hashes, split.content_hashes(np.random.default_rng(9).integers(0, 256, (6, 12), np.uint8))])
    after = parts_by_hash(more, split.three_way(more, np.append(labels, [0, 0, 0, 0, 1, 1]), seed=1))
    moved = sum(len(before[part] - after[part]) for part in before)
    assert moved <= 6


def test_copies_stay_together_whatever_their_label(labeled):
    hashes, labels = labeled
    again = np.random.default_rng(2).choice(300, 150)
    hashes = np.concatenate([hashes, hashes[again]])
    labels = np.concatenate([labels, np.roll(labels[again], 1)])  # some under another label than the original
    parts = parts_by_hash(hashes, split.three_way(hashes, labels, seed=1))
    assert parts == parts_by_hash(hashes[::-1], split.three_way(hashes[::-1], labels[::-1], seed=1))
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["validation"]
    assert not parts["validation"] & parts["test"]


@pytest.mark.parametrize("seed", range(20))
def test_three_examples_are_enough_and_two_are_not(seed):
    hashes = split.content_hashes(np.arange(6, dtype=np.uint8)[:, None])
    parts = split.three_way(hashes, np.array([0, 0, 0, 1, 1, 1]), seed=seed)
    assert all(len(rows) == 2 for rows in parts.values())
    with pytest.raises(UserError, match="'dog' has only 2 different"):
        split.three_way(hashes[:5], np.array([0, 0, 0, 1, 1]), seed=seed, classes=["cat", "dog"])
    with pytest.raises(UserError, match="'dog' has only 1 different"):  # three files, one content
        split.three_way(hashes[[0, 1, 2, 3, 3, 3]], np.array([0, 0, 0, 1, 1, 1]), seed=seed, classes=["cat", "dog"])


@pytest.mark.parametrize("fractions", [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.1), (1.2, 0.1)])
def test_absurd_fractions(labeled, fractions):
    with pytest.raises(UserError, match="fraction"):
        split.three_way(*labeled, validation=fractions[0], test=fractions[1], seed=0)


def test_carve_validation(labeled):
    hashes, labels = labeled
    train, validation = split.carve_validation(hashes, labels, np.arange(0, 300, 2), validation=0.2, seed=0)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(0, 300, 2))
    assert np.bincount(labels[validation]).tolist() == [20, 8, 2]
    with pytest.raises(UserError, match="'c' has only 1 different"):
        split.carve_validation(hashes, labels, np.append(np.arange(150), 299), seed=0, classes=["a", "b", "c"])


def test_pick_keeps_proportions_and_a_minimum(labeled):
    hashes, labels = labeled
    parts = np.tile([0, 0, 0, 1], 75)
    taken = split.pick(hashes, labels, 60, seed=0, parts=parts)
    assert len(taken) == 60
    assert np.array_equal(taken, np.unique(taken))
    assert np.bincount(labels[taken]).tolist() == [40, 16, 4]
    assert np.bincount(parts[taken]).tolist() == [45, 15]
    assert np.bincount(labels[split.pick(hashes, labels, 12, seed=0, minimum=3)]).tolist() == [6, 3, 3]
    assert len(split.pick(hashes, labels, 1000, seed=0)) == 300
    assert not np.array_equal(taken, split.pick(hashes, labels, 60, seed=1, parts=parts))
    with pytest.raises(UserError, match="at least 9"):
        split.pick(hashes, labels, 8, seed=0, minimum=3)


def test_a_larger_pick_contains_the_smaller(labeled):
    hashes, labels = labeled
    small, large = (set(split.pick(hashes, labels, n, seed=0).tolist()) for n in (30, 120))
    assert small < large


def test_per_class(labeled):
    hashes, labels = labeled
    train = np.arange(10, 300)
    chosen = split.per_class(hashes, labels, train, 30, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [30, 30, 20]
    assert set(chosen) < set(train)


def test_counting_copies_leaks_and_contradictions():
    hashes = np.array([5, 5, 5, 6, 7, 7], np.uint64)
    labels = np.array([0, 0, 1, 1, 1, 1])
    assert split.duplicates(hashes) == 3
    assert split.contradictions(hashes, labels) == 1
    assert split.leaked(hashes, np.array([1, 3]), np.array([0, 4])) == 1
