"""Fine-tuning on images from end to end: real files, real networks, real training."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from conftest import CLASSES, run_command, same_metrics, save_image, silence, toy_image
from dltoolkit.recipes import fine_tune, image_classifier
from toy_runs import finished_run
from toy_training import equal, stop_at

import dltoolkit
from dltoolkit import evaluation, files, finetuning, models
from dltoolkit.errors import UserError
from dltoolkit.models.image import classifiers
from dltoolkit.report import page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fine")
    for label, name in enumerate(CLASSES):
        for i in range(24):
            save_image(path / "toys" / name / f"{i:03d}.png", toy_image(label, i, side=16))
    return path


@pytest.fixture(scope="module")
def source(folder):
    """Return a run of a small network for two classes, whose random features tell the three classes of toys apart."""
    keras.utils.set_random_seed(0)
    model = classifiers.build("cnn", (16, 16, 3), 2, widths=(8, 8))
    return finished_run(image_classifier, folder / "runs", "source", model)


@pytest.fixture(scope="module")
def config(folder, source):
    return fine_tune.Config(
        data=str(folder / "toys"), backbone=str(source.path), epochs=2, batch_size=16, out_dir=str(folder / "runs")
    )


@pytest.fixture(scope="module")
def run(config):
    """Return a run with everything that belongs to one, its report included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.image_classification, "FROM_SCRATCH_MIN_STEPS", 10)
        patch.setattr(evaluation.feature_extractor, "EPOCHS", 1)
        return fine_tune.train(replace(config, name="first"))


def majority(splits, **_):
    return evaluation.baseline.majority(splits.labels, splits.train, splits.test, splits.classes)


@pytest.fixture(autouse=True)
def stub_baseline_and_report(run, monkeypatch):
    """Replace the network trained from scratch and the report, which the first run has, in all other runs."""
    monkeypatch.setattr(evaluation.image_classification, "from_scratch", majority)
    monkeypatch.setattr(page, "write", lambda *args, **kwargs: None)


def best_by_history(run) -> str:
    """Return what a run must have selected according to its history and the scores of its linear probe."""
    best = max((row["validation_accuracy"], -row["validation_loss"]) for row in run.history)
    probe = run.info["linear_probe"]
    return "fine-tuned" if best > (probe["accuracy"], -probe["loss"]) else "linear_probe"


def test_train_writes_metrics_baselines_and_report(run, folder, capfd):
    assert {path.name for path in run.path.iterdir()} - {"tensorboard", ".lock"} == {
        *("run.json", "model.keras", "history.csv", "metrics.json", "report.html", "labels.json"),
        *("predictions.csv", "train_hashes.bin", "plots", "checkpoint"),
    }
    assert run.metrics["test"]["accuracy"] > 0.6
    assert run.metrics["baseline"].keys() == {"majority", "linear", "linear_probe", "from_scratch"}
    assert run.info["task"] == "image"
    assert run.info["selected"] == best_by_history(run)
    assert same_metrics(run.evaluate(), run.metrics["test"])
    assert "Linear probe on frozen features" in (run.path / "report.html").read_text()
    predictions = run.predict([str(folder / "toys" / "bars" / "000.png"), np.zeros((16, 16, 3), np.uint8)])
    assert all(prediction.label in CLASSES for prediction in predictions)


def test_cli_predicts_and_shows_a_run(run, folder, capfd):
    code, out, _ = run_command(capfd, "predict", str(run.path), str(folder / "toys" / "dots"), "--format", "jsonl")
    assert (code, len(out.splitlines())) == (0, 24)
    code, _, err = run_command(capfd, "predict", str(run.path), str(folder / "toys" / "dots"), "--text-column", "text")
    assert (code, "classifies images: leave --text-column out" in err) == (2, True)
    code, _, _ = run_command(capfd, "show", str(run.path))
    assert code == 0


