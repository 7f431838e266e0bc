"""Estimates of how long the evaluation will take; the probes must run on data of any size."""

import itertools
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import toy_images, toy_texts

from dltoolkit.data.image.dataset import ImageSplits
from dltoolkit.data.text import dataset as texts
from dltoolkit.data.text import encoders, vocabulary
from dltoolkit.evaluation import duration


@pytest.fixture(scope="module")
def images():
    pixels, labels = toy_images(20, side=8)
    rows = np.arange(60)
    splits = {"train": rows[rows % 5 > 1], "validation": rows[rows % 5 == 0], "test": rows[rows % 5 == 1]}
    return ImageSplits(
        images=pixels,
        labels=labels,
        names=[],
        classes=["a", "b", "c"],
        fingerprint="",
        source="",
        noun="image",
        **splits,
    )


def classifier(inputs):
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def test_of_images_times_the_model_and_the_linear_baseline(images, monkeypatch):
    monkeypatch.setattr(duration, "_timed", lambda function: (function(), 12.0)[1])  # seconds for 12 images
    monkeypatch.setattr(duration, "_linear_seconds", lambda *_: 5.0)
    model = classifier(keras.Input((8, 8, 3)))
    evaluation = duration.of_images(images)
    assert evaluation.what == "12 test and 12 validation images, majority-class and linear baselines, report"
    assert evaluation.seconds(model) == 24 * 1.0 + 5.0 + duration.REPORT_SECONDS
    longer = duration.of_images(images, "linear probe", extra_seconds=7.0, test_passes=2)
    assert longer.what.endswith("linear baselines, linear probe, report")
    assert longer.seconds(model) == 36 * 1.0 + 5.0 + 7.0 + duration.REPORT_SECONDS


def test_linear_seconds_is_proportional_to_the_training_examples(images, monkeypatch):
    fitted = []

    def fit(train, test):
        fitted.append((len(train), len(test)))

    duration._linear_seconds(images, 10_000, fit)
    assert fitted == [(36, 12)]
    monkeypatch.setattr(duration, "PROBE_TRAIN", 12)  # a third of the training split
    with monkeypatch.context() as patch:
        clock = itertools.cycle([0.0, 2.0])
        patch.setattr(duration, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        assert duration._linear_seconds(images, 10_000, fit) == 6.0
        assert duration._linear_seconds(images, 30, fit) == 6.0 * duration.UNTUNED
    assert fitted[1:] == [(12, 12)] * 2
    assert duration.of_images(images).seconds(classifier(keras.Input((8, 8, 3)))) > duration.REPORT_SECONDS


def test_of_texts_counts_tokens(tmp_path, monkeypatch):
    (tmp_path / "texts.csv").write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in toy_texts(60)))
    splits = texts.load(str(tmp_path / "texts.csv"))
    words = vocabulary.Vocabulary.build(splits.tokenized, splits.train, max_size=1000, min_df=1)
    splits.encoder = encoders.VocabularyEncoder(words, 16)
    inputs = keras.Input((None,), dtype="int32")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(len(words) + 2, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    assert duration.of_texts(splits).seconds(model) > duration.REPORT_SECONDS
    monkeypatch.setattr(duration, "_timed", lambda function: float(function().shape[0] > 0))
    monkeypatch.setattr(duration, "_linear_seconds", lambda *_: 0.0)
    rows = splits.sort_by_length("validation")
    probed = splits.token_ids.take(rows[len(rows) // 2 :][: duration.PROBE_BATCH_SIZE]).to_padded().size
    held_out = splits.token_ids.lengths[np.concatenate([splits.validation, splits.test])].sum()
    assert duration.of_texts(splits).seconds(model) == pytest.approx(held_out / probed + duration.REPORT_SECONDS)
