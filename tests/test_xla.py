"""Every recipe's training step compiles with XLA, for shapes that are known before: what a TPU asks for."""

import inspect

import pytest
from conftest import toy_texts, write_images, write_texts
from dltoolkit.recipes import fine_tune, image_classifier, image_gan, sentiment_analyzer, text_generator
from test_training_fit import stopped_at

import dltoolkit
from dltoolkit.evaluation import feature_extractor as probe
from dltoolkit.training import checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("xla")
    write_images(path / "pictures", 12, side=12)
    texts = toy_texts(60)
    write_texts(path / "texts", texts)
    (path / "book.txt").write_text("\n".join(text for _, text in texts * 4))
    return path


def compiled(graph) -> list[str]:
    """The functions of a graph that TensorFlow must run with XLA, or fail."""
    return [function.signature.name for function in graph.library.function if function.attr["_XlaMustCompile"].b]


def shapes(graph) -> list[list[int]]:
    """Of what the training step gets from its data set; -1 for what is not known before."""
    functions = [node for function in graph.library.function for node in function.node_def]
    (first, *_) = [node for node in (*graph.node, *functions) if node.op.startswith("IteratorGetNext")]
    return [[each.size for each in shape.dim] for shape in first.attr["output_shapes"].list.shape]


@pytest.fixture
def trained(monkeypatch):
    """Train a recipe's network for a step with XLA, and return it, the graph of its training and its run."""

    def go(recipe, config):
        built = []

        def restore(run, model, really=checkpoint.restore):
            built.append(model)
            return really(run, model)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "restore", restore)
            patch.setattr(probe, "MOST_STEPS", 20)
            stopped_at(1, lambda: recipe.train(config), monkeypatch)
        model = built[-1]
        steps = inspect.getclosurevars(model.train_function).nonlocals["multi_step_on_iterator"]
        (concrete,) = steps._list_all_concrete_functions()
        return model, concrete.graph.as_graph_def(), dltoolkit.load(config.name, config.out_dir)

    return go


CASES = {
    "resnet": (image_classifier, {"model": "resnet", "widths": (8, 8)}, "pictures"),
    "vit": (image_classifier, {"model": "vit", "widths": (32, 32)}, "pictures"),
    "ngram": (sentiment_analyzer, {"model": "ngram"}, "texts"),
    "lstm": (sentiment_analyzer, {"model": "lstm", "units": 8}, "texts"),
    "transformer": (sentiment_analyzer, {"model": "transformer", "units": 8}, "texts"),
    "gpt": (text_generator, {"layers": 1, "embedding_dim": 32, "context_length": 16}, "book.txt"),
    "gan": (image_gan, {"width": 8}, "pictures"),
    "fine-tune": (fine_tune, {"unfreeze": "all", "optimizer": "adamw"}, "pictures"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_training_step_is_compiled_by_xla(case, folder, trained, request):
    recipe, options, data = CASES[case]
    if recipe is fine_tune:
        options = {**options, "backbone": str(folder / "image-classifier" / "resnet")}
        if not (folder / "image-classifier" / "resnet").exists():
            image_classifier.train(
                image_classifier.Config(
                    data=str(folder / data), widths=(8, 8), epochs=1, name="resnet", out_dir=str(folder)
                )
            )
    config = recipe.Config(
        data=str(folder / data), batch_size=8, xla="on", name=f"{case}-xla", out_dir=str(folder), **options
    )
    model, graph, run = trained(recipe, config)
    assert run.info["device"]["xla"] is True
    assert model.jit_compile, "Keras has not turned it off"
    assert any("one_step_on_data" in name for name in compiled(graph)), "the step itself is what XLA compiles"
    first, *others = shapes(graph)
    assert first[0] == 8, "batches are whole"
    unknown = [size for shape in (first, *others) for size in shape if size < 1]
    assert len(unknown) == (1 if recipe is sentiment_analyzer else 0), "only texts differ in length"


def test_a_step_that_xla_cannot_compile_is_not_taken_for_compiled():
    """What the tests above lean on: TensorFlow fails where a function that must be compiled cannot be."""
    import keras
    import numpy as np
    import tensorflow as tf

    class OnTheHost(keras.layers.Layer):
        def call(self, inputs):
            return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), (8, 4))

    inputs = keras.Input((4,), batch_size=8)
    model = keras.Model(inputs, keras.layers.Dense(1)(OnTheHost()(inputs)))
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="numpy_function|PyFunc"):
        model.fit(np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32"), batch_size=8, verbose=0)