def test_train_loads_the_backbone_once(config, source, tmp_path, monkeypatch):
    path = shutil.copy(source.path / "model.keras", tmp_path / "backbone.keras")
    loaded, resolved = [], []
    load_model, resolve = models.model_file.load_model, finetuning.backbone.resolve
    monkeypatch.setattr(models.model_file, "load_model", lambda file: loaded.append(Path(file)) or load_model(file))
    monkeypatch.setattr(
        finetuning.backbone, "resolve", lambda *args, **kw: resolved.append(args) or resolve(*args, **kw)
    )
    run = fine_tune.train(replace(config, backbone=str(path), epochs=1, name="file"))
    assert loaded == [path] and len(resolved) == 1
    layers = models.surgery.flatten_layers(run.model)
    normalization = sum(layer.count_params() for layer in layers if "BatchNorm" in type(layer).__name__)
    assert run.info["model"]["parameters"] == run.model.count_params()
    assert run.info["model"]["trainable_parameters"] == run.model.count_params() - normalization
    assert run.info["backbone_sha256"] == files.sha256(path)


def test_train_takes_a_sequential_model_as_backbone(config, tmp_path):
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((16, 16, 3)), *layers, keras.layers.Dense(2, activation="softmax")])
    network.save(tmp_path / "sequential.keras")
    options = {"method": "linear-probe", "epochs": None, "batch_size": None, "name": "sequential"}
    run = fine_tune.train(replace(config, backbone=str(tmp_path / "sequential.keras"), **options))
    head = 8 * 3 + 3
    assert run.info["model"]["trainable_parameters"] == head
    assert run.info["model"]["parameters"] == head + 8 * (3 * 3 * 3 + 1)
    assert same_metrics(run.evaluate(), run.metrics["test"])


def test_train_plots_a_learning_curve_and_trains_its_runs_once(config, monkeypatch):
    monkeypatch.setattr(finetuning.learning_curve, "SEEDS", 1)
    run = fine_tune.train(replace(config, learning_curve="4", epochs=1, augment_copies=1, name="curve"))
    (point,) = run.info["learning_curve"]
    assert (point["labels"], point["seed"]) == (4, 0)
    assert all(0 <= point[method] <= 1 for method in finetuning.learning_curve.METHODS)
    backbone = finetuning.backbone.resolve(config.backbone)
    assert finetuning.learning_curve.measure(run, backbone, [4], train=None) == [point]


def test_train_weighs_rare_classes_if_asked(config):
    run = fine_tune.train(replace(config, class_weights="balanced", epochs=1, name="weighted"))
    assert same_metrics(run.evaluate(), run.metrics["test"])


def test_lora_trains_fewer_parameters(config, run):
    lora = fine_tune.train(replace(config, method="lora", rank=2, epochs=1, tta=True, name="lora"))
    assert lora.info["model"]["trainable_parameters"] < run.info["model"]["trainable_parameters"]
    assert same_metrics(lora.evaluate(), lora.metrics["test"])


@pytest.mark.slow
@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("method", ["full", "linear-probe", "lora"])
def test_every_method_selects_and_answers_with_its_test_time_augmentation(config, method, tta):
    options = {"epochs": None, "batch_size": None} if method == "linear-probe" else {"epochs": 2}
    run = fine_tune.train(replace(config, method=method, tta=tta, name=f"answers-{method}-{tta}", **options))
    assert same_metrics(run.evaluate(), run.metrics["test"])
    accuracies = [row["validation_accuracy"] for row in run.history] + [run.info["linear_probe"]["accuracy"]]
    assert run.metrics["validation"]["accuracy"] == pytest.approx(max(accuracies), abs=1e-4)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    logits, mirrored = (run.model.predict_on_batch(batch) for batch in (images, images[:, :, ::-1]))
    assert np.allclose(logits, mirrored, atol=1e-3) == tta
    (run.path / "report.html").unlink(missing_ok=True)  # so that the run is evaluated again
    assert dltoolkit.resume(run).metrics == run.metrics


