"""The private parts of Keras that the toolkit uses: the behavior that a user would miss after an upgrade."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from dltoolkit.models import keras_internals
from dltoolkit.training import muon


def test_graph_nodes_follow_the_nodes_that_they_read():
    inputs = keras.Input((4,), name="image")
    a = keras.layers.Dense(3, name="a")(inputs)
    b = keras.layers.Dense(3, name="b")(a)
    nodes = keras_internals.graph_nodes(keras.Model(inputs, keras.layers.Add(name="sum")([a, b])))
    assert [node.operation.name for node in nodes] == ["image", "a", "b", "sum"]
    assert [[tensor.name for tensor in node.inputs] for node in nodes] == [
        [],
        [nodes[0].outputs[0].name],
        [nodes[1].outputs[0].name],
        [nodes[1].outputs[0].name, nodes[2].outputs[0].name],
    ]


def test_all_layers_reaches_the_layers_of_a_layer():
    model = keras.Sequential([keras.Input((3, 8)), keras.layers.Bidirectional(keras.layers.LSTM(2, dropout=0.1))])
    assert sum(isinstance(layer, keras.layers.LSTM) for layer in keras_internals.all_layers(model)) == 2
    assert model in keras_internals.all_layers(model)
    assert model not in keras_internals.all_layers(model, include_self=False)


def test_seed_generators_finds_dropout_only():
    dropout = keras.layers.Dropout(0.5)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), dropout])
    ((layer, generator),) = keras_internals.seed_generators(model)
    assert layer is dropout and isinstance(generator, keras.random.SeedGenerator)


def test_gelu_variant_knows_both_forms():
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.GPT2Backbone(50, 1, 1, 8, 16, max_sequence_length=8)
    activations = [getattr(layer, "activation", None) for layer in keras_internals.all_layers(backbone)]
    assert "tanh" in [keras_internals.gelu_variant(each) for each in activations if each]
    assert keras_internals.gelu_variant(keras.activations.get("gelu")) == "exact"
    assert keras_internals.gelu_variant(keras.activations.relu) is None


class PlainAttention(keras_internals.AttentionBase):
    calls = 0

    def attend(self, query, key, value, attention_mask, scale, training):
        self.calls += 1
        logits = tf.einsum("btha,bsha->bhts", query, key) * scale
        if attention_mask is not None:
            logits += (1 - tf.cast(attention_mask, tf.float32))[:, None] * -1e9
        return tf.einsum("bhts,bsha->btha", self.dropped_attention(tf.nn.softmax(logits), training), value)


def test_attention_base_computes_what_keras_does_with_a_method_of_ours():
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    mask = np.ones((2, 1, 5), bool)
    mask[0, :, 3:] = False
    ours, of_keras = PlainAttention(2, 4), keras.layers.MultiHeadAttention(2, 4)
    for layer in (ours, of_keras):
        layer.build(x.shape, x.shape)
    ours.set_weights(of_keras.get_weights())
    np.testing.assert_allclose(ours(x, x, attention_mask=mask), of_keras(x, x, attention_mask=mask), atol=1e-5)
    assert ours.calls == 1
    np.testing.assert_allclose(ours(x, x, use_causal_mask=True), of_keras(x, x, use_causal_mask=True), atol=1e-5)


def test_attention_base_drops_weights_in_training_only():
    layer = PlainAttention(2, 4, dropout=0.5)
    ones = tf.ones((1, 2, 20, 20))
    layer.build((1, 20, 8), (1, 20, 8))
    np.testing.assert_array_equal(layer.dropped_attention(ones, False), ones)
    assert set(np.unique(layer.dropped_attention(ones, True))) == {0.0, 2.0}


def test_call_in_training_passes_training_only_where_it_is_taken():
    class Doubles(keras.Model):
        def call(self, x):
            return 2 * x

    dropout = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(0.5)])
    assert 0.0 in np.asarray(keras_internals.call_in_training(dropout, tf.ones((1, 1000))))
    assert float(keras_internals.call_in_training(Doubles(), tf.ones((1, 1)))[0, 0]) == 2.0


def test_variable_index_is_the_order_of_build():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    assert [keras_internals.variable_index(optimizer, each) for each in model.trainable_variables] == [0, 1]


@pytest.mark.parametrize("keep", [False, True])
def test_keep_weights_after_fit_leaves_the_moving_average_out(keep):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros", use_bias=False)])
    model.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9), "mae")
    if keep:
        keras_internals.keep_weights_after_fit(model.optimizer)
    model.fit(np.ones((1, 1)), 10 * np.ones((1, 1)), epochs=4, verbose=0)
    assert (float(model.get_weights()[0][0, 0]) == 2.0) == keep


class SignMuon(keras_internals.MuonBase):
    def uses_adamw(self, variable):
        return len(variable.shape) < 2

    def update_matrix(self, gradient, variable, learning_rate, momentum):
        self.assign_sub(variable, learning_rate * tf.sign(gradient))


def test_muon_base_lets_a_subclass_choose_and_update():
    matrix, vector = keras.Variable(np.zeros((2, 3))), keras.Variable(np.zeros(3))
    optimizer = SignMuon(learning_rate=0.25, weight_decay=None, adam_weight_decay=None)
    optimizer.build([matrix, vector])
    optimizer.apply([tf.fill((2, 3), 7.0), tf.ones(3)])
    np.testing.assert_allclose(matrix, np.full((2, 3), -0.25))
    assert np.all(np.asarray(vector) < 0), "AdamW moved it"


def test_muon_keeps_the_defaults_of_keras():
    ours, of_keras = muon.Muon().get_config(), keras.optimizers.Muon().get_config()
    assert {**ours, "name": None} == {**of_keras, "name": None}


def test_failed_url_names_what_could_not_be_downloaded(tmp_path):
    with pytest.raises(Exception, match="URL fetch failure") as failed:
        keras.utils.get_file("x.h5", "http://127.0.0.1:9/some/x.h5", cache_dir=tmp_path)
    assert keras_internals.failed_url(failed.value) == "http://127.0.0.1:9/some/x.h5"
    assert keras_internals.failed_url(ValueError("shapes differ")) is None


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ({"class_name": "Dense", "module": "keras.layers", "registered_name": None}, keras.layers.Dense),
        ({"class_name": "function", "module": "builtins", "config": "relu"}, keras.activations.relu),
        ({"class_name": "function", "module": "keras", "config": "utils.plot_model"}, keras.utils.plot_model),
        ({"class_name": "None", "module": "keras.layers"}, None),
    ],
)
def test_find_part_returns_what_keras_finds(part, found):
    assert keras_internals.find_part({"config": {}, **part}) is found


def test_preset_lacks_names_the_class_that_a_preset_has_not(tmp_path):
    hub = pytest.importorskip("keras_hub")
    hub.models.VGGBackbone([1], [4], image_shape=(16, 16, 3)).save_to_preset(str(tmp_path))
    with pytest.raises(ValueError, match="Tokenizer") as failed:
        hub.tokenizers.Tokenizer.from_preset(str(tmp_path))
    assert keras_internals.preset_lacks(failed.value, "Tokenizer")
    assert not keras_internals.preset_lacks(failed.value, "ImageConverter")


UNEVEN_REPLICAS = """
import json
import keras, numpy as np, tensorflow as tf
from dltoolkit.models import keras_internals

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = np.arange(12, dtype="float32").reshape(6, 2), np.ones((6, 1), "float32")


