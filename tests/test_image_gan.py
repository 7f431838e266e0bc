"""The image GAN from end to end: real files, the real command line, real training."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import run_command, save_image, silence, toy_image, write_images
from dltoolkit.recipes import image_gan
from PIL import Image
from toy_training import equal, stop_at

import dltoolkit
from dltoolkit import evaluation, report, training
from dltoolkit.errors import UserError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Return options for a short training on small images, and shorten epochs, evaluations and classifiers."""
    folder = tmp_path_factory.mktemp("gan")
    data = write_images(folder / "toys", 24, side=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(image_gan, "MIN_EPOCH_STEPS", 10)
        patch.setattr(evaluation.gan, "EVAL_IMAGES", 50)
        patch.setattr(evaluation.feature_extractor, "MAX_STEPS", 40)
        yield image_gan.Config(
            data=str(data), width=4, batch_size=16, epochs=2, out_dir=str(folder / "runs"), name="first"
        )


@pytest.fixture(scope="module")
def run(config):
    return image_gan.train(config)


def test_train_writes_metrics_samples_and_report(run):
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json"),
        *("plots", "checkpoint", "samples"),
    }
    assert (run.info["recipe"], run.info["state"], run.info["conditional"]) == ("image-gan", "finished", True)
    assert [row["step"] for row in run.history] == [10, 20]
    assert run.history[0].keys() >= {"discriminator_loss", "real_accuracy", "fake_accuracy", "validation_coverage"}
    assert {path.name for path in (run.path / "samples").iterdir()} == {
        *("epoch-0001.png", "epoch-0002.png", "training.gif")
    }
    with Image.open(run.path / "samples" / "training.gif") as gif:
        assert gif.n_frames == 2
    page = (run.path / "report.html").read_text()
    for words in ("Generated images", "Generated images and the nearest training images", "dltoolkit generate"):
        assert words in page


def test_train_compares_generated_with_real_images(run):
    test, baseline = run.metrics["test"], run.metrics["baseline"]["real_vs_real"]
    assert test.keys() == {
        *("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "memorization_rate"),
        *("gan_train_accuracy", "gan_test_accuracy"),
    }
    shared = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")
    assert baseline.keys() == {*shared, "classifier_accuracy"}
    assert baseline["classifier_accuracy"] > 0.8
    assert test["frechet_distance"] > baseline["frechet_distance"]
    assert run.evaluate() == test | {"baseline": run.metrics["baseline"]}


def test_train_saves_the_epoch_with_the_lowest_kernel_distance(run):
    splits = image_gan.build_data(run.config)
    eval_fn = evaluation.gan.validation_metrics(splits, evaluation.feature_extractor.for_dataset(splits))
    best = min(row["validation_kernel_distance"] for row in run.history)
    # With bfloat16, the saved generator rounds its kernels once, and the one in training rounds them twice
    assert eval_fn(run.model)["kernel_distance"] == pytest.approx(best, rel=1e-2)


def test_generate_depends_on_seed_and_class(run):
    images = run.generate(count=6, seed=3)
    assert (images.shape, images.dtype) == ((6, 8, 8, 3), np.uint8)
    assert np.array_equal(images, dltoolkit.load(run.path).generate(count=6, seed=3))
    assert not np.array_equal(images, run.generate(count=6, seed=4))
    plain = run.generate(count=6, seed=3, label="plain")
    assert np.array_equal(plain[2], images[2])  # the classes take turns, and plain is the third
    assert not np.array_equal(plain[0], images[0])
    assert np.array_equal(run.generate(count=6, seed=3, label="Plain"), plain), "labels ignore case"


def test_generate_interpolates_from_image_to_image(run):
    images, path = run.generate(count=2, seed=3), run.generate(count=2, seed=3, interpolate=5)
    assert len(path) == 10
    assert np.abs(path[0].astype(int) - images[0]).max() <= 1


def test_generate_command_writes_images(run, capfd, tmp_path):
    options = ["--count", "5", "--class", "dots", "--seed", "7", "--out", str(tmp_path / "new")]
    code, out, err = run_command(capfd, "generate", str(run.path), *options, "--grid", "--interpolate", "3")
    assert (code, err) == (0, "")
    assert "15 images" in out
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {f"{number:04}.png" for number in range(1, 16)} | {"grid.png", "interpolation.gif"}
    with Image.open(tmp_path / "new" / "0002.png") as image:
        expected = run.generate(count=5, label="dots", seed=7, interpolate=3)[1]
        assert np.array_equal(np.asarray(image), expected)
    code, _, _ = run_command(capfd, "generate", str(run.path), "--count", "2", "--out", str(tmp_path / "new"))
    assert code == 0, "an existing folder is written to"
    with Image.open(tmp_path / "new" / "0002.png") as image:
        assert np.array_equal(np.asarray(image), run.generate(count=2)[1])
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_generate_command_leaves_nothing_if_it_cannot_write(run, capfd, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = run_command(capfd, "generate", str(run.path), "--out", str(tmp_path / "file" / "new"))
    assert (code, out) == (2, "")
    assert "Cannot write images to" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--class", "bar"], "no class 'bar'; use one of bars, dots, plain. Did you mean 'bars'"),
        (["--count", "0"], "--count must be at least 1"),
        (["--truncation", "0"], "--truncation must be above 0"),
        (["--interpolate", "-1"], "--interpolate must be at least 0"),
        (["--prompt", "a"], "--prompt has no effect on a run of image-gan"),
        (["--format", "json"], "--format has no effect on a run of image-gan"),
    ],
)
def test_generate_command_refuses_wrong_options(run, capfd, tmp_path, options, words):
    code, out, err = run_command(capfd, "generate", str(run.path), "--out", str(tmp_path / "new"), *options)
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "new").exists()


