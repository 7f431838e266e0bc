"""Fine-tuning from end to end: real files, real networks with weights of their own, real training."""

import functools
import shutil
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import CLASSES, save_image, toy_image
from dltoolkit.recipes import fine_tune, image_classifier
from keras.src.legacy.saving import legacy_h5_format
from test_image_classifier import command
from test_training_fit import same_but_seconds, stopped_at, weights

import dltoolkit
from dltoolkit import evaluation, models
from dltoolkit.errors import UserError
from dltoolkit.finetuning import transfer
from dltoolkit.models.pretrained import keras_applications as backbones


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fine")
    for label, name in enumerate(CLASSES):
        for i in range(24):
            save_image(path / "toys" / name / f"{i:03d}.png", toy_image(label, i, side=16))
    return path


@pytest.fixture(scope="module")
def source(folder):
    """An earlier run, of two of the three classes."""
    for name in CLASSES[:2]:
        for path in (folder / "toys" / name).iterdir():
            (folder / "two" / name).mkdir(parents=True, exist_ok=True)
            (folder / "two" / name / path.name).write_bytes(path.read_bytes())
    return image_classifier.train(
        image_classifier.Config(
            data=str(folder / "two"), epochs=3, batch_size=16, widths=(8, 16, 16), out_dir=str(folder / "runs")
        )
    )


@pytest.fixture(scope="module")
def config(folder, source):
    return fine_tune.Config(
        data=str(folder / "toys"), backbone=str(source.path), epochs=2, batch_size=16, out_dir=str(folder / "runs")
    )


@pytest.fixture(scope="module")
def run(config):
    return fine_tune.train(replace(config, name="first"))


@pytest.fixture(scope="module")
def application(tmp_path_factory):
    """A weights file of MobileNetV2-0.35, as random as it was made."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "some.weights.h5"
    made = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35)
    made.save_weights(path)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def briefly():
    """The network from scratch that stands beside each run is hardly trained here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.image_classification, "SCRATCH_STEPS", 10)
        patch.setattr(evaluation.feature_extractor, "PASSES", 1)
        yield


def test_a_run_is_trained_measured_and_described(run, folder, capfd):
    assert {path.name for path in run.path.iterdir()} - {"tensorboard"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json"),
        *("plots", "checkpoint"),
    }
    assert run.metrics["test"]["accuracy"] > 0.6
    assert run.metrics["baseline"].keys() == {"majority", "linear", "probe", "scratch"}
    assert run.info["kept"] in ("head", "fine-tuned")
    assert run.evaluate() == run.metrics["test"]
    assert "A head on frozen features" in (run.path / "report.html").read_text()
    answers = run.predict([str(folder / "toys" / "bars" / "000.png"), np.zeros((16, 16, 3), np.uint8)])
    assert all(answer.label in CLASSES for answer in answers)
    code, out, _ = command(capfd, "predict", str(run.path), str(folder / "toys" / "dots"), "--format", "jsonl")
    assert (code, len(out.splitlines())) == (0, 24)
    code, out, _ = command(capfd, "show", str(run.path))
    assert code == 0


def test_a_label_curve_is_drawn_and_not_trained_twice(config, monkeypatch):
    monkeypatch.setattr(fine_tune, "CURVE_SEEDS", 1)
    options = {"learning_curve": "4,all", "epochs": 1, "augment_copies": 1, "name": "curve"}
    run = fine_tune.train(replace(config, **options))
    points = run.info["learning_curve"]
    assert [(point["labels"], point["seed"]) for point in points] == [(4, 0), (pytest.approx(17, abs=1), 0)]
    assert all(0 <= point[way] <= 1 for point in points for way in ("fine-tuned", "probe", "scratch", "linear"))
    assert (run.path / "plots" / "learning_curve.png").exists()
    assert "What labels are worth" in (run.path / "report.html").read_text()
    monkeypatch.setattr(transfer, "Transfer", None)
    assert fine_tune.learning_curve(run, [4, None]) == points


def test_rare_classes_weigh_more_where_asked(config):
    run = fine_tune.train(replace(config, class_weights="balanced", epochs=1, name="weighed"))
    assert run.evaluate() == run.metrics["test"]


def test_low_rank_matrices_stand_in_for_the_layers(config, run):
    low = fine_tune.train(replace(config, method="lora", rank=2, epochs=1, name="lora"))
    assert low.info["model"]["trained"] < run.info["model"]["trained"]
    assert low.evaluate() == low.metrics["test"]


def test_a_network_of_kerashub(config, tmp_path):
    hub = pytest.importorskip("keras_hub")
    options = {"stackwise_num_filters": [64], "stackwise_num_blocks": [1], "stackwise_num_strides": [1]}
    network = hub.models.ResNetBackbone([64], [3], **options, block_type="basic_block", image_shape=(None, None, 3))
    network.save_to_preset(str(tmp_path / "net"))
    hub.layers.ResNetImageConverter(image_size=(24, 24), scale=1 / 255).save_to_preset(str(tmp_path / "net"))
    run = fine_tune.train(replace(config, backbone=str(tmp_path / "net"), epochs=1, name="hub"))
    assert run.model.input_shape == (None, 24, 24, 3)
    assert run.evaluate() == run.metrics["test"]
    with pytest.raises(UserError, match="reads no texts"):
        models.pretrained.text_backbones.of_hub(str(tmp_path / "net"), 10)


