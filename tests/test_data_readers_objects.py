"""Data of a Python program: every form gives the labels, splits and fingerprint of the same data in files."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dltoolkit import config, data_object
from dltoolkit.data import task
from dltoolkit.data.image import dataset as images
from dltoolkit.data.language import corpus
from dltoolkit.data.readers import source
from dltoolkit.data.text import dataset as texts
from dltoolkit.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
DIGITS = np.arange(30) % 3
TEXTS = [f"text number {i} is {'good' if i % 2 else 'bad'}" for i in range(30)]
NAMES = ["good" if i % 2 else "bad" for i in range(30)]


class Missing:
    """The missing value of pandas, which cannot be compared."""


Missing.__name__ = "NAType"


class Column(list):
    """A column of a DataFrame."""

    def to_list(self):
        return list(self)


class Frame:
    """What is used of a pandas or polars DataFrame."""

    def __init__(self, **columns):
        self._columns = {name: Column(values) for name, values in columns.items()}

    @property
    def columns(self):
        return list(self._columns)

    def __getitem__(self, name):
        return self._columns[name]


def load_images(data, **options):
    return images.load(data_object.wrap(data), **options)


def load_texts(data, **options):
    return texts.load(data_object.wrap(data), **options)


def same(splits, expected):
    assert splits.classes == expected.classes
    for name in ("train", "validation", "test"):
        assert getattr(splits, name).tolist() == getattr(expected, name).tolist()
    assert splits.labels.tolist() == expected.labels.tolist()
    assert splits.fingerprint == expected.fingerprint


def test_images_in_every_form_are_those_of_an_npz_file(tmp_path):
    np.savez(tmp_path / "data.npz", images=PIXELS, labels=DIGITS)
    expected = images.load(str(tmp_path / "data.npz"))
    assert expected.counts() == {"train": 18, "validation": 6, "test": 6}
    one_hot = np.eye(3, dtype=np.float32)[DIGITS]
    dataset = tf.data.Dataset.from_tensor_slices((PIXELS, DIGITS))
    forms = (
        (PIXELS, DIGITS),
        (PIXELS, DIGITS[:, None]),
        (PIXELS, one_hot),
        (tf.constant(PIXELS), tf.constant(DIGITS)),
        (list(PIXELS), DIGITS.tolist()),
        list(zip(PIXELS, DIGITS)),
        list(zip(PIXELS, DIGITS.astype(str))),
        Frame(image=PIXELS, label=DIGITS),
        Frame(image=[Image.fromarray(each) for each in PIXELS], label=DIGITS.astype(float)),
        dataset,
        dataset.batch(7),
        tf.data.Dataset.from_tensor_slices((PIXELS, one_hot)).batch(7),
    )
    for form in forms:
        splits = load_images(form)
        same(splits, expected)
        assert splits.images.tolist() == expected.images.tolist()
    assert load_images((PIXELS, DIGITS)).names[3] == "arrays[3]"


def test_texts_in_every_form_are_those_of_a_table(tmp_path):
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, NAMES))
    (tmp_path / "data.csv").write_text(f"text,label\n{rows}")
    expected = texts.load(str(tmp_path / "data.csv"))
    dataset = tf.data.Dataset.from_tensor_slices((TEXTS, NAMES))
    forms = (
        list(zip(TEXTS, NAMES)),
        [[text.encode(), name] for text, name in zip(TEXTS, NAMES)],
        (TEXTS, NAMES),
        (np.array(TEXTS), np.array(NAMES)),
        (np.array(TEXTS, object), np.array(NAMES, object)),
        Frame(text=TEXTS, label=NAMES),
        Frame(id=range(30), sentiment=NAMES, review=TEXTS),
        dataset,
        dataset.batch(4),
    )
    for form in forms:
        splits = load_texts(form)
        same(splits, expected)
        assert splits.texts == TEXTS
    assert load_texts(Frame(text=TEXTS, label=NAMES)).columns == {"text": "text", "label": "label"}


def test_a_frame_with_a_column_twice_or_without_values_is_refused():
    class Twice(Frame):
        columns: ClassVar = ["text", "label", "label"]

    class Lazy(Frame):
        def collect(self):
            """Return the values, as polars does."""

    with pytest.raises(UserError, match="has several columns 'label': keep one of them"):
        load_texts(Twice(text=TEXTS, label=NAMES))
    with pytest.raises(UserError, match=r"is lazy: give its values, frame.collect\(\)"):
        load_texts(Lazy(text=TEXTS, label=NAMES))


def test_predefined_splits_are_kept():
    parts = {"train": slice(0, 20), "val": slice(20, 25), "test": slice(25, 30)}
    arrays = load_images({name: (PIXELS[rows], DIGITS[rows]) for name, rows in parts.items()})
    pairs = load_texts({name: list(zip(TEXTS[rows], NAMES[rows])) for name, rows in parts.items()})
    frames = load_texts({name: Frame(text=TEXTS[rows], label=NAMES[rows]) for name, rows in parts.items()})
    column = load_texts(Frame(text=TEXTS, label=NAMES, split=["train"] * 20 + ["val"] * 5 + ["test"] * 5))
    for splits in (arrays, pairs, frames, column):
        assert splits.train.tolist() == list(range(20))
        assert (splits.validation.tolist(), splits.test.tolist()) == ([*range(20, 25)], [*range(25, 30)])
    assert (pairs.split_origin, column.split_origin) == (
        "predefined by the dictionary",
        "predefined by the column 'split'",
    )
    without_test = load_images({"train": (PIXELS[:25], DIGITS[:25]), "validation": (PIXELS[25:], DIGITS[25:])})
    assert without_test.test.tolist() == [*range(25, 30)], "a single held-out split is the test split"
    assert load_images({"train": (PIXELS, DIGITS)}).test.tolist() == load_images((PIXELS, DIGITS)).test.tolist()


def test_deep_images_and_images_of_several_sizes_share_one_scale():
    deep = PIXELS.astype(np.uint16) * 16
    deep_splits = load_images((deep, DIGITS))
    assert deep_splits.preprocessing.scale.high == 4095
    ragged = [image[: 8 - i % 2] for i, image in enumerate(deep)]
    splits = load_images((ragged, DIGITS), image_size=8)
    assert splits.preprocessing.scale.high == 4095
    assert splits.images[0].tolist() == deep_splits.images[0].tolist()


def test_paths_in_pairs_are_images(tmp_path):
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    for form in ([tmp_path / f"{i}.png" for i in range(30)], [str(tmp_path / f"{i}.png") for i in range(30)]):
        splits = load_images(list(zip(form, DIGITS)))
        assert splits.images.tolist() == PIXELS.tolist()
        assert splits.names[3] == str(tmp_path / "3.png")


def test_images_without_labels_have_one_class():
    for form in (PIXELS, list(PIXELS), {"train": PIXELS[:20], "test": PIXELS[20:]}):
        assert load_images(form, labeled=False).classes == ["all"]
    with pytest.raises(UserError, match=r"python:arrays has no labels: give \(x, y\)"):
        load_images(PIXELS)


def test_a_corpus_is_a_list_of_texts(tmp_path):
    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS))
    expected = corpus.load(str(tmp_path / "corpus.txt"), cache_dir=tmp_path)
    for form in (TEXTS, np.array(TEXTS), Frame(text=TEXTS), tf.data.Dataset.from_tensor_slices(TEXTS)):
        loaded = corpus.load(data_object.wrap(form), cache_dir=tmp_path)
        assert (loaded.fingerprint, loaded.splits) == (expected.fingerprint, expected.splits)
    split = corpus.load(data_object.wrap({"train": TEXTS[:20], "test": TEXTS[20:]}), cache_dir=tmp_path)
    assert split.characters["test"] == len("\n".join(TEXTS[20:]))
    with pytest.raises(UserError, match=r"holds numbers of shape \(30, 8, 8, 3\), not texts"):
        corpus.load(data_object.wrap(PIXELS), cache_dir=tmp_path)
    with pytest.raises(UserError, match="is not UTF-8: byte 0xef in line 1"):
        corpus.load(data_object.wrap(tf.data.Dataset.from_tensor_slices([b"good", b"na\xefve"])), cache_dir=tmp_path)


def test_the_task_follows_from_the_first_example(tmp_path):
    forms = {
        "image": (
            (PIXELS, DIGITS),
            list(zip(PIXELS, DIGITS)),
            [(Path("x.png"), 1), (Path("y.png"), 2)],
            Frame(image=["a.jpg"], label=[1]),
            Frame(pixels=[PIXELS[0]], label=[1]),
            {"train": (PIXELS, DIGITS)},
            tf.data.Dataset.from_tensor_slices((PIXELS, DIGITS)),
        ),
        "text": (
            (TEXTS, NAMES),
            list(zip(TEXTS, NAMES)),
            (np.array(TEXTS), NAMES),
            Frame(text=TEXTS, label=NAMES),
            {"train": list(zip(TEXTS, NAMES))},
            tf.data.Dataset.from_tensor_slices((TEXTS, NAMES)),
        ),
    }
    for expected, values in forms.items():
        for value in values:
            assert task.detect(source.resolve(data_object.wrap(value))) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((PIXELS, DIGITS[:29]), r"python:arrays has 30 images but 29 labels"),
        ((PIXELS, np.eye(3)[DIGITS] * 2), "not one class in each row"),
        ((PIXELS, DIGITS + 0.5), "fractional labels"),
        ((PIXELS[..., 0, 0], DIGITS), r"\(30, 8\)"),
        ((PIXELS, [None, *DIGITS[1:].tolist()]), "no label for the example 0"),
        ((PIXELS[:0], []), "has no images"),
        ({"train": (PIXELS, DIGITS), "extra": (PIXELS, DIGITS)}, "has the key 'extra'"),
        ({"test": (PIXELS, DIGITS)}, "no data for train"),
        ({"train": (PIXELS, DIGITS), "test": [("a.png", 1)]}, "splits of different forms"),
        (tf.data.Dataset.from_tensor_slices((PIXELS, DIGITS)).repeat(), "is endless"),
        (tf.data.Dataset.from_tensor_slices((PIXELS, DIGITS, DIGITS)), "elements that are not"),
        (tf.data.Dataset.from_tensor_slices(PIXELS), "no labels"),
        (TEXTS, "no labels"),
    ],
)
def test_wrong_objects_are_refused_in_one_short_sentence(data, message):
    with pytest.raises(UserError, match=message) as caught:
        load_images(data)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((PIXELS, DIGITS), r"numbers of shape \(30, 8, 8, 3\), not texts"),
        ([("a", "x"), ("b", None)] * 5, "no label for the example 1"),
        (Frame(text=[*TEXTS[:29], Missing()], label=NAMES), "empty"),
        (Frame(text=TEXTS, label=[*NAMES[:29], Missing()]), r"has nothing in the column 'label'"),
        (
            [(text, number / 4) for number, text in enumerate(TEXTS)],
            r"labels of python:pairs are numbers such as 0\.25 \(regression\), which .* train: divide the numbers into",
        ),
        (Frame(words=TEXTS, label=NAMES), r"Select one with text_column\."),
        ([(text, ["a", "b"][: 1 + number % 2]) for number, text in enumerate(TEXTS)], "lists of different lengths"),
        ({"train": Frame(text=TEXTS, label=NAMES), "test": Frame(text=TEXTS)}, "lacks the column 'label'"),
    ],
)
def test_wrong_texts_are_refused_in_one_short_sentence(data, message):
    with pytest.raises(UserError, match=message) as caught:
        load_texts(data)
    assert len(str(caught.value)) < 300


class TestConfig:
    """The value of ``data`` in a config."""

    wrong: ClassVar = [3.5, {1, 2}, PIXELS.tolist()[0], object(), [1, 2, 3], (1, 2, 3)]

    def test_an_object_is_shown_by_its_kind(self):
        made = config.RunConfig(data=(PIXELS, DIGITS))
        assert made.data == "python:arrays"
        assert made.to_dict()["data"] == "python:arrays"
        assert len(repr(made)) < 500
        assert made.resolve(seed=1).data.value[0] is PIXELS
        for value, kind in ((TEXTS, "texts"), (list(zip(TEXTS, NAMES)), "pairs"), ({"train": TEXTS}, "splits")):
            assert config.RunConfig(data=value).data == f"python:{kind}"

    @pytest.mark.parametrize("value", wrong, ids=range(len(wrong)))
    def test_other_objects_are_refused_without_their_contents(self, value):
        with pytest.raises(UserError, match="data must be a path or name, arrays") as caught:
            config.RunConfig(data=value)
        assert len(str(caught.value)) < 300

    def test_an_empty_list_is_refused_as_such(self):
        with pytest.raises(UserError, match=r"not an empty list\.$"):
            config.RunConfig(data=[])

    def test_no_error_contains_an_array(self):
        with pytest.raises(UserError, match=r"epochs must be a whole number, not an array"):
            config.RunConfig(epochs=PIXELS)
        with pytest.raises(UserError, match=r"precision must be one of .*, not an array"):
            config.RunConfig(precision=PIXELS)

    def test_data_of_an_earlier_program_are_asked_for(self):
        with pytest.raises(UserError, match=r"dltoolkit.resume\(run, data=…\)"):
            source.resolve("python:arrays")
