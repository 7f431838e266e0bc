"""``run.predict`` and its kin: one input or many, of every type, with errors in their place."""

import inspect
import io
import logging
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from toy_runs import finished_run

import dltoolkit
from dltoolkit import lazy, recipe
from dltoolkit.data.text.encoders import VocabularyEncoder
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.data.text.words import TokenizedTexts
from dltoolkit.errors import UserError
from dltoolkit.models.image import classifiers as image_models
from dltoolkit.models.text import classifiers as text_models

TEXTS = ["good film", "bad film", "good good", "bad bad"]


@pytest.fixture(scope="module")
def images_run(tmp_path_factory):
    """Make a run of an untrained classifier of color images of 8x8 pixels."""
    keras.utils.set_random_seed(1)
    model = image_models.build("mlp", (8, 8, 3), 3)
    folder, module = tmp_path_factory.mktemp("images"), recipe.load("image-classifier")
    return finished_run(module, folder, "toy", model, data={"classes": ["a", "b", "c"], "image_shape": [8, 8, 3]})


@pytest.fixture(scope="module")
def texts_run(tmp_path_factory):
    """Make a run of an untrained classifier of texts."""
    keras.utils.set_random_seed(1)
    folder, module = tmp_path_factory.mktemp("texts"), recipe.load("sentiment-analyzer")
    vocabulary = Vocabulary.build(TokenizedTexts(TEXTS), np.arange(4), max_size=100, min_df=1)
    model = text_models.build("cnn", len(vocabulary), 2, max_length=20, embedding_dim=4, units=3)
    run = finished_run(module, folder, "toy", model, data={"classes": ["bad", "good"]})
    VocabularyEncoder(vocabulary, 20).save(run.path)
    return run


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def scores(predictions):
    """Return the probabilities of each prediction in the order of the labels."""
    predictions = predictions if isinstance(predictions, list) else [predictions]
    rows = [sorted((entry["label"], entry["probability"]) for entry in each.top) for each in predictions]
    return np.array([[probability for _, probability in row] for row in rows])


def near(values):
    return pytest.approx(values, abs=1e-4)  # the size of a batch changes the last bits


