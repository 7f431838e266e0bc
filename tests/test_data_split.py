"""Splits are stratified, depend on contents and seed only, and do not leak."""

import numpy as np
import pytest

from dltoolkit.data import split
from dltoolkit.errors import UserError


@pytest.fixture
def examples():
    """Return the hashes of 300 different contents, and labels: 200, 80 and 20 examples of three classes."""
    contents = np.random.default_rng(0).integers(0, 256, (300, 12), np.uint8)
    return split.content_hashes(contents), np.repeat([0, 1, 2], [200, 80, 20])


def split_hashes(hashes, labels, **options) -> dict[str, set[int]]:
    splits = split.train_validation_test_split(hashes, labels, **options)
    return {name: set(hashes[rows].tolist()) for name, rows in splits.items()}


def test_content_hashes_are_equal_for_equal_rows():
    rows = np.array([[1, 2], [2, 1], [1, 2]], np.uint8)
    hashes = split.content_hashes(rows)
    assert hashes.dtype == np.uint64
    assert hashes[0] == hashes[2] != hashes[1]
    assert (split.content_hashes(np.asfortranarray(rows)) == hashes).all()


def test_group_keys_are_the_smallest_keys_of_their_groups():
    keys = np.array([9, 4, 2**64 - 1, 7, 4], np.uint64)
    assert split.group_keys(keys, np.array([5, 3, 1, 5, 3], np.uint64)).tolist() == [7, 4, 2**64 - 1, 7, 4]
    assert split.group_keys(keys, keys).tolist() == keys.tolist()


def test_train_validation_test_split_is_stratified(examples):
    hashes, labels = examples
    splits = split.train_validation_test_split(hashes, labels, validation=0.2, test=0.1, seed=1)
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(300))
    assert np.bincount(labels[splits["validation"]]).tolist() == [40, 16, 4]
    assert np.bincount(labels[splits["test"]]).tolist() == [20, 8, 2]


def test_train_validation_test_split_depends_on_the_seed_but_not_on_the_order(examples):
    hashes, labels = examples
    before = split_hashes(hashes, labels, seed=1)
    order = np.random.default_rng(1).permutation(300)
    assert split_hashes(hashes[order], labels[order], seed=1) == before
    other = split_hashes(hashes, labels, seed=2)
    assert len(before["test"] & other["test"]) < 20  # of 45; 7 are expected by chance


def test_train_validation_test_split_moves_few_examples_when_some_are_added(examples):
    hashes, labels = examples
    before = split_hashes(hashes, labels, seed=1)
    new = split.content_hashes(np.random.default_rng(9).integers(0, 256, (6, 12), np.uint8))
    after = split_hashes(np.concatenate([hashes, new]), np.append(labels, [0, 0, 0, 0, 1, 1]), seed=1)
    assert sum(len(before[name] - after[name]) for name in before) <= 6


def test_train_validation_test_split_keeps_duplicates_together(examples):
    hashes, labels = examples
    rows = np.random.default_rng(2).choice(300, 150)
    hashes = np.concatenate([hashes, hashes[rows]])
    labels = np.concatenate([labels, np.roll(labels[rows], 1)])  # some duplicates have another label
    splits = split_hashes(hashes, labels, seed=1)
    assert splits == split_hashes(hashes[::-1], labels[::-1], seed=1)
    assert not splits["train"] & splits["test"]
    assert not splits["train"] & splits["validation"]
    assert not splits["validation"] & splits["test"]


@pytest.mark.parametrize("seed", range(20))
def test_train_validation_test_split_needs_three_different_examples(seed):
    hashes, classes = split.content_hashes(np.arange(6, dtype=np.uint8)[:, None]), ["cat", "dog"]
    labels = np.array([0, 0, 0, 1, 1, 1])
    splits = split.train_validation_test_split(hashes, labels, seed=seed)
    assert all(len(rows) == 2 for rows in splits.values())
    with pytest.raises(UserError, match="'dog' has only 2 different"):
        split.train_validation_test_split(hashes[:5], labels[:5], seed=seed, classes=classes)
    same = hashes[[0, 1, 2, 3, 3, 3]]
    with pytest.raises(UserError, match="'dog' has only 1 different"):
        split.train_validation_test_split(same, labels, seed=seed, classes=classes)


@pytest.mark.parametrize("fractions", [(0, 0.1), (0.1, 0), (0.5, 0.5), (-0.1, 0.1), (1.2, 0.1)])
def test_train_validation_test_split_refuses_wrong_fractions(examples, fractions):
    with pytest.raises(UserError, match="fraction"):
        split.train_validation_test_split(*examples, validation=fractions[0], test=fractions[1], seed=0)


def test_split_validation_is_stratified(examples):
    hashes, labels = examples
    train, validation = split.split_validation(hashes, labels, np.arange(0, 300, 2), validation=0.2, seed=0)
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(0, 300, 2))
    assert np.bincount(labels[validation]).tolist() == [20, 8, 2]
    with pytest.raises(UserError, match="'c' has only 1 different"):
        split.split_validation(hashes, labels, np.append(np.arange(150), 299), seed=0, classes=["a", "b", "c"])


def test_stratified_sample_keeps_proportions_and_a_minimum(examples):
    hashes, labels = examples
    splits = np.tile([0, 0, 0, 1], 75)
    rows = split.stratified_sample(hashes, labels, 60, seed=0, splits=splits)
    assert len(rows) == 60
    assert np.array_equal(rows, np.unique(rows))
    assert np.bincount(labels[rows]).tolist() == [40, 16, 4]
    assert np.bincount(splits[rows]).tolist() == [45, 15]
    assert np.bincount(labels[split.stratified_sample(hashes, labels, 12, seed=0, minimum=3)]).tolist() == [6, 3, 3]
    assert len(split.stratified_sample(hashes, labels, 1000, seed=0)) == 300
    assert not np.array_equal(rows, split.stratified_sample(hashes, labels, 60, seed=1, splits=splits))
    with pytest.raises(UserError, match="at least 9"):
        split.stratified_sample(hashes, labels, 8, seed=0, minimum=3)


def test_stratified_sample_contains_smaller_samples(examples):
    small, large = (set(split.stratified_sample(*examples, count, seed=0).tolist()) for count in (30, 120))
    assert small < large


def test_sample_per_class_limits_each_class(examples):
    hashes, labels = examples
    train = np.arange(10, 300)
    rows = split.sample_per_class(hashes, labels, train, 30, seed=0)
    assert np.bincount(labels[rows]).tolist() == [30, 30, 20]
    assert set(rows) < set(train)


def test_counts_of_conflicts_and_leaks():
    hashes = np.array([5, 5, 5, 6, 7, 7], np.uint64)
    labels = np.array([0, 0, 1, 1, 1, 1])
    assert split.conflicting_labels(hashes, labels) == 1
    assert split.count_leaked(hashes, np.array([1, 3]), np.array([0, 4])) == 1
