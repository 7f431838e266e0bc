"""Tell which of three numbers is the largest: a recipe small enough to train in tests.

dltoolkit train ./toy_recipe.py --epochs 5
"""

import functools
from dataclasses import dataclass

from dltoolkit import data, training
from dltoolkit.config import OptimizerOptions, RunConfig, SelectionOptions, option
from dltoolkit.run import Run

TRAIN_EXAMPLES, VALIDATION_EXAMPLES = 512, 128


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, OptimizerOptions, SelectionOptions):
    data: str = option("toy", "Not used.")
    batch_size: int = option(64, "Examples per step.", minimum=1)
    hidden: int = option(16, "Units of the hidden layer.", minimum=1)
    dropout: float = option(0.1, "Dropout rate.", minimum=0, maximum=0.9)
    memory: int | None = option(
        None, "Maximum batch size that fits into memory; a larger one raises an error.", minimum=1
    )


def build_data(config):
    import numpy as np

    inputs = np.random.default_rng(1).normal(size=(TRAIN_EXAMPLES + VALIDATION_EXAMPLES, 3)).astype("float32")
    return inputs, np.eye(3, dtype="float32")[inputs.argmax(axis=1)]


def build_model(config, examples):
    import keras

    inputs = keras.Input((3,))
    x = keras.layers.Dense(config.hidden, activation="relu")(inputs)
    x = keras.layers.Dropout(config.dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="toy")


def train(config=Config(), *, resume=None):
    import keras
    import tensorflow as tf

    inputs, labels = build_data(config)

    def batches(batch_size, start_step):
        if config.memory and batch_size > config.memory:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")
        order = data.batches.index_batches(TRAIN_EXAMPLES, batch_size, config.seed, start_step)
        dataset = order.map(lambda _, index: (tf.gather(inputs, index), tf.gather(labels, index)))
        return data.pipeline.finalize_pipeline(dataset)

    def validation(batch_size):
        return tf.data.Dataset.from_tensor_slices((inputs[TRAIN_EXAMPLES:], labels[TRAIN_EXAMPLES:])).batch(batch_size)

    run = resume or Run.create(__file__, config, "toy")
    with run.session():
        run.describe_data(
            {
                "source": "toy",
                "fingerprint": "0",
                "splits": {"train": TRAIN_EXAMPLES},
                "classes": ["a", "b", "c"],
                "warnings": [],
            }
        )
        training.fit.fit(
            run,
            config,
            training.train_spec.TrainSpec(
                build_model=lambda: build_model(config, None),
                batches=batches,
                validation=validation,
                train_examples=TRAIN_EXAMPLES,
                validation_examples=VALIDATION_EXAMPLES,
                compile=functools.partial(
                    training.selection.compile,
                    classes=3,
                    loss=keras.losses.CategoricalCrossentropy(from_logits=True),
                ),
                monitor=training.selection.monitor(config),
                epochs=4,
            ),
        )
    return run


def predict(run, inputs, *, top_k=5):
    return run.model.predict_on_batch(inputs).argmax(axis=1)