def test_evaluate_command_prints_the_real_vs_real_baseline(run, capfd):
    code, out, _ = run_command(capfd, "evaluate", str(run.path))
    assert code == 0
    for words in ("Fréchet distance", "memorization rate", "real vs real Fréchet distance"):
        assert words in out


def test_train_accepts_images_without_labels(config, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(report.page, "write", lambda *arguments, **fields: None)
    for number in range(30):
        save_image(tmp_path / "heap" / f"{number}.png", toy_image(0, number, side=8))
    run = image_gan.train(replace(config, data=str(tmp_path / "heap"), epochs=1, name="heap"))
    assert run.info["data"]["classes"] == ["all"]
    assert run.info["conditional"] is False
    assert "gan_train_accuracy" not in run.metrics["test"]
    baseline = run.metrics["baseline"]["real_vs_real"]
    distances = {"frechet_distance", "kernel_distance"}
    assert baseline.keys() == {*distances, "precision", "recall", "density", "coverage"}
    assert run.metrics["test"]["frechet_distance"] > baseline["frechet_distance"]
    assert run.generate(count=2).shape == (2, 8, 8, 3)
    code, _, err = run_command(capfd, "generate", str(run.path), "--class", "all", "--out", str(tmp_path / "new"))
    assert code == 2
    assert "trained without classes" in err


@pytest.mark.parametrize("name", ["optimizer", "weight_decay"])
def test_config_has_no_options_without_effect(name):
    assert name not in dltoolkit.config.options(image_gan.Config)


def test_build_model_ignores_classes_on_request(config):
    splits = image_gan.build_data(config)
    assert image_gan.build_model(config, splits).classes == 3
    assert image_gan.build_model(replace(config, conditional=False), splits).classes == 0


def test_build_data_resizes_large_images_for_narrower_networks(make_folder):
    config = image_gan.Config(data=str(make_folder(side=136)))
    splits = image_gan.build_data(config)
    assert splits.image_shape == (64, 64, 3)
    assert image_gan.resolve_defaults(config, splits).width == 16
    assert image_gan.resolve_defaults(replace(config, width=24), splits).width == 24


@pytest.mark.parametrize(
    ("per_class", "equal_images", "words"), [(7, False, "at least 16"), (30, True, "only 1 different example")]
)
def test_train_refuses_too_few_different_images(make_folder, tmp_path, per_class, equal_images, words):
    folder = make_folder(per_class=per_class, classes=("a", "b"))
    if equal_images:
        for path in folder.rglob("*.png"):
            save_image(path, np.full((16, 16, 3), 90, np.uint8))
    with pytest.raises(UserError, match=words):
        image_gan.train(image_gan.Config(data=str(folder), out_dir=str(tmp_path / "runs")))
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(7, id="within an epoch"),
        pytest.param(10, id="end of an epoch", marks=pytest.mark.slow),
        pytest.param(20, id="very end", marks=pytest.mark.slow),
    ],
)
def test_resume_continues_exactly_from_any_step(config, run, monkeypatch, step):
    """Both networks, both optimizers, the average and the random numbers continue from their states."""
    monkeypatch.setattr(report.image_generation, "evaluate_and_report", lambda *arguments: None)
    name = f"stopped-{step}"
    stop_at(step, lambda: image_gan.train(replace(config, name=name)), monkeypatch)
    assert equal(dltoolkit.resume(dltoolkit.load(f"image-gan/{name}", out_dir=config.out_dir)), run)


def test_load_and_generate_print_no_warning(run, capfd):
    with silence(capfd):
        dltoolkit.load(str(run.path)).generate(count=2)


@pytest.mark.slow
def test_max_time_bounds_the_classifiers_that_compare_images(config, monkeypatch):
    monkeypatch.setattr(training.time_limit, "MIN_STEPS", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{config.out_dir}/empty-cache")
    monkeypatch.setattr(evaluation.feature_extractor, "MAX_STEPS", 10_000)
    monkeypatch.setattr(evaluation.feature_extractor, "MIN_STEPS", 10_000)
    run = image_gan.train(replace(config, epochs=None, max_time=8, name="limited"))
    steps = run.info["plan"]["extractor_steps"]
    assert 10 <= steps < 10_000
    summary = dict(run.info["plan"]["summary"])
    assert f"generated images in {steps:,} steps" in summary["Evaluation"]
    assert run.evaluate() == run.metrics["test"] | {"baseline": run.metrics["baseline"]}