def test_only_a_head(config):
    run = fine_tune.train(replace(config, method="linear-probe", name="head"))
    assert (run.info["kept"], run.history) == ("head", [])
    assert run.metrics["validation"]["accuracy"] == pytest.approx(run.info["head"]["accuracy"], abs=1e-4)
    assert run.metrics["test"]["accuracy"] == pytest.approx(run.metrics["baseline"]["probe"]["accuracy"])
    assert (run.path / "report.html").exists()


def test_what_training_spoils_is_not_kept(config):
    run = fine_tune.train(replace(config, optimizer="sgd", learning_rate=0.3, layer_decay=0.8, name="spoilt"))
    worst = max(row["validation_accuracy"] for row in run.history)
    assert worst < run.info["head"]["accuracy"], "the case must be one in which training spoils"
    assert run.info["kept"] == "head"
    assert run.metrics["validation"]["accuracy"] == pytest.approx(run.info["head"]["accuracy"], abs=1e-4)


def test_stopped_and_resumed_is_as_if_nothing_had_happened(config, run, monkeypatch):
    stopped_at(3, lambda: fine_tune.train(replace(config, name="stopped")), monkeypatch)
    resumed = dltoolkit.resume(dltoolkit.load("fine-tune/stopped", out_dir=config.out_dir))
    assert same_but_seconds(resumed) == same_but_seconds(run)
    for one, two in zip(weights(resumed), weights(run), strict=True):
        assert np.array_equal(one, two)
    seconds = resumed.info["time"]["train_seconds"]
    assert dltoolkit.resume(resumed).info["time"]["train_seconds"] == seconds, "a finished run learns nothing more"


def test_a_named_network_with_weights_from_a_file(config, application, tmp_path):
    weights = Path(shutil.copy(application, tmp_path))
    options = {"backbone": "mobilenetv2-0.35", "weights": str(weights), "image_size": 32, "epochs": 1, "name": "named"}
    run = fine_tune.train(replace(config, precision="bfloat16", **options))
    assert run.info["model"]["name"] == "mobilenetv2-0.35"
    assert run.model.input_shape == (None, 32, 32, 3)
    assert run.model.get_layer("Conv1").compute_dtype == run.info["device"]["precision"] == "bfloat16"
    assert run.evaluate() == run.metrics["test"]
    with h5py.File(weights, "r+") as file:
        file["layers/conv2d/vars/0"][...] += 1
    with pytest.raises(UserError, match=r"some\.weights\.h5 has changed since named began"):
        dltoolkit.resume(run)


def test_grey_pictures_are_shown_to_a_network_in_colour(application):
    model = backbones.application("MobileNetV2-0.35", (32, 32, 1), application)
    colour = backbones.application("MobileNetV2-0.35", (32, 32, 3), application)
    grey = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 1)).astype("float32")
    assert np.allclose(model(grey), colour(np.repeat(grey, 3, axis=-1)), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_cut_network_is_the_same_in_two_parts(application, share):
    model = backbones.application("MobileNetV2-0.35", (32, 32, 3), application)
    at = backbones.cut(model, share)
    below, above = keras.Model(model.input, at), keras.Model(at, model.output)
    pictures = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3)).astype("float32")
    assert np.allclose(above(below(pictures)), model(pictures), atol=1e-5)
    trained = len([layer for layer in above.layers if layer.trainable_weights])
    assert trained <= share * len([layer for layer in model.layers if layer.trainable_weights]) + 0.5
    assert (trained > 0) == (share > 0)


def test_the_networks_that_can_be_named_are_listed(capfd):
    code, out, _ = command(capfd, "list", "backbones")
    assert code == 0
    assert "MobileNetV2" in out
    assert all(
        hasattr(keras.applications, known.function)
        for known in fine_tune.models.pretrained.architectures.KNOWN.values()
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "MobileNetV4"}, "no backbone 'MobileNetV4'.*Did you mean 'MobileNetV2'"),
        ({"backbone": "MobileNetV2", "image_size": 16}, "at least 32 pixels a side, not 16x16"),
        ({"backbone": "Xception", "image_size": 32}, "at least 71 pixels"),
        ({"backbone": __file__}, "is no .keras file, and nothing else is opened"),
        ({"weights": __file__, "backbone": "MobileNetV2"}, "is no weights file of Keras"),
        ({"weights": "some.h5"}, "--weights is for a backbone of"),
        ({"backbone": "nowhere.keras"}, "nowhere.keras"),
    ],
)
def test_what_cannot_be_gone_on_from_is_named(config, options, words):
    with pytest.raises(UserError, match=words):
        fine_tune.train(replace(config, name="refused", **options))
    with pytest.raises(UserError, match="no run"):
        dltoolkit.load("fine-tune/refused", out_dir=config.out_dir)


