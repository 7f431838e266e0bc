"""Images and labels from .npz files and the bundled digits: keys, splits and the types of labels."""

import numpy as np
import pytest
from conftest import toy_images

from dltoolkit.data.readers import arrays
from dltoolkit.errors import UserError


def test_digits_are_8_bit_images():
    ((images, labels),) = arrays.digits().values()
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert labels.shape == (1797,)


@pytest.mark.parametrize(
    ("keys", "splits"),
    [
        (["x_train", "y_train", "x_val", "y_val", "x_test", "y_test"], ["train", "validation", "test"]),
        (["train_images", "train_labels"], ["train"]),
        (["images", "labels"], [""]),
        (["x", "y", "x_train", "y_train", "note"], ["train"]),  # without a split only if there are no splits
    ],
)
def test_read_npz_finds_the_pairs_of_each_split(tmp_path, keys, splits):
    np.savez(tmp_path / "a.npz", **{key: np.full(2, number) for number, key in enumerate(keys)})
    pairs, classes, warnings = arrays.read_npz(tmp_path / "a.npz")
    unused = [f"{tmp_path / 'a.npz'} has arrays for each split, so its arrays x and y are not used."]
    assert (classes, warnings) == (None, unused if keys[0] == "x" else [])
    assert sorted(pairs) == sorted(splits)
    for images, labels in pairs.values():
        assert labels[0] == images[0] + 1  # the key of the labels follows that of the images


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: labels,
        lambda labels: labels[:, None],
        lambda labels: labels.astype(float),
        lambda labels: np.eye(3)[labels],
        lambda labels: np.array(["0", "1", "2"])[labels],
        lambda labels: np.array([b"0", b"1", b"2"])[labels],
    ],
)
def test_class_indices_accepts_labels_of_many_types(change):
    labels = toy_images(4)[1]
    indices, classes, warnings = arrays.class_indices([change(labels[:7]), change(labels[7:])], None, "toys")
    assert indices.dtype == np.int32
    assert (indices == labels).all()
    assert (classes, warnings) == (["0", "1", "2"], [])


def test_class_indices_uses_the_names_of_the_classes():
    indices, classes, _ = arrays.class_indices([np.array([2, 0])], ["cat", "dog", "owl"], "toys")
    assert indices.tolist() == [2, 0]
    assert classes == ["cat", "dog", "owl"]


def test_class_indices_takes_labels_with_outer_spaces_as_tables_do():
    indices, classes, _ = arrays.class_indices([np.array(["cat", " cat", "dog\u00a0", "dog"])], None, "toys")
    assert (indices.tolist(), classes) == ([0, 0, 1, 1], ["cat", "dog"])


def test_class_indices_refuses_quantities_and_warns_of_many_numbers():
    with pytest.raises(UserError, match=r"The labels of toys are numbers such as 0 \(regression\)"):
        arrays.class_indices([np.arange(60)], None, "toys")
    warning = "The labels of toys are 90 numbers from 0 to 89; each becomes a class, without their order."
    assert arrays.class_indices([np.arange(900) % 90], None, "toys")[2] == [warning]
    assert arrays.class_indices([np.eye(90)[np.arange(900) % 90]], None, "toys")[2] == [], "one-hot labels are classes"


def write_npz(path, **more):
    np.savez(path / "a.npz", x=np.zeros((3, 8, 8)), y=np.array([0, 2, 1]), **more)
    return path / "a.npz"


def test_read_npz_takes_the_names_of_the_classes(tmp_path):
    assert arrays.read_npz(write_npz(tmp_path, class_names=["cat", "dog ", "owl"])).classes == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"class_names": ["cat", "dog"]}, "class_names has 2 names for labels from 0 to 2"),
        ({"label_names": ["cat", "dog", "dog"]}, "give each label a name of its own"),
        ({"images": np.zeros((9, 8, 8)), "labels": np.zeros(9)}, "has the arrays x and images"),
    ],
)
def test_read_npz_refuses_arrays_of_doubtful_meaning(tmp_path, more, words):
    with pytest.raises(UserError, match=words):
        arrays.read_npz(write_npz(tmp_path, **more))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0.5, 1.0]), "fractional"),
        (np.array([0, 1, np.nan, np.inf]), r"Label 2 of 4 in toys, counted from 0, is missing \(NaN\)"),
        (np.array([[0], [np.inf]]), "Label 1 of 2 in toys, counted from 0, is infinite"),
        (np.array(["cat", "", "dog"]), "Label 1 of 3 in toys, counted from 0, is missing"),
        (np.array([b"cat", b"dog", b" "]), "Label 2 of 3 in toys, counted from 0, is missing"),
        (np.array([[1, 1], [0, 1]]), "not one class in each row"),
        (np.zeros((2, 3, 4)), "one label for each image"),
    ],
)
def test_class_indices_refuses_other_labels(labels, words):
    with pytest.raises(UserError, match=words):
        arrays.class_indices([labels], None, "toys")


def test_boolean_labels_are_called_as_in_tables():
    labels = np.array([True, False, True])
    assert arrays.class_indices([labels], None, "a.npz")[1] == ["False", "True"]
    indices, names, _ = arrays.class_indices([labels], ["cat", "dog"], "a.npz")
    assert (indices.tolist(), names) == ([1, 0, 1], ["cat", "dog"])