def test_a_text_is_never_the_name_of_a_file(texts_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("secret.txt").write_text("good good good")
    Path("secret.csv").write_text("text\ngood\nbad\n")
    texts = [str(tmp_path / "secret.txt"), "secret.txt", str(tmp_path), "secret.csv", "*.txt", "gone.txt", "/etc/*"]
    predictions = texts_run.predict(texts)
    assert [each.input for each in predictions] == texts
    assert [each.error for each in predictions] == [None] * len(texts)
    assert {each.label for each in predictions} == {"unknown_input"}  # the words of the names, not of the files
    assert scores(texts_run.predict("secret.txt")) != near(texts_run.predict_proba("good good good"))


def test_a_path_is_a_file_with_one_text(texts_run, tmp_path):
    file, table = tmp_path / "one.txt", tmp_path / "many.csv"
    file.write_text("good film")
    table.write_text("text\ngood\nbad\n")
    one = texts_run.predict(file)
    assert one.input == str(file) and scores(one) == near(texts_run.predict_proba("good film"))
    missing, folder, rows = texts_run.predict([tmp_path / "gone.txt", tmp_path, table])
    assert missing.error == "No such file or directory"
    assert folder.error == "a folder, not a file with one text"
    assert rows.error.startswith("a table, not a file with one text")


def test_one_text_gives_one_prediction_and_many_give_a_list(texts_run):
    good, bad = expected = texts_run.predict_proba(["good", "bad"])
    assert good != near(bad)
    for one in (
        "good",
        np.str_("good"),
        b"good",
        bytearray(b"good"),
        memoryview(b"good"),
        tf.constant("good"),
        np.array("good", object),
    ):
        assert scores(texts_run.predict(one)) == near(good[None])
    lists = (
        ("good", "bad"),
        iter(["good", "bad"]),
        (text for text in ["good", "bad"]),
        {"good": 1, "bad": 2}.keys(),
        np.array(["good", "bad"]),
        np.array([["good"], ["bad"]]),
        tf.constant(["good", "bad"]),
        tf.data.Dataset.from_tensor_slices(["good", "bad"]),
        tf.data.Dataset.from_tensor_slices((["good", "bad"], [1, 0])).batch(2),  # as for keras.Model.predict
        keras.ops.convert_to_tensor(["good", "bad"]),
    )
    for many in lists:
        assert scores(texts_run.predict(many)) == near(expected)
    assert len(texts_run.predict(["good"])) == 1
    assert texts_run.predict([]) == []


def test_invalid_texts_become_errors_in_their_place(texts_run):
    inputs = ["good", None, float("nan"), np.float32("nan"), 3.5, 7, True, {"text": "x"}, ["good"], " ", b"\xff", "bad"]
    predictions = texts_run.predict(inputs)
    assert len(predictions) == len(inputs)
    assert [each.error is None for each in predictions] == [True] + [False] * 10 + [True]
    errors = [each.error for each in predictions]
    assert errors[1:5] == ["missing (None)", "missing (NaN)", "missing (NaN)", "a number, not a text"]
    assert errors[7:10] == ["of type dict, not a text", "of type list, not a text", "empty"]
    assert (predictions[1].input, predictions[4].input, predictions[8].input) == ("None", "3.5", "list 8")
    assert scores(predictions[-1]) == near(texts_run.predict_proba("bad"))
    for one in (None, float("nan"), 3.5, {"text": "x"}, object()):
        assert texts_run.predict(one).error


def test_the_missing_values_of_pandas_are_missing(texts_run):
    class NAType:  # that of pandas is in no comparison either
        def __bool__(self):
            raise TypeError("boolean value of NA is ambiguous")

    missing, good = texts_run.predict([NAType(), "good"])
    assert (missing.error, good.error) == ("missing (NA)", None)


def test_tables_and_endless_data_are_refused(texts_run):
    class Frame:
        columns = ("text",)

    with pytest.raises(UserError, match=r"frame\['text'\]"):
        texts_run.predict(Frame())
    with pytest.raises(UserError, match="endless"):
        texts_run.predict(tf.data.Dataset.from_tensors("good").repeat())


def test_one_image_gives_one_prediction_and_many_give_a_list(images_run, pixels, tmp_path):
    file = tmp_path / "one.png"
    Image.fromarray(pixels[0]).save(file)
    expected = images_run.predict_proba(pixels)
    ones = (str(file), file, file.read_bytes(), Image.open(file), pixels[0], tf.constant(pixels[0]), pixels[0] / 255.0)
    content = file.read_bytes()
    ones += (np.str_(file), np.array(str(file)), bytearray(content), memoryview(content), io.BytesIO(content))
    for one in ones:
        assert scores(images_run.predict(one)) == near(expected[:1])
    with open(file, "rb") as opened:
        assert scores(images_run.predict([opened, pixels[1]])) == near(expected[:2])
    with open(file, encoding="latin-1") as opened:
        assert images_run.predict(opened).error == "a file in text mode: open it with mode 'rb'"
    assert images_run.predict(tmp_path).error == "a folder, not an image"
    assert scores(images_run.predict(tf.cast(pixels[0], tf.bfloat16))) == near(expected[:1])
    dataset = tf.data.Dataset.from_tensor_slices(pixels)
    labeled = tf.data.Dataset.zip(dataset, tf.data.Dataset.range(4))
    for many in (pixels, tf.constant(pixels), iter(pixels), tuple(pixels), dataset, labeled, labeled.batch(3)):
        assert scores(images_run.predict(many)) == near(expected)
    gray = pixels[..., 0]  # (4, 8, 8)
    assert scores(images_run.predict(gray[0])) == near(images_run.predict_proba(gray[0][..., None]))
    assert len(images_run.predict(pixels[:2, ..., 0])) == 2
    assert images_run.predict(pixels[:0]) == []
    with pytest.raises(UserError, match="channels first"):
        images_run.predict(gray)
    with pytest.raises(UserError, match="two channels"):  # gray and opacity, not eight images of 8x2
        images_run.predict(pixels[0, ..., :2])


def test_predict_answers_objects_that_cannot_become_arrays_with_an_error(images_run):
    class Elsewhere:  # as a tensor on another device
        def __array__(self, *_, **__):
            raise RuntimeError("on another device")

    error = "cannot be converted to an array (on another device)"
    assert images_run.predict(Elsewhere()).error == error
    assert [prediction.error for prediction in images_run.predict([Elsewhere(), Elsewhere()])] == [error, error]


def test_floats_get_the_answers_of_8_bit_images_one_by_one_and_in_a_batch(images_run, pixels, capsys):
    dark = (pixels > 128).astype(np.uint8)
    mixed = np.stack([pixels[0], dark[1], pixels[2]]).astype(np.float32)  # of the dark image, 1 is taken as white
    expected = np.stack([pixels[0], 255 * dark[1], pixels[2]])
    capsys.readouterr()
    assert images_run.preprocess(mixed).tolist() == expected.tolist()
    err = " ".join(capsys.readouterr().err.split())
    assert err.count("has values up to 1, but the model was trained on 8-bit images: 1 is taken as white") == 1
    assert [images_run.preprocess(one)[0].tolist() for one in mixed] == expected.tolist()
    assert scores(images_run.predict(mixed)) == near(images_run.predict_proba(expected))
    assert images_run.preprocess(dark).tolist() == dark.tolist(), "uint8 is never stretched"


def test_invalid_images_become_errors_in_their_place(images_run, pixels, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    broken = pixels[0].astype(np.float32)
    broken[0, 0] = np.nan
    inputs = [pixels[0], None, float("nan"), 3.5, str(tmp_path / "gone.png"), text, tmp_path, broken, [1, 2], pixels[1]]
    predictions = images_run.predict(inputs)
    assert [each.error is None for each in predictions] == [True] + [False] * 8 + [True]
    errors = [each.error for each in predictions]
    assert errors[1:4] == ["missing (None)", "missing (NaN)", "a number, not an image"]
    assert (errors[4], errors[8]) == ("no such file", "of type list, not an image")
    assert scores(predictions[-1]) == near(images_run.predict_proba(pixels[1]))
    assert images_run.predict(str(tmp_path / "*.png")).error, "a pattern is not expanded"
    assert images_run.predict(np.zeros(784)).error == "an array of shape (784,) is not one image"
    wrong = images_run.predict([np.zeros((0, 3, 3)), np.zeros((2, 3, 0)), np.zeros((3, 4, 5)), np.zeros((1, 8, 8, 3))])
    assert [each.error for each in wrong] == [
        "an empty array of shape (0, 3, 3)",
        "an empty array of shape (2, 3, 0)",
        "an array of shape (3, 4, 5) is not one image: move the channels last",
        "an array of shape (1, 8, 8, 3) is not one image",
    ]


def test_probabilities_embeddings_and_preprocessed_inputs_fit_together(images_run, texts_run, pixels, tmp_path):
    empty = tmp_path / "empty.png"
    empty.touch()
    for run, inputs, features in ((images_run, pixels, None), (texts_run, TEXTS, 9)):
        proba, batch = run.predict_proba(inputs), run.preprocess(inputs)
        assert (proba.shape, proba.dtype) == ((4, len(run.labels)), np.float32)
        assert proba == near(scores(run.predict(inputs)))
        assert proba == near(keras.ops.softmax(run.model(batch)).numpy())
        embedding = run.embed(inputs)
        assert embedding.dtype == np.float32
        assert features in (None, embedding.shape[1])
        kernel, bias = run.model.layers[-1].get_weights()
        assert embedding @ kernel + bias == near(run.model.predict_on_batch(batch))
        one = run.predict_proba(inputs[0])
        assert one == near(proba[:1])
        assert run.embed(inputs[0]).shape == (1, embedding.shape[1])
        for method in (run.predict_proba, run.embed, run.preprocess):
            assert len(method(inputs[:0])) == 0
            with pytest.raises(UserError, match=r"Input 1 cannot be read \(missing \(None\)\)"):
                method([inputs[0], None])
            with pytest.raises(UserError, match=r"^The input cannot be read \(missing \(None\)\): correct it\.$"):
                method(None)
            for name in (empty, str(empty)) if run is images_run else (empty,):
                with pytest.raises(UserError, match=f"^{re.escape(str(empty))} cannot be read \\(empty.*: correct it"):
                    method(name)
                with pytest.raises(UserError, match=f"^Input 1, {re.escape(str(empty))}, cannot be read"):
                    method([inputs[0], name])
    assert images_run.preprocess(pixels).tolist() == pixels.tolist()
    assert images_run.preprocess(pixels).dtype == np.uint8
    assert texts_run.preprocess(["good film bad", "bad"]).shape == (2, 3)


def test_embeddings_of_a_model_with_flips_are_those_of_the_image(tmp_path, images_run, pixels):
    model = image_models.with_flip_tta(images_run.model)
    run = finished_run(
        recipe.load("image-classifier"),
        tmp_path,
        "flips",
        model,
        data={"classes": ["a", "b", "c"], "image_shape": [8, 8, 3]},
    )
    assert run.embed(pixels) == near(images_run.embed(pixels))


def test_a_model_without_a_dense_layer_has_no_embeddings(tmp_path, texts_run):
    model = text_models.build("ngram", 5, 2, max_length=20)
    run = finished_run(recipe.load("sentiment-analyzer"), tmp_path, "ngram", model, data={"classes": ["bad", "good"]})
    (run.path / "vocabulary.txt").write_bytes((texts_run.path / "vocabulary.txt").read_bytes())
    with pytest.raises(UserError, match="no dense layer"):
        run.embed("good")


def test_public_names_have_documentation():
    names = dir(dltoolkit)
    assert names == ["Explanation", "Prediction", "Run", "UserError", "__version__", "load", "resume", "runs"]
    for name in (name for name in names if name != "__version__"):
        assert inspect.getdoc(getattr(dltoolkit, name)), name
    for name, member in inspect.getmembers(dltoolkit.Run):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
    for name in recipe.names():
        module = recipe.load(name)
        functions = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
        assert functions and all(inspect.getdoc(each) for each in functions), name


def test_a_text_in_a_tensor_or_in_bytes_names_its_prediction(texts_run):
    predictions = texts_run.predict([tf.constant("good film"), b"bad film", np.array("good"), "bad", b"\xff\xfe\xff"])
    assert [each.input for each in predictions] == ["good film", "bad film", "good", "bad", "bytes 4"]
    assert [each.input for each in texts_run.predict(tf.constant(["good film"]))] == ["good film"]


def test_warnings_of_tensorflow_are_dropped_in_calls_of_dltoolkit_only(images_run, monkeypatch):
    monkeypatch.delenv(lazy.DEBUG_VARIABLE, raising=False)
    logger, heard = logging.getLogger("tensorflow"), []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    model = images_run.model

    def predict_on_batch(batch):
        logger.warning("5 out of the last 11 calls triggered tf.function retracing")
        logger.error("a failure")
        return np.zeros((len(batch), 3), np.float32)

    monkeypatch.setattr(model, "predict_on_batch", predict_on_batch)
    try:
        image = np.zeros((8, 8, 3), np.uint8)
        images_run.predict(image)
        images_run.predict_proba([image])
        assert heard == ["a failure", "a failure"]
        logger.warning("of the user's own program")
        assert heard[2:] == ["of the user's own program"]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
