"""Fine-tune a trained network on pictures or texts of your own: few labels, minutes on a laptop.

dltoolkit train fine-tune --data ~/flowers --backbone MobileNetV2
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import dltoolkit
from dltoolkit import data, evaluation, finetuning, models, progress, recipe, report, training
from dltoolkit.config import OptimizerOptions, RunConfig, option, options
from dltoolkit.errors import UserError
from dltoolkit.models.model_file import load_model
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.evaluation.prediction import Prediction

# What suits networks that have seen very much, which soon forget, and small ones that have seen little
WELL_TRAINED = {
    "pictures": {"learning_rate": 5e-5, "unfreeze": "0.3", "layer_decay": 0.8},
    "texts": {"learning_rate": 3e-4, "unfreeze": "1", "layer_decay": 0.9},
}
WELL_TRAINED_EPOCHS = {"pictures": 6, "texts": 2}
LITTLE_TRAINED = {"learning_rate": 2e-3, "unfreeze": "all", "layer_decay": 1.0}
LOW_RANK = {"learning_rate": 3e-3, "unfreeze": "all", "layer_decay": 1.0}
BATCH, MOST_TOKENS = 32, 4096  # examples of a step, and tokens, which decide how much memory it takes
CURVE_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, OptimizerOptions):
    """The options of fine-tuning."""

    task: Literal["classify", "generate"] = option(
        "classify", "Answer with a class, or go on writing as a run of text-generator, on other text."
    )
    data: str = option("digits", "What to train on: a folder, a table, digits, reviews, keras:NAME or a TFDS name.")
    backbone: str | None = option(
        None,
        "Where to go on from: a name of 'dltoolkit list backbones', a KerasHub preset or its folder, an earlier run, "
        "or a .keras file; by default, for pictures, a small network that is trained on half of the digits.",
    )
    weights: str | None = option(
        None, "Weights file for a backbone of 'dltoolkit list backbones'; by default ImageNet's."
    )
    method: Literal["full", "linear-probe", "lora"] = option(
        "full", "Train upper layers too, a new head only, or matrices of low rank beside the layers."
    )
    rank: int = option(8, "Rank of lora's matrices.", minimum=1, maximum=1024)
    unfreeze: str | None = option(
        None,
        "Share of the backbone's layers to train, from the top, 0 to 1, or all, a text's embeddings too; by default "
        "what suits the backbone.",
    )
    learning_rate: float | None = option(
        None, "Highest learning rate, of the head; by default what suits the backbone.", minimum=1e-8, maximum=100
    )
    layer_decay: float | None = option(
        None,
        "Factor of the learning rate from each layer to the one below it; by default what suits the backbone.",
        minimum=0.01,
        maximum=1,
    )
    augment_copies: int = option(
        3, "How often each training picture is taken, varied, where --augment is on.", minimum=1
    )
    batch_size: int | None = option(
        None,
        "Examples per step, over all devices together; by default 32, fewer of long texts.",
        minimum=1,
        maximum=4096,
    )
    label_smoothing: float = option(0.1, "Share of the target spread over all classes.", minimum=0, maximum=0.9)
    class_weights: Literal["none", "balanced"] = option("none", "Weigh rare classes up in the loss.")
    shots: int | None = option(None, "Train on this many examples of each class only.", minimum=1)
    learning_curve: str | None = option(
        None, "Also train with so many labels of each class, such as 5,10,20,all, three times each, and draw the curve."
    )
    validation_fraction: float | None = option(
        None, "Share kept for validation, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    test_fraction: float | None = option(
        None, "Share kept for the test, where the data bring none; by default 15 %.", minimum=0.01, maximum=0.5
    )
    image_size: int | None = option(
        None, "Square side in pixels; by default what the backbone reads.", minimum=8, maximum=1024
    )
    augment: bool = option(True, "Vary the training pictures: shift them and, where that is safe, mirror them.")
    flip: bool | None = option(
        None, "Mirror training pictures left to right; by default where mirrored ones still look like their class."
    )
    tta: bool | None = option(
        None, "Average each answer over the picture and its mirror image; by default where training mirrors."
    )
    max_length: int = option(256, "Tokens of a text that are read; of longer ones the middle is left out.", minimum=4)
    token_dropout: float = option(0.15, "Share of a text's tokens that training hides.", minimum=0, maximum=0.9)
    dropout: float = option(0.0, "Dropout rate within a KerasHub transformer's layers.", minimum=0, maximum=0.9)
    image_column: str | None = option(None, "Column of a table that holds the pictures' paths.")
    text_column: str | None = option(None, "Column of a table that holds the texts.")
    label_column: str | None = option(None, "Column of a table that holds the labels.")
    header: bool | None = option(None, "Whether a table begins with column names; by default recognised.")
    skip_invalid: bool = option(False, "Leave what cannot be read out instead of stopping.")


def kind(config: Config) -> data.kinds.Kind:
    """Whether the data are pictures or texts."""
    if config.image_column or config.text_column:
        return "pictures" if config.image_column else "texts"
    return data.kinds.of(data.readers.source.resolve(config.data))


def build_data(config: Config, what: data.kinds.Kind | None = None) -> ImageSplits | TextSplits:
    """Read, check and split the pictures or texts; which of them the data are is found out where it is not said."""
    shared = {
        "seed": config.seed,
        "validation_fraction": config.validation_fraction,
        "test_fraction": config.test_fraction,
        "limit": config.limit,
        "shots": config.shots,
        "skip_invalid": config.skip_invalid,
        "label_column": config.label_column,
        "header": config.header,
    }
    with progress.counting() as on_progress:
        if (what or kind(config)) == "texts":
            return data.text.dataset.load(config.data, text_column=config.text_column, progress=on_progress, **shared)
        size = config.image_size or finetuning.backbone.side(config)
        return data.image.dataset.load(
            config.data, image_size=size, image_column=config.image_column, progress=on_progress, **shared
        )


def well_trained(config: Config) -> bool:
    """Whether the backbone is one that others have trained on very much."""
    return finetuning.backbone.origin(config) in ("named", "preset")


def suited(config: Config, kind: data.kinds.Kind, longest: int = 1) -> Config:
    """Choose what was left to the backbone and the data.

    Args:
        config: the options.
        kind: what the data are.
        longest: tokens of the longest text.
    """
    usual = WELL_TRAINED[kind] if well_trained(config) else LITTLE_TRAINED
    if config.method == "lora":
        usual = {**usual, **LOW_RANK}
    batch_size = config.batch_size or min(BATCH, max(1, MOST_TOKENS // longest))
    usual = {**usual, "batch_size": batch_size, "learning_rate": usual["learning_rate"] * math.sqrt(batch_size / BATCH)}
    config = replace(config, **{name: value for name, value in usual.items() if getattr(config, name) is None})
    finetuning.transfer.share(config)
    return config


def build_model(config: Config, splits: ImageSplits | TextSplits) -> keras.Model:
    """The trained network with a new head; gives texts the encoder that belongs to it, and freezes their lower layers.

    Pictures: raw pixels 0..255 (batch, h, w, c) in; texts: numbers of tokens int32 (batch, time) in. Logits (batch,
    classes) out.
    """
    import keras

    keras.utils.set_random_seed(config.seed)
    if isinstance(splits, data.image.dataset.ImageSplits):
        backbone = finetuning.backbone.pictures(config, splits.image_shape)
        models.pretrained.keras_applications.freeze_statistics(backbone)
    else:
        found = finetuning.backbone.texts(config)
        backbone, splits.encoder = found.hiding(config.token_dropout), found.encoder
    logits = keras.layers.Dense(len(splits.classes), dtype="float32", name="logits")(backbone.output)
    model = keras.Model(backbone.input, logits, name=backbone.name)
    if config.method != "lora" and not isinstance(splits, data.image.dataset.ImageSplits):
        models.pretrained.keras_applications.freeze_below(
            model, finetuning.transfer.share(config) if config.method == "full" else 0.0
        )
    return model


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Fit a head on frozen features, train upper layers too, keep what validation prefers, test once, report.

    With ``task="generate"`` what comes back is a run of text-generator.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    if config.task == "generate":
        return go_on_writing(config)
    run = resume or Run.create(__file__, config, data.readers.source.resolve(config.data).name)
    with run.session():
        devices = training.distribute.strategy.devices(config.device)  # before anything starts TensorFlow
        if config.learning_curve and devices.workers > 1:
            raise UserError("--learning-curve trains one network after the other: leave it out with several workers.")
        what, budgets = kind(config), label_budgets(config)
        how = {"compiled": training.distribute.strategy.xla(config.xla, devices), "depthwise": what == "pictures"}
        number_format = training.distribute.strategy.precision(
            config.precision, devices, **how
        )  # before the network is built
        config = replace(config, precision=number_format)
        suited(config, what)  # what is wrong is said before anything is read
        splits = build_data(config, what)
        run.describe_data(splits.describe(), splits.findings)
        began = time.monotonic()
        whole = training.distribute.replicas.moved(build_model(suited(config, what), splits), devices)
        if config.method == "lora":
            with devices.strategy.scope():
                models.pretrained.keras_applications.low_rank(whole, config.rank)
        finetuning.backbone.check_unchanged(run, config)
        config = suited(config, what, int(splits.packed.lengths.max()) if what == "texts" else 1)
        if what == "texts" and run.writes:
            splits.encoder.save(run.path)
        run.update(kind=what, longest=splits.encoder.longest if what == "texts" else None)
        run.update(model={"trained": sum(math.prod(variable.shape) for variable in whole.trainable_variables)})
        work = finetuning.transfer.Transfer(config, whole, splits)
        chosen = work.fit_head()
        run.update(head={"strength": chosen, **work.first})
        spent = time.monotonic() - began
        probe = work.probe()
        progress.note(f"a head on frozen features: validation accuracy {100 * work.first['accuracy']:.2f} %")
        kept = "head"
        if config.method == "linear-probe":
            run.chief_only()
            run.update(state="running", time={"train_seconds": round(spent, 2)})
        else:
            epochs = WELL_TRAINED_EPOCHS[what] if well_trained(config) else 10
            left = config.max_time and max(1.0, config.max_time - spent)
            training.fit.fit(run, replace(config, max_time=left), work.job(epochs, spent))
            best = max((row["validation_accuracy"], -row["validation_loss"]) for row in run.history)
            kept = "fine-tuned" if best > (work.first["accuracy"], -work.first["loss"]) else "head"
            progress.note(f"kept: {kept}")
        if kept == "head":
            work.side.top.set_weights(work.with_head)
        run.update(kept=kept)
        baselines, model = {"probe": probe, "scratch": work.side.room.scratch(splits, seed=config.seed)}, work.whole
        if config.method == "lora":  # whose matrices become part of the layers when saved, which bfloat16 rounds
            run.save_model(model)
            model = load_model(run.path / "model.keras")
        if what == "pictures" and (config.tta or (config.tta is None and work.side.mirrored)):
            model = models.image.classifiers.averaged_with_mirror(model)
        if budgets:
            run.update(learning_curve=learning_curve(run, budgets))
        work.side.room.conclude(run, model, splits, baselines=baselines)
    return run


def label_budgets(config: Config) -> list[int | None]:
    """How many labels of each class ``--learning-curve`` names; None for all."""
    words = [word.strip() for word in (config.learning_curve or "").split(",") if word.strip()]
    if not all(word == "all" or (word.isdigit() and int(word)) for word in words):
        raise UserError(
            f"--learning-curve must be numbers of labels, or all, such as 5,10,20,all, not '{config.learning_curve}'."
        )
    return [None if word == "all" else int(word) for word in words]


def learning_curve(run: Run, budgets: Iterable[int | None]) -> list[dict[str, float]]:
    """Train with so many labels of each class, with three seeds, and return what became of each on the test split.

    Args:
        run: in whose folder ``curve`` the runs are kept; those that have finished are not trained again.
        budgets: labels of each class; None for all.
    """
    points, config = [], run.config
    out_dir = str(run.path / "curve")
    if finetuning.backbone.origin(config) == "run":
        config = replace(config, backbone=str(finetuning.backbone.earlier(config).path.resolve()))
    for budget in budgets:
        for seed in range(config.seed, config.seed + CURVE_SEEDS):
            name = f"{budget or 'all'}-{seed}"
            progress.note(f"label curve: {budget or 'all'} labels of each class, seed {seed}")
            try:
                point = dltoolkit.load(f"fine-tune/{name}", out_dir)
            except UserError:
                changed = {"learning_curve": None, "shots": budget, "seed": seed}
                point = train(replace(config, name=name, out_dir=out_dir, **changed))
            if point.info["state"] != "finished":
                point = dltoolkit.resume(point)
            scores = {"fine-tuned": point.metrics["test"], **point.metrics["baseline"]}
            learned_from = point.info["data"]
            points.append(
                {
                    "labels": budget or learned_from["splits"]["train"] / len(learned_from["classes"]),
                    "seed": seed,
                    **{name: scores[name]["accuracy"] for name in report.plots.LEARNERS if name in scores},
                }
            )
    return points


def go_on_writing(config: Config) -> Run:
    """Let text-generator go on from an earlier run of its own, or from a decoder of KerasHub."""
    if not config.backbone:
        raise UserError("--task generate goes on from a run of text-generator or a KerasHub preset: name --backbone.")
    writer = recipe.load("text-generator")
    own = {name: value for name, value in options(Config).items() if name != "task"}
    given = {name: getattr(config, name) for name in own if getattr(config, name) != own[name].default}
    unknown = [own[name].flag for name in given if name not in options(writer.Config)]
    if unknown:
        raise UserError(f"--task generate has no use for {', '.join(unknown)}: leave that out.")
    return writer.train(writer.Config(**{**given, "data": config.data}))


def evaluate(run: Run, other: str | None = None, **reading: Any) -> dict[str, Any]:
    """Measure on the run's own test split, or on other labelled data; shaped like ``metrics["test"]``.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes.
        reading: ``skip_invalid``, ``image_column``, ``text_column``, ``label_column`` or ``header``, where they differ from
            the run's own.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    config = replace(run.config, **reading)
    if run.info["kind"] == "texts":
        return evaluation.text_classification.evaluate(
            run, lambda: build_data(config, "texts"), other, config, saved_encoder(run)
        )
    config = replace(config, image_size=run.model.input_shape[1])
    return evaluation.image_classification.evaluate(run, lambda: build_data(config, "pictures"), other, config)