class Uneven(keras_internals.BuildFromReplicaBatch, keras.Model):
    pass


class Logged(keras_internals.LogMetricResults, Uneven):
    def train_step(self, data):
        return {"loss": super().train_step(data)["loss"]}


def parts(context):  # a batch of three: two examples for the first replica, one for the other
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(3).flat_map(
        lambda x, y: tf.data.Dataset.range(2).map(lambda i: (x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2]))
    )


report = {}
for kind in (Uneven, Logged):
    outside = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with strategy.scope():
        inputs = keras.Input((2,))
        model = kind(inputs, keras.layers.Dense(1, kernel_initializer="zeros")(inputs))
        model.compile(keras.optimizers.SGD(0.0), "mse", metrics=["mae"])
    keras_internals.set_strategy(model, strategy)
    batches = strategy.distribute_datasets_from_function(parts)
    history = model.fit(batches, epochs=1, steps_per_epoch=2, shuffle=False, verbose=0).history
    report[kind.__name__] = {name: values[0] for name, values in history.items()}
print(json.dumps(report))
"""


def test_replica_mixins_train_on_batches_of_unequal_parts():
    """In a process of its own, which has two logical CPUs."""
    done = subprocess.run([sys.executable, "-c", UNEVEN_REPLICAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for logs in report.values():  # every target is 1 and every output 0
        assert logs == {"loss": pytest.approx(1.0), "mae": pytest.approx(1.0)}


def test_set_strategy_moves_training_of_a_model_made_elsewhere():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    keras_internals.set_strategy(model, strategy)
    assert model.distribute_strategy is strategy


def test_keras_home_is_where_get_file_puts_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_internals.config, "keras_home", lambda: str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "served.txt").write_text("x")
    path = keras.utils.get_file("served.txt", (tmp_path / "served.txt").as_uri())
    assert keras_internals.keras_home() == str(tmp_path / "home") and path.startswith(keras_internals.keras_home())
