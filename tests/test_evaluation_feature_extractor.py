"""The small classifier whose features compare images: its cache, and its training under a time limit."""

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import toy_images

from dltoolkit.data.image.dataset import ImageSplits
from dltoolkit.evaluation import feature_extractor
from dltoolkit.training import time_limit


@pytest.fixture
def splits():
    pixels, labels = toy_images(10, side=8)
    rows = np.arange(30)
    parts = {"train": rows[::2], "validation": rows[1::4], "test": rows[3::4]}
    return ImageSplits(
        images=pixels, labels=labels, names=[], classes=["a", "b", "c"], fingerprint="toys", source="", **parts
    )


@pytest.fixture
def run(tmp_path):
    info = {"plan": {"batch_size": 4}}
    return SimpleNamespace(path=tmp_path, info=info, writes=True, update=lambda plan: info["plan"].update(plan))


def test_for_run_saves_a_classifier_that_the_time_limit_shortens_in_the_run(splits, run, isolated_cache, monkeypatch):
    monkeypatch.setattr(time_limit, "MIN_STEPS", 10)
    monkeypatch.setattr(feature_extractor, "MAX_STEPS", 60)
    first = feature_extractor.for_run(run, splits, max_time=0.001)
    assert first.limited_steps == run.info["plan"]["extractor_steps"] == 40, "the steps that were measured"
    assert not list(isolated_cache.glob("feature-extractor-*")), "other runs train a better one"
    again = feature_extractor.for_run(run, splits)
    assert again.limited_steps == 40
    np.testing.assert_allclose(again.features(splits.images)[0], first.features(splits.images)[0], rtol=1e-4, atol=1e-5)


def test_for_run_caches_a_classifier_with_all_steps(splits, run, isolated_cache, monkeypatch):
    monkeypatch.setattr(feature_extractor, "MAX_STEPS", 10)
    assert feature_extractor.for_run(run, splits, max_time=1000.0).limited_steps is None
    assert len(list(isolated_cache.glob("feature-extractor-*.keras"))) == 1
    assert not (run.path / feature_extractor.FILE).exists()
    assert run.info["plan"] == {"batch_size": 4}