def test_weights_that_do_not_fit_are_named(config, application, tmp_path):
    options = {"backbone": "MobileNetV2", "image_size": 32, "name": "refused"}
    with pytest.raises(UserError, match="weights of another network than MobileNetV2"):
        fine_tune.train(replace(config, weights=application, **options))
    damaged = tmp_path / "damaged.h5"
    with open(application, "rb") as file:
        damaged.write_bytes(file.read(5000))
    with pytest.raises(UserError, match=r"damaged\.h5 is damaged"):
        fine_tune.train(replace(config, weights=str(damaged), **options))
    with pytest.raises(UserError, match=r"no weights file .*gone\.h5"):
        fine_tune.train(replace(config, weights=str(tmp_path / "gone.h5"), **options))
    changed = Path(shutil.copy(application, tmp_path / "changed.h5"))
    sums = f"{backbones.sha256(changed)}  ./changed.h5\n"
    (tmp_path / "SHA256SUMS").write_text(sums)
    backbones.check_file(changed)
    with h5py.File(changed, "r+") as file:
        file["layers/conv2d/vars/0"][0, 0, 0, 0] += 1
    with pytest.raises(UserError, match=r"changed\.h5 is damaged: its hash is not what .*SHA256SUMS says"):
        fine_tune.train(replace(config, weights=str(changed), **options))


def test_a_download_that_cannot_happen_is_said_in_one_sentence(config, monkeypatch, tmp_path):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))  # read at import
    with pytest.raises(UserError, match=r"put mobilenet_v2_\S+\.h5 into .*models, or name a file with --weights"):
        fine_tune.train(replace(config, backbone="MobileNetV2-0.35", image_size=32, name="refused"))


def test_a_download_shows_its_progress_beside_the_answer(monkeypatch, tmp_path, capfd):
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    there = tmp_path / "there"
    for folder in (there, tmp_path / "home"):
        folder.mkdir()
    made = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35)
    with h5py.File(there / name, "w") as file:  # in the form of the files that Keras has for download
        legacy_h5_format.save_weights_to_hdf5_group(file, made)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(there))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path / "home"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr("keras.src.applications.mobilenet_v2.BASE_WEIGHT_PATH", address)
        backbones.application("MobileNetV2-0.35", (32, 32, 3))
        server.shutdown()
    out, err = capfd.readouterr()
    assert "Downloading data" in err and not out
    kept = tmp_path / "home" / "models" / name
    kept.write_bytes(kept.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"are damaged .*: delete them"):
        backbones.application("MobileNetV2-0.35", (32, 32, 3))


def test_pictures_that_the_earlier_run_cannot_read(config, source, make_folder):
    grey = make_folder(channels=1)
    with pytest.raises(UserError, match="reads pictures of 16x16x3"):
        fine_tune.train(replace(config, data=str(grey), name="refused"))


def test_a_model_that_hides_code_is_refused(config, tmp_path):
    image = keras.Input((16, 16, 3))
    flat = keras.layers.Flatten()(keras.layers.Lambda(lambda x: x * 2)(image))
    keras.Model(image, keras.layers.Dense(2)(flat)).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match="holds code of its own"):
        fine_tune.train(replace(config, backbone=str(tmp_path / "code.keras"), name="refused"))


def test_a_model_without_a_dense_end_is_refused(config, tmp_path):
    image = keras.Input((16, 16, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(tmp_path / "open.keras")
    with pytest.raises(UserError, match="does not end in a dense layer"):
        fine_tune.train(replace(config, backbone=str(tmp_path / "open.keras"), name="refused"))


def test_networks_that_have_seen_much_are_changed_less():
    named, own = (fine_tune.suited(fine_tune.Config(backbone=name), "pictures") for name in ("MobileNetV2", None))
    assert named.learning_rate < own.learning_rate
    assert (transfer.share(named), transfer.share(own)) == (0.3, None)
    assert transfer.share(fine_tune.suited(fine_tune.Config(unfreeze="0.5"), "pictures")) == 0.5
    short, long = (fine_tune.suited(fine_tune.Config(backbone="hf://a/b"), "texts", n) for n in (20, 256))
    assert (short.batch_size, long.batch_size) == (32, 16), "long texts take more memory"
    assert long.learning_rate == pytest.approx(short.learning_rate / 2**0.5)


def test_lower_layers_learn_more_slowly():
    from dltoolkit.training import optimizer

    variables = [keras.Variable(np.ones(3, "float32"), name=name) for name in ("low", "high")]
    made, schedule = optimizer.make(
        fine_tune.Config(optimizer="sgd", learning_rate=1.0, weight_decay=0.0),
        32,
        rate_factors={variables[0].path: 0.1},
    )
    schedule.steps = 10
    made.build(variables)
    made.apply([np.ones(3, "float32")] * 2, variables)
    moved = [1 - variable.numpy()[0] for variable in variables]
    assert moved[0] == pytest.approx(0.1 * moved[1])