def predict(run: Run, inputs: Iterable[Any], **options: Any) -> list[Prediction]:
    """Classify pictures or texts; inputs and options are those of :func:`predictions`."""
    return list(predictions(run, inputs, **options))


def predictions(
    run: Run, inputs: Iterable[Any], *, top_k: int = 5, threshold: float = 0.0, text_column: str | None = None
) -> Iterator[Prediction]:
    """Classify pictures or texts one after the other, as they come.

    Args:
        run: a run of this recipe.
        inputs: pictures: paths, folders, globs, or arrays (h, w), (h, w, c), uint8 or 0..255; texts: texts, files,
            folders, globs, or tables with a column of texts.
        top_k: how many classes each answer lists.
        threshold: below this probability the label is ``unsure``.
        text_column: of the tables, by name or position; by default found by its usual names.
    """
    how = {"top_k": top_k, "threshold": threshold}
    if run.info["kind"] == "texts":
        return evaluation.text_classification.predictions(
            run, inputs, saved_encoder(run), text_column=text_column, **how
        )
    if text_column:
        raise UserError("This run classifies pictures: --text-column is for runs that classify texts.")
    return evaluation.image_classification.predictions(run, inputs, **how)


def saved_encoder(run: Run) -> data.text.encoders.TextEncoder:
    """What makes texts the numbers that a run's network reads.

    Raises:
        UserError: if it is missing or damaged.
    """
    return data.text.encoders.load(run.path, run.info["longest"])