def test_train_continues_from_a_kerashub_preset(config, tmp_path):
    hub = pytest.importorskip("keras_hub")
    options = {"stackwise_num_filters": [64], "stackwise_num_blocks": [1], "stackwise_num_strides": [1]}
    network = hub.models.ResNetBackbone([64], [3], **options, block_type="basic_block", image_shape=(None, None, 3))
    network.save_to_preset(str(tmp_path / "net"))
    hub.layers.ResNetImageConverter(image_size=(24, 24), scale=1 / 255).save_to_preset(str(tmp_path / "net"))
    run = fine_tune.train(replace(config, backbone=str(tmp_path / "net"), epochs=1, name="hub"))
    assert run.model.input_shape == (None, 24, 24, 3)
    assert same_metrics(run.evaluate(), run.metrics["test"])
    with pytest.raises(UserError, match="does not read texts"):
        models.pretrained.text_backbones.from_preset(str(tmp_path / "net"), 10)


def test_linear_probe_refuses_callbacks(config, tmp_path):
    config = replace(config, method="linear-probe", epochs=None, batch_size=None, out_dir=str(tmp_path))
    with pytest.raises(UserError, match="no training loop that could call callbacks: leave them out"):
        fine_tune.train(config, callbacks=[keras.callbacks.Callback()])
    assert not list(tmp_path.iterdir())


def test_linear_probe_has_no_training_loop(config):
    config = replace(config, epochs=None, batch_size=None, method="linear-probe", name="probe")
    run = fine_tune.train(config)
    assert (run.info["selected"], run.history) == ("linear_probe", [])
    assert run.metrics["validation"]["accuracy"] == pytest.approx(run.info["linear_probe"]["accuracy"], abs=1e-4)
    assert run.metrics["baseline"].keys() == {"majority", "linear", "from_scratch"}, "no comparison with itself"
    assert run.info["model"]["trainable_parameters"] < run.info["model"]["parameters"]


def test_train_keeps_the_linear_probe_if_training_is_worse(config, monkeypatch):
    """Training on wrong labels unlearns the classes, so validation must select the linear probe."""
    training_batches = finetuning.image_task.ImageTask.training_batches

    def wrong_labels(task, batch_size, start_step):
        batches = training_batches(task, batch_size, start_step)
        return batches.map(lambda features, one_hot: (features, keras.ops.roll(one_hot, 1, axis=-1)))

    monkeypatch.setattr(finetuning.image_task.ImageTask, "training_batches", wrong_labels)
    run = fine_tune.train(replace(config, learning_rate=1e-2, epochs=4, name="spoiled"))
    probe = run.info["linear_probe"]["accuracy"]
    assert max(row["validation_accuracy"] for row in run.history) < probe
    assert run.info["selected"] == "linear_probe"
    assert run.metrics["validation"]["accuracy"] == pytest.approx(probe, abs=1e-4)


def test_resume_ends_as_an_uninterrupted_run(config, run, monkeypatch):
    stop_at(3, lambda: fine_tune.train(replace(config, name="stopped")), monkeypatch)
    resumed = dltoolkit.resume(dltoolkit.load("fine-tune/stopped", out_dir=config.out_dir))
    assert equal(resumed, run)
    seconds = resumed.info["time"]["train_seconds"]
    assert dltoolkit.resume(resumed).info["time"]["train_seconds"] == seconds, "a finished run is not trained further"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Return a weights file of MobileNetV2-0.35 with random weights."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "some.weights.h5"
    network = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35)
    network.save_weights(path)
    return str(path)


