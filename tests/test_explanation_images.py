"""Explanations of images: the methods find the patch that decides, add up, and depend on the weights."""

import json
import shutil

import keras
import numpy as np
import pytest
import toy_explanations
from dltoolkit.recipes import image_classifier
from PIL import Image

import dltoolkit
from dltoolkit import explanation
from dltoolkit.errors import UserError
from dltoolkit.explanation import (
    answering,
    class_maps,
    faithfulness,
    image_explainer,
    image_faithfulness,
    image_perturbation,
    reporting,
)
from dltoolkit.models.image import classifiers

PIXEL_METHODS = ["occlusion", "rise", "grad-cam", "integrated-gradients", "smooth-grad", "gradient-x-input"]


@pytest.fixture(scope="module")
def random_explainer(patches_run):
    keras.utils.set_random_seed(0)
    model = keras.models.clone_model(patches_run.model)
    model.jit_compile = False
    return with_model(patches_run, model)


def with_model(run, model):
    """Return the explainer of the run with another model."""
    other = dltoolkit.load(run.path)
    other._model = model
    return image_explainer.ImageExplainer(other)


def points_at_patch(explainer, method, count=40):
    """Return the part of the images whose largest value, after smoothing over the patch, lies in the patch."""
    hits = 0
    for number in range(count):
        image, place = toy_explanations.patch_image(number % 2, 1000 + number)
        values = explainer.attribute(method, image, [number % 2])[0][0]
        sums = np.lib.stride_tricks.sliding_window_view(values, (3, 3)).sum(axis=(2, 3))
        row, column = np.array(np.unravel_index(sums.argmax(), sums.shape)) + 1
        hits += place[0].start <= row < place[0].stop and place[1].start <= column < place[1].stop
    return hits / count


@pytest.mark.parametrize("method", PIXEL_METHODS)
def test_the_largest_values_lie_in_the_patch_that_decides(patches_run, method):
    assert points_at_patch(patches_run.explainer, method) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("method", ["occlusion", "grad-cam"])
def test_the_largest_values_of_a_trained_network_lie_in_the_patch(trained_run, method):
    assert trained_run.metrics["test"]["accuracy"] > 0.95
    assert points_at_patch(trained_run.explainer, method) > 0.95


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    folder = toy_explanations.write_images(tmp_path_factory.mktemp("patches") / "many", 150)
    config = image_classifier.Config(
        **{"data": str(folder), "out_dir": str(folder.parent / "runs"), "model": "cnn", "widths": (32,)},
        **{"epochs": 10, "batch_size": 16, "augment": False, "optimizer": "adamw", "learning_rate": 3e-3},
    )
    return image_classifier.train(config)


def test_the_methods_are_those_that_the_model_can_have(patches_run):
    assert patches_run.explainer.available == PIXEL_METHODS


@pytest.mark.parametrize("method", PIXEL_METHODS)
def test_randomized_weights_change_the_map(patches_run, random_explainer, method):
    """Adebayo et al., "Sanity Checks for Saliency Maps", 2018. The same weights would give a correlation of 1."""
    images = [toy_explanations.patch_image(number % 2, number)[0] for number in range(6)]
    correlations = []
    for image in images:
        values, changed = (
            each.attribute(method, image, [0])[0][0] for each in (patches_run.explainer, random_explainer)
        )
        correlations.append(np.corrcoef(values.ravel(), changed.ravel())[0, 1])
    assert np.mean(correlations) < 0.8


def test_integrated_gradients_add_up_to_the_log_odds(patches_run):
    image, _ = toy_explanations.patch_image(1, 3)
    values = patches_run.explainer.attribute("integrated-gradients", image, [0, 1])[0]
    starts = np.rint(explanation.gradients.baselines(image)).astype(np.uint8)
    logits = patches_run.explainer.logits([image, *starts])
    for target in (0, 1):
        odds = answering.log_odds(logits, target)
        expected = odds[0] - odds[1:].mean()
        assert values[target].sum() == pytest.approx(expected, rel=0.01)


