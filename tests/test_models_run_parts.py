"""Files of a run that do not belong together are refused before the model answers anything."""

import json
from pathlib import Path

import keras
import pytest
from toy_runs import finished_run

from dltoolkit import recipe
from dltoolkit.data.language.tokenizers import CharTokenizer
from dltoolkit.data.text.vocabulary import Vocabulary
from dltoolkit.errors import UserError
from dltoolkit.models import run_parts
from dltoolkit.models.gan import networks
from dltoolkit.models.image import classifiers as image_classifiers
from dltoolkit.models.text import classifiers as text_classifiers
from dltoolkit.run import Run

WORDS = Vocabulary([f"word{i}" for i in range(18)]).to_text()  # 20 token IDs with those of padding and unknown words
DATA = {"classes": ["a", "b", "c"], "source": "toys"}


@pytest.fixture(params=["image-classifier", "ngram", "cnn", "gru", "transformer", "image-gan", "text-generator"])
def run(request, tmp_path) -> Run:
    """Make a finished run of each recipe, and of each kind of text classifier, whose parts fit each other."""
    kind = request.param
    if kind == "image-classifier":
        model, info = (
            image_classifiers.build("resnet", (8, 8, 1), 3, widths=(4,)),
            {"data": {**DATA, "image_shape": [8, 8, 1]}},
        )
    elif kind == "image-gan":
        info = {"data": {**DATA, "image_shape": [8, 8, 1]}, "conditional": True}
        model = networks.build_generator("dcgan", (8, 8, 1), 3, width=2)
    elif kind == "text-generator":
        token_ids = keras.Input((None,), dtype="int32")
        model = keras.Model(token_ids, keras.layers.Dense(6)(keras.layers.Embedding(6, 4)(token_ids)))
        info = {"data": {"source": "toys"}, "resolved": {"context_length": 4}}
    else:
        model, info = text_classifiers.build(kind, 20, 3, max_length=5), {"data": DATA}
    name = kind if "-" in kind else "sentiment-analyzer"
    made = finished_run(recipe.load(name), tmp_path, "run", model, **info)
    if "classes" in info["data"]:
        made.write_json("labels.json", DATA["classes"])
    if name == "sentiment-analyzer":
        made.write("vocabulary.txt", WORDS)
    if name == "text-generator":
        made.write_json("vocabulary.json", CharTokenizer("abcde").to_json())
    return Run.open(made.path)


def refusal(run: Run) -> str:
    with pytest.raises(UserError) as error:
        _ = Run.open(run.path).model
    return str(error.value)


def rewrite(path: Path, **data) -> None:
    content = json.loads(path.read_text())
    content["data"] |= data
    path.write_text(json.dumps(content))


def test_parts_of_a_run_that_do_not_fit_each_other_are_refused(run):
    _ = run.model  # the whole run is loaded
    path = run.path / "run.json"
    content = path.read_text()
    if run.labels:
        for classes in (["x", "y", "z"], ["c", "b", "a"]):
            rewrite(path, classes=classes)
            assert "labels.json and run.json name other classes" in refusal(run)
        (run.path / "labels.json").write_text(json.dumps([f"class {i}" for i in range(99)]))
        rewrite(path, classes=[f"class {i}" for i in range(99)])
        assert "99 classes" in refusal(run)
        rewrite(path, classes=["a", "a", "b"])
        assert "names a class twice" in refusal(run)
        path.write_text(content)
        (run.path / "labels.json").write_text(json.dumps(DATA["classes"]))
    if "image_shape" in run.info["data"]:
        rewrite(path, image_shape=[16, 16, 1])
        assert "images of 8 x 8 x 1, but run.json says 16 x 16 x 1" in refusal(run)
        path.write_text(content)
    if (run.path / "vocabulary.txt").exists():
        (run.path / "vocabulary.txt").write_text("good\nbad\n")
        assert "the vocabulary has 4 entries, for which model.keras was not trained" in refusal(run)
    if (run.path / "vocabulary.json").exists():
        run.write_json("vocabulary.json", CharTokenizer("ab").to_json())
        assert "the vocabulary has 3 entries, for which model.keras was not trained" in refusal(run)
        with pytest.raises(UserError, match=r"The model has 6 outputs, but vocabulary.json holds 3 tokens"):
            run.generate("ab", max_tokens=2)


def test_model_of_another_recipe_is_refused(run):
    inputs = keras.Input((5,))
    run.save_model(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
    assert "do not belong together" in refusal(run)


@pytest.mark.parametrize("run", ["text-generator"], indirect=True)
def test_a_context_of_more_tokens_than_there_are_positions_is_refused(run):
    class Positions(keras.layers.Layer):
        sequence_length = 8

        def call(self, vectors):
            return vectors

    info = {"resolved": {"context_length": 9}}
    vectors = keras.Input((None, 6))
    model = keras.Model(vectors, Positions()(vectors))
    with pytest.raises(UserError, match="model.keras reads 8 tokens, but run.json says 9"):
        run_parts.check(run.path, info, model)


def test_files_of_a_finished_run_must_be_those_that_it_finished_with(run):
    name = "labels.json" if run.labels else "vocabulary.json"
    run.update(files=run.digests())
    _ = Run.open(run.path).model
    (run.path / name).write_bytes((run.path / name).read_bytes() + b"\n")
    assert f"{run.path / name} has changed since the run finished" in refusal(run)
    (run.path / name).unlink()
    assert "has changed" in refusal(run)
    run.update(state="interrupted")  # training writes the files again
    _ = Run.open(run.path).model


@pytest.mark.parametrize("run", ["image-classifier"], indirect=True)
def test_a_size_of_images_that_an_open_model_cannot_compute_is_refused(run):
    image = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(32, 1)(image))
    run.info["data"]["image_shape"] = [8, 8, 3]
    model = keras.Model(image, keras.layers.Dense(3)(x))
    run_parts.check(run.path, run.info, model)
    run.info["data"]["image_shape"] = [8192, 8192, 3]
    with pytest.raises(
        UserError, match="model.keras was not loaded, because it would exhaust the memory: its layer conv2d"
    ):
        run_parts.check(run.path, run.info, model)