def test_resume_refuses_changed_weights_of_an_application(config, weights_file, tmp_path):
    weights = Path(shutil.copy(weights_file, tmp_path))
    precision = "float32" if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2" else "bfloat16"  # AVX2 lacks bfloat16
    options = {"backbone": "mobilenetv2-0.35", "weights": str(weights), "image_size": 32, "name": "named"}
    options |= {"method": "linear-probe", "epochs": None, "batch_size": None, "precision": precision}
    run = fine_tune.train(replace(config, **options))
    assert run.info["task"] == "image"
    assert run.model.name == "mobilenetv2-0.35"
    assert run.model.input_shape == (None, 32, 32, 3)
    assert "Conv1" in {layer.name for layer in models.surgery.flatten_layers(run.model)}
    assert {layer.compute_dtype for layer in models.surgery.flatten_layers(run.model)} == {"float32"}
    assert same_metrics(run.evaluate(), run.metrics["test"])
    with h5py.File(weights, "r+") as file:
        file["layers/conv2d/vars/0"][...] += 1
    with pytest.raises(UserError, match=r"some\.weights\.h5 has changed since named began"):
        dltoolkit.resume(run)


def test_train_refuses_weights_that_do_not_fit(config, weights_file, tmp_path):
    options = {"backbone": "MobileNetV2", "image_size": 32, "name": "refused"}
    with pytest.raises(UserError, match="weights of another network than MobileNetV2"):
        fine_tune.train(replace(config, weights=weights_file, **options))
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(Path(weights_file).read_bytes()[:5000])
    with pytest.raises(UserError, match=r"damaged\.h5 is damaged"):
        fine_tune.train(replace(config, weights=str(damaged), **options))
    with pytest.raises(UserError, match=r"no weights file .*gone\.h5"):
        fine_tune.train(replace(config, weights=str(tmp_path / "gone.h5"), **options))


@pytest.mark.parametrize("flip", [True, False])
def test_announce_says_whether_images_are_flipped_and_stores_it(run, flip):
    task = finetuning.tasks.resolve(run.config).create()
    config = fine_tune.resolve_defaults(replace(run.config, flip=flip), task)
    splits, stored = finetuning.loading.load_images(config), {}
    recorder = SimpleNamespace(update=stored.update, writes=False, path=run.path)
    devices = SimpleNamespace(kind="cpu", replicas=1, workers=2)
    finetuning.announcement.announce(recorder, config, task, splits, run.model, devices, 1)
    words = f"3 copies of each image, 2 of them changed: {'flip' if flip else 'shift 1, no flip'} (as requested)"
    assert dict(stored["plan"]["summary"])["Augmentation"] == words + ", shift 1" * flip
    assert (stored["augment"]["flip"], stored["augment"]["shift"]) == (flip, 1)


def test_list_names_the_applications(capfd):
    code, out, _ = run_command(capfd, "list", "backbones")
    assert (code, "MobileNetV2" in out) == (0, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "MobileNetV4"}, "no backbone 'MobileNetV4'.*Did you mean 'MobileNetV2'"),
        ({"backbone": "MobileNetV2", "image_size": 16}, "at least 32 pixels per side, but these have 16x16"),
        ({"backbone": "Xception", "image_size": 32}, "at least 71 pixels"),
        ({"backbone": __file__}, "is not a .keras file"),
        ({"backbone": "MobileNetV2", "weights": __file__}, "is not a Keras weights file"),
        ({"backbone": "nowhere.keras"}, "nowhere.keras"),
        ({"weights": "some.h5"}, "weights has no effect with backbone=.*, which is a run with weights of its own"),
        ({"weights": "some.h5", "backbone": None}, "weights needs the network .*: give backbone"),
        ({"backbone": None}, "images of the data are 16x16x3: give backbone .*MobileNetV2"),
        ({"token_dropout": 0.5}, "token_dropout has no effect on image data"),
        ({"max_length": 100}, "max_length has no effect on image data"),
        ({"dropout": 0.1}, "dropout has no effect on image data"),
        ({"text_column": "text", "image_column": "image"}, "text_column has no effect on image data"),
    ],
)
def test_train_refuses_a_wrong_backbone_or_option(config, options, message):
    with pytest.raises(UserError, match=message):
        fine_tune.train(replace(config, name="refused", **options))
    with pytest.raises(UserError, match="no run"):
        dltoolkit.load("fine-tune/refused", out_dir=config.out_dir)