def test_the_last_convolution_is_found_in_nested_and_sequential_models_and_behind_flips(patches_run):
    image, _ = toy_explanations.patch_image(0, 7)
    plain = toy_explanations.matched_network()
    sequential = keras.Sequential([keras.layers.Input((16, 16, 1)), *plain.layers[1:]])

    def grad_cam(model, image):
        model.jit_compile = False
        explainer = with_model(patches_run, model)
        assert explainer.available == PIXEL_METHODS
        return explainer.attribute("grad-cam", image, [0])[0][0]

    expected = grad_cam(plain, image)
    for model in (toy_explanations.matched_network(nested=True), sequential):
        assert grad_cam(model, image) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    both = (expected + grad_cam(plain, image[:, ::-1])[:, ::-1]) / 2
    assert grad_cam(classifiers.with_flip_tta(plain), image) == pytest.approx(both, rel=1e-3, abs=1e-4)


def test_attention_of_a_vision_transformer_finds_the_patches_it_reads(patches_run):
    model = classifiers.build("vit", (16, 16, 1), 2, widths=(32,))
    model.jit_compile = False
    explainer = with_model(patches_run, model)
    assert explainer.available[2:4] == ["attention-rollout", "attention-gradient"]
    for method in explainer.available[2:4]:
        values = explainer.attribute(method, toy_explanations.patch_image(0, 1)[0], [0])[0][0]
        assert values.shape == (16, 16) and values.min() >= 0 and values.max() > 0
    with pytest.raises(UserError, match="because it needs a layer of convolution.*or one of occlusion, rise"):
        explainer.resolve("grad-cam")


def test_auto_takes_the_fastest_of_the_most_faithful_methods_and_stores_the_figures(patches_run, tmp_path, monkeypatch):
    copy = dltoolkit.load(shutil.copytree(patches_run.path, tmp_path / "run"))
    monkeypatch.setattr(faithfulness, "EXAMPLES", 8)
    image, _ = toy_explanations.patch_image(0, 5)
    first = copy.explain(image)
    figures = json.loads((copy.path / "explanations" / "faithfulness.json").read_text())
    assert first.method == figures["auto"]
    assert figures["examples"] == 8 and set(figures["methods"]) | set(figures["skipped"]) == set(PIXEL_METHODS)
    assert first.faithfulness["better_than_random"]
    assert {"mean color", "blur", "score", "random"} <= first.faithfulness.keys()
    written = (copy.path / "explanations" / "faithfulness.json").stat().st_mtime_ns
    assert dltoolkit.load(copy.path).explain(image).method == first.method
    assert (copy.path / "explanations" / "faithfulness.json").stat().st_mtime_ns == written


def test_the_most_faithful_method_gives_way_to_a_faster_one_that_is_not_measurably_worse():
    rng = np.random.default_rng(0)
    scores = {"slow": rng.normal(0.5, 0.1, 50), "fast": rng.normal(0.49, 0.1, 50), "bad": rng.normal(0.1, 0.1, 50)}
    measured = {
        name: {"seconds": seconds, "better_than_random": True}
        for name, seconds in (("slow", 1.0), ("fast", 0.1), ("bad", 0.01))
    }
    assert faithfulness.best(scores, measured, "slow") == "fast"
    measured["fast"]["better_than_random"] = False
    assert faithfulness.best(scores, measured, "slow") == "slow"
    measured["slow"]["better_than_random"] = measured["bad"]["better_than_random"] = False
    assert faithfulness.best(scores, measured, "bad") == "bad"


def test_a_difference_that_is_certain_but_tiny_makes_no_method_better():
    rng = np.random.default_rng(0)
    assert not faithfulness.is_better(np.full(50, 1e-3), rng.normal(0, 1e-5, 50))
    assert not faithfulness.is_better(rng.normal(0.1, 1, 50), np.zeros(50))
    assert faithfulness.is_better(rng.normal(0.2, 0.1, 50), np.zeros(50))


def test_figures_of_another_model_are_not_used(patches_run, tmp_path, monkeypatch, capfd):
    copy = dltoolkit.load(shutil.copytree(patches_run.path, tmp_path / "run"))
    file = tmp_path / "run" / "explanations" / "faithfulness.json"
    file.parent.mkdir()
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    rise = {"seconds": 0.1, "better_than_random": True, "figures": {"score": interval}}
    figures = {
        **{"model_sha256": copy.explainer.model_sha256, "examples": 50, "methods": {"rise": rise}},
        **{"random": {"score": interval}, "skipped": {}, "auto": "rise"},
    }
    file.write_text(json.dumps(figures))
    assert copy.explainer.resolve("auto")[0] == "rise"
    file.write_text(json.dumps({**figures, "model_sha256": "0" * 64}))
    monkeypatch.setitem(copy.info["config"], "data", str(tmp_path / "moved"))
    assert copy.explainer.resolve("auto") == ("occlusion", None)
    assert "The methods are not measured, because the data of the run cannot be read" in capfd.readouterr().err
    file.write_text(json.dumps({**figures, "methods": {"rise": {**rise, "figures": {"score": {"mean": 0.5}}}}}))
    with pytest.raises(UserError, match="faithfulness.json is incomplete"):
        copy.explainer.resolve("rise")
    file.write_text(json.dumps({**figures, "examples": "many"}))
    with pytest.raises(UserError, match="faithfulness.json is damaged"):
        copy.explainer.resolve("auto")


