"""The image GAN from end to end: real files, the real command line, real training."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import run_command, save_image, toy_image, write_images
from dltoolkit.recipes import image_gan
from PIL import Image
from test_training_fit import same_but_seconds, stopped_at, weights

import dltoolkit
from dltoolkit.errors import UserError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gan")
    toys = write_images(folder / "toys", 24, side=12)
    return image_gan.Config(
        data=str(toys), width=8, batch_size=16, epochs=2, out_dir=str(folder / "runs"), name="first"
    )


@pytest.fixture(scope="module")
def small(config):
    """Short epochs and a short probe, as long as the tests of this file last."""
    from dltoolkit.evaluation import feature_extractor as probe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_gan, "SHORTEST_EPOCH", 10)
        patch.setattr(image_gan, "JUDGED", 50)
        patch.setattr(probe, "MOST_STEPS", 60)
        yield config


@pytest.fixture(scope="module")
def run(small):
    return image_gan.train(small)


def test_a_run_is_trained_measured_and_described(run):
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json"),
        *("plots", "checkpoint", "samples"),
    }
    assert (run.info["recipe"], run.info["state"], run.info["conditional"]) == ("image-gan", "finished", True)
    assert run.metrics["test"].keys() == {
        *("frechet_distance", "frechet_distance_floor", "kernel_distance", "kernel_distance_floor"),
        *("precision", "recall", "density", "coverage", "memorised"),
        *("probe_accuracy", "gan_train_accuracy", "gan_test_accuracy"),
    }
    assert run.metrics["test"]["probe_accuracy"] > 0.8
    assert run.metrics["test"]["frechet_distance"] > run.metrics["test"]["frechet_distance_floor"]
    assert run.evaluate() == run.metrics["test"]
    rows = run.history
    assert [row["step"] for row in rows] == [10, 20]
    best = min(rows, key=lambda row: row["validation_kernel_distance"])
    assert rows[0].keys() >= {"discriminator_loss", "real_accuracy", "fake_accuracy", "validation_coverage"}
    assert best["epoch"] in (1, 2)
    assert {path.name for path in (run.path / "samples").iterdir()} == {
        *("epoch-0001.png", "epoch-0002.png", "training.gif")
    }
    with Image.open(run.path / "samples" / "training.gif") as gif:
        assert gif.n_frames == 2
    page = (run.path / "report.html").read_text()
    for words in ("Generated images", "training images nearest to them", "dltoolkit generate"):
        assert words in page


def test_generate_from_python(run):
    drawn = run.generate(count=6, seed=3)
    assert (drawn.shape, drawn.dtype) == ((6, 12, 12, 3), np.uint8)
    assert np.array_equal(drawn, dltoolkit.load(run.path).generate(count=6, seed=3))
    assert not np.array_equal(drawn, run.generate(count=6, seed=4))
    plain = run.generate(count=6, seed=3, label="plain")
    assert np.array_equal(plain[2], drawn[2])  # the classes take turns, and plain is the third
    assert not np.array_equal(plain[0], drawn[0])
    assert np.array_equal(run.generate(count=6, seed=3, label="Plain"), plain), "labels ignore case"
    way = run.generate(count=2, seed=3, interpolate=5)
    assert len(way) == 10
    assert np.abs(way[0].astype(int) - drawn[0]).max() <= 1


def test_generate_from_the_command_line(run, capfd, tmp_path):
    options = ["--count", "5", "--class", "dots", "--seed", "7", "--out", str(tmp_path / "new")]
    code, out, err = run_command(capfd, "generate", str(run.path), *options, "--grid", "--interpolate", "3")
    assert (code, err) == (0, "")
    assert "15 pictures" in out
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {f"{number:04}.png" for number in range(1, 16)} | {"grid.png", "interpolation.gif"}
    with Image.open(tmp_path / "new" / "0002.png") as picture:
        expected = run.generate(count=5, label="dots", seed=7, interpolate=3)[1]
        assert np.array_equal(np.asarray(picture), expected)
    code, _, _ = run_command(capfd, "generate", str(run.path), "--count", "2", "--out", str(tmp_path / "new"))
    assert code == 0, "a folder that is there already is written to"
    with Image.open(tmp_path / "new" / "0002.png") as picture:
        assert np.array_equal(np.asarray(picture), run.generate(count=2)[1])
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_pictures_that_cannot_be_written_leave_nothing(run, capfd, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = run_command(capfd, "generate", str(run.path), "--out", str(tmp_path / "file" / "new"))
    assert (code, out) == (2, "")
    assert "Cannot write pictures to" in err


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
def test_what_cannot_be_drawn_is_named(run, capfd, tmp_path, options, words):
    code, out, err = run_command(capfd, "generate", str(run.path), "--out", str(tmp_path / "new"), *options)
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "new").exists()


def test_pictures_without_labels_will_do(small, capfd, tmp_path):
    for number in range(30):
        save_image(tmp_path / "heap" / f"{number}.png", toy_image(0, number, side=12))
    run = image_gan.train(replace(small, data=str(tmp_path / "heap"), epochs=1, name="heap"))
    assert run.info["data"]["classes"] == ["all"]
    assert run.info["conditional"] is False
    assert "probe_accuracy" not in run.metrics["test"]
    assert "gan_train_accuracy" not in run.metrics["test"]
    assert run.metrics["test"]["frechet_distance"] > 0
    assert run.generate(count=2).shape == (2, 12, 12, 3)
    code, _, err = run_command(capfd, "generate", str(run.path), "--class", "all", "--out", str(tmp_path / "new"))
    assert code == 2
    assert "trained without classes" in err


def test_classes_can_be_left_unused(config):
    pictures = image_gan.build_data(config)
    assert image_gan.build_model(config, pictures).classes == 3
    assert image_gan.build_model(replace(config, conditional=False), pictures).classes == 0


def test_large_pictures_are_brought_to_64_pixels_and_drawn_by_narrower_networks(make_folder):
    config = image_gan.Config(data=str(make_folder(side=136)))
    pictures = image_gan.build_data(config)
    assert pictures.image_shape == (64, 64, 3)
    assert image_gan.build_model(config, pictures).settings["width"] == 16
    assert image_gan.build_model(replace(config, width=24), pictures).settings["width"] == 24


@pytest.mark.parametrize(
    ("per_class", "alike", "words"), [(7, False, "at least 16"), (30, True, "only 1 different example")]
)
def test_pictures_that_teach_nothing_are_refused(make_folder, tmp_path, per_class, alike, words):
    folder = make_folder(per_class=per_class, classes=("a", "b"))
    if alike:
        for path in folder.rglob("*.png"):
            save_image(path, np.full((16, 16, 3), 90, np.uint8))
    with pytest.raises(UserError, match=words):
        image_gan.train(image_gan.Config(data=str(folder), out_dir=str(tmp_path / "runs")))
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize("step", [7, 10, 20], ids=["within an epoch", "end of an epoch", "very end"])
def test_stopped_at_any_step_and_resumed_is_as_if_nothing_had_happened(small, run, monkeypatch, step):
    """Both networks, both optimizers, the average and the noise go on where they stood."""
    name = f"stopped-{step}"
    stopped_at(step, lambda: image_gan.train(replace(small, name=name)), monkeypatch)
    resumed = dltoolkit.resume(dltoolkit.load(f"image-gan/{name}", out_dir=small.out_dir))
    assert same_but_seconds(resumed) == same_but_seconds(run)
    assert resumed.metrics == run.metrics
    for one, two in zip(weights(resumed), weights(run), strict=True):
        assert np.array_equal(one, two)