@pytest.mark.parametrize("option", [{"patience": 2}, {"max_time": 9.0}, {"optimizer": "sgd"}, {"metric": "loss"}])
def test_linear_probe_refuses_options_of_the_training_loop(config, option, capfd):
    config = replace(config, method="linear-probe", epochs=None, batch_size=None)
    flag = "--" + next(iter(option)).replace("_", "-")
    with pytest.raises(UserError, match=f"{next(iter(option))} has no effect with method='linear-probe'"):
        fine_tune.train(replace(config, **option))
    _, out, _ = run_command(capfd, "train", "fine-tune", "--help")
    help_text = " ".join(out.partition("linear-probe has no")[2].partition("(default: full)")[0].split())
    assert flag in help_text, "the help says so"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 4}, "rank has no effect with method='full'"),
        ({"method": "linear-probe", "unfreeze": "all"}, "unfreeze has no effect with method='linear-probe'"),
        ({"method": "linear-probe", "layer_decay": 0.5}, "layer_decay has no effect with method='linear-probe'"),
        ({"method": "linear-probe", "learning_rate": 0.5}, "learning_rate has no effect with method='linear-probe'"),
        ({"augment": False, "augment_copies": 5}, "augment_copies has no effect with augment=False"),
        ({"augment": False, "flip": True}, "flip has no effect with augment=False"),
    ],
)
def test_config_refuses_options_that_the_method_ignores(options, message):
    with pytest.raises(UserError, match=message):
        fine_tune.Config(**options)


def test_train_refuses_images_that_the_backbone_cannot_read(config, make_folder):
    with pytest.raises(UserError, match="reads images of 16x16x3"):
        fine_tune.train(replace(config, data=str(make_folder(channels=1)), name="refused"))


def test_train_refuses_a_model_that_contains_code(config, tmp_path):
    image = keras.Input((16, 16, 3))
    flat = keras.layers.Flatten()(keras.layers.Lambda(lambda x: x * 2)(image))
    keras.Model(image, keras.layers.Dense(2)(flat)).save(tmp_path / "code.keras")
    with pytest.raises(UserError, match="contains Python code"):
        fine_tune.train(replace(config, backbone=str(tmp_path / "code.keras"), name="refused"))


def test_train_refuses_a_model_without_a_dense_head(config, tmp_path):
    image = keras.Input((16, 16, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(tmp_path / "open.keras")
    with pytest.raises(UserError, match="does not end in a dense layer"):
        fine_tune.train(replace(config, backbone=str(tmp_path / "open.keras"), name="refused"))


def test_resolve_defaults_trains_pretrained_networks_gently():
    pretrained, small = (fine_tune.Config(backbone=name) for name in ("MobileNetV2", None))
    pretrained, small = (
        fine_tune.resolve_defaults(config, finetuning.tasks.resolve(config)) for config in (pretrained, small)
    )
    assert pretrained.learning_rate < small.learning_rate
    assert (pretrained.unfreeze, small.unfreeze) == ("0.3", "all")


def test_resolve_defaults_gives_long_texts_smaller_batches(tmp_path):
    (tmp_path / "texts.csv").write_text("text,label\nlovely,good\nrude,bad\n")
    config = fine_tune.Config(data=str(tmp_path / "texts.csv"), backbone="hf://a/b")
    task = finetuning.tasks.resolve(config)
    short, long = (fine_tune.resolve_defaults(config, task, max_length) for max_length in (20, 256))
    assert (short.batch_size, long.batch_size) == (32, 16)
    assert long.learning_rate == pytest.approx(short.learning_rate / 2**0.5)


def test_load_evaluate_and_predict_print_no_warning(run, folder, capfd):
    with silence(capfd):
        loaded = dltoolkit.load(str(run.path))
        loaded.evaluate()
        loaded.predict(str(next((folder / "toys" / "dots").iterdir())))
