"""Backbones: the meaning of their names, and the abilities of each kind."""

import keras
import pytest
from dltoolkit.recipes import image_classifier, text_generator
from toy_runs import finished_run

from dltoolkit.errors import UserError
from dltoolkit.finetuning import backbone


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory):
    """Return a folder with one run of image-classifier, which has a network of two layers."""
    folder = tmp_path_factory.mktemp("runs")
    image = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(image))
    finished_run(image_classifier, folder, "squares", keras.Model(image, logits, name="small"))
    return folder


@pytest.fixture
def preset(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}")
    return tmp_path / "preset"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (None, backbone.DigitsBackbone),
        ("digits-half", backbone.DigitsBackbone),
        ("mobilenetv2", backbone.ApplicationBackbone),
        ("hf://somebody/something", backbone.PresetBackbone),
        ("squares", backbone.RunBackbone),
        ("image-classifier/squares", backbone.RunBackbone),
    ],
)
def test_resolve_finds_the_source_of_a_name(out_dir, name, kind):
    resolved = backbone.resolve(name, out_dir=str(out_dir))
    assert type(resolved) is kind
    assert resolved.spec == name


def saved_model(path, shape, *heads):
    inputs = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(inputs) if len(shape) == 3 else inputs
    keras.Model(inputs, [keras.layers.Dense(units)(x) for units in heads]).save(path / "it.keras")
    return backbone.resolve(str(path / "it.keras"))


def test_resolve_names_a_missing_file():
    with pytest.raises(UserError, match="There is no file missing.keras: give backbone an existing .keras file"):
        backbone.resolve("missing.keras")


def test_file_backbone_takes_any_size_if_the_network_does(tmp_path):
    network = saved_model(tmp_path, (None, None, 3), 2)
    assert (type(network), network.image_size) == (backbone.FileBackbone, None)
    assert network.image_features((12, 16, 3)).input_shape == (None, 12, 16, 3)
    with pytest.raises(UserError, match="reads images of any sizexany sizex3, but the images of the data are 8x8x1"):
        network.image_features((8, 8, 1))


@pytest.mark.parametrize(
    ("shape", "heads", "message"),
    [
        ((100,), [2], r"does not read images \(batch, height, width, channels\): its inputs are \(batch, 100\)"),
        ((8, 8, 3), [2, 3], "has 1 input and 2 outputs: give backbone a classifier with one of each"),
    ],
)
def test_file_backbone_refuses_networks_that_are_no_image_classifiers(tmp_path, shape, heads, message):
    with pytest.raises(UserError, match=message):
        _ = saved_model(tmp_path, shape, *heads).image_size


def test_resolve_finds_a_folder_with_a_preset(preset):
    assert type(backbone.resolve(str(preset))) is backbone.PresetBackbone


def test_resolve_names_a_run_that_latest_means(out_dir):
    latest = backbone.resolve("latest", out_dir=str(out_dir))
    assert latest.spec == str(out_dir / "image-classifier" / "squares")


@pytest.mark.parametrize(("name", "nearest"), [("MobileNetV4", "MobileNetV2"), ("squaers", "squares")])
def test_resolve_suggests_the_nearest_name(out_dir, name, nearest):
    with pytest.raises(UserError, match=f"There is no backbone '{name}'.* Did you mean '{nearest}'"):
        backbone.resolve(name, out_dir=str(out_dir))


def test_resolve_opens_no_other_files(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(UserError, match="is not a .keras file; other files are not opened"):
        backbone.resolve(str(tmp_path / "model.pkl"))


def test_run_backbone_gives_its_network_without_the_head(out_dir):
    squares = backbone.resolve("squares", out_dir=str(out_dir))
    assert squares.image_size == 8
    assert squares.image_features((8, 8, 1)).output_shape == (None, 64)
    assert squares.weights_file == out_dir / "image-classifier" / "squares" / "model.keras"
    with pytest.raises(UserError, match="squares reads images of 8x8x1, but the images of the data are 9x9x1"):
        squares.image_features((9, 9, 1))


def test_run_backbone_refuses_what_its_network_cannot_do(out_dir):
    squares = backbone.resolve("squares", out_dir=str(out_dir))
    with pytest.raises(UserError, match="a run of image-classifier, which does not read texts"):
        squares.text_features(16)
    with pytest.raises(UserError, match="a run of image-classifier, which does not generate text"):
        squares.language_model()


@pytest.mark.parametrize("name", [None, "MobileNetV2", "some.keras"])
def test_image_backbones_refuse_text(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.keras").touch()
    images = backbone.resolve(name)
    with pytest.raises(UserError, match="does not read texts: give backbone a KerasHub preset"):
        images.text_features(16)
    with pytest.raises(UserError, match="does not generate text: give backbone a run of text-generator"):
        images.language_model()


def test_check_unchanged_refuses_to_resume_from_other_weights(out_dir, tmp_path):
    path = tmp_path / "small.keras"
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(image)))
    model.save(path)
    run = finished_run(text_generator, tmp_path, "resumed", model)
    backbone.resolve(str(path)).check_unchanged(run)
    backbone.resolve(str(path)).check_unchanged(run)
    model.layers[-1].bias.assign_add([1.0, 1.0])
    model.save(path)
    with pytest.raises(UserError, match=r"small\.keras has changed since resumed began"):
        backbone.resolve(str(path)).check_unchanged(run)