def test_an_explanation_holds_the_box_the_runner_up_and_its_files(patches_run, tmp_path):
    image, place = toy_explanations.patch_image(1, 9)
    explained = patches_run.explain(image, method="occlusion", label="Across")
    assert (explained.label, explained.runner_up, explained.predicted) == ("across", "down", "down")
    assert explained.values == pytest.approx(-explained.runner_up_values, abs=1e-4)
    explained = patches_run.explain(image, method="occlusion")
    box = explained.box
    assert box["left"] < place[1].stop and box["right"] > place[1].start
    fields = explained.to_json()
    assert fields["method"] == "occlusion" and np.shape(fields["values"]) == (16, 16)
    assert sum(map(sum, fields["values"])) == pytest.approx(float(explained.values.sum()), abs=0.02)
    json.dumps(fields)
    with Image.open(explained.save_png(tmp_path / "map.png")) as png:
        assert png.size == (224, 224)
    assert "why <bdi>down</bdi> and not <bdi>across</bdi>" in explained.save_html(tmp_path / "page.html").read_text()
    with pytest.raises(UserError, match="There is no class 'dwn' .* Did you mean 'down'?"):
        patches_run.explain(image, label="dwn")
    missing, good = patches_run.explain([tmp_path / "no.png", image], method="grad-cam")
    assert missing.error and missing.to_json().keys() == {"input", "error"} and good.label == "down"


def test_a_map_of_values_that_find_the_patch_is_more_faithful_than_another(patches_run):
    images, places = zip(*(toy_explanations.patch_image(0, number) for number in range(6)))
    maps = np.zeros((6, 16, 16))
    for values, place in zip(maps, places):
        values[place] = 1
    logits = patches_run.explainer.logits
    good, bad = (image_faithfulness.measure(images, each, [0] * 6, logits) for each in (maps, -maps))
    assert (good["score"] > bad["score"] + 0.3).all()
    assert good.keys() == {"mean color", "blur", "score"}


def test_large_images_are_blurred_in_as_many_places(patches_run):
    asked = []

    def logits(images):
        asked.append(len(images))
        return np.stack([images[:, 10:30, 50:70].mean(axis=(1, 2, 3)), np.zeros(len(images))], axis=1)

    image = np.zeros((80, 100, 3), np.uint8)
    image[10:30, 50:70] = 255
    values = image_perturbation.occlusion(image, [0], logits)[0]
    assert asked == [image_perturbation.POSITIONS**2 + 1]
    assert values[15:25, 55:65].mean() > 5 * values[50:, :40].mean()


def test_the_corner_or_border_that_holds_most_of_a_map_is_named():
    everywhere = np.ones((16, 24))
    assert class_maps.largest_region(everywhere)[1] < 0.5
    corner, border = everywhere * 0.1, everywhere * 0.1
    corner[-5:, :7] += 5
    border[:, -5:] += 5
    assert class_maps.largest_region(corner) == ("the bottom left corner", pytest.approx(0.83, abs=0.02))
    assert class_maps.largest_region(border)[0] == "the right border"
    assert class_maps.largest_region(np.zeros((16, 24)))[1] == 0


def test_only_a_training_of_half_a_minute_ends_with_explanations_in_the_report(patches_run, tmp_path):
    copy = dltoolkit.load(shutil.copytree(patches_run.path, tmp_path / "run"))
    splits = copy.explainer.read_splits()
    for seconds, is_explained in ((20, False), (40, True)):
        copy.info["time"] = {"train_seconds": seconds}
        reporting.add_after_training(copy, splits)
        assert ("The surest right answer of each class" in (copy.path / "report.html").read_text()) == is_explained
    assert not (copy.path / "explanations").exists()  # nothing is measured after the training
