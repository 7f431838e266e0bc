"""Train a generator of pictures (a GAN) on pictures with or without classes, measure it, and draw new ones.

dltoolkit train image-gan --data ~/flowers --max-time 10m
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import data, evaluation, models, progress, report, training
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.data.options import ImageReadOptions
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.evaluation.feature_extractor import Probe

FEW = 5_000  # training pictures below which a discriminator learns them by heart unless they are varied
FEWEST = 16
USUAL_SIDE = 64  # pixels to which larger pictures than can be drawn are brought
JUDGED = 2_000  # pictures that are drawn after each epoch and compared with at most as many of validation
SHORTEST_EPOCH = 100  # steps
LEARNING_RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig, ImageReadOptions, OptimizerOptions):
    """The options of the image GAN."""

    data: str = option("digits", "What to train on: a folder, a file, digits, keras:NAME or a TFDS name.")
    architecture: Literal["dcgan", "resnet"] = option("dcgan", "Family of both networks.")
    width: int | None = option(
        None,
        "Channels of the networks at the picture's full size; by default 32, and fewer for more than 32 pixels a side.",
        minimum=4,
        maximum=512,
    )
    loss: Literal["non-saturating", "hinge", "wasserstein-gp", "least-squares"] = option("non-saturating", "Loss.")
    gradient_penalty: float | None = option(
        None, "Weight of the gradient penalty; by default 1, and 10 for wasserstein-gp.", minimum=0, maximum=1000
    )
    gradient_penalty_interval: int = option(16, "Steps between two penalties, each so many times as strong.", minimum=1)
    mode_seeking: float = option(
        0.1, "Weight of the term that keeps pictures of one class from being alike.", minimum=0, maximum=100
    )
    spectral_norm: bool | None = option(None, "Bound the discriminator's layers; by default with the hinge loss.")
    conditional: bool | None = option(None, "Draw pictures of a class; by default where there are classes.")
    diff_augment: Literal["auto", "none", "translation", "translation,cutout", "color,translation,cutout"] = option(
        "auto", "How pictures are varied for the discriminator; auto does more where there are few."
    )
    optimizer: Literal["adam"] = option("adam", "Optimizer.")
    learning_rate: float | None = option(
        None, "Highest learning rate of the generator; by default 0.001.", minimum=1e-8, maximum=1
    )
    discriminator_lr: float | None = option(
        None, "Highest learning rate of the discriminator; by default the generator's.", minimum=1e-8, maximum=1
    )
    batch_size: int = option(64, "Pictures per step, over all devices together.", minimum=2, maximum=4096)
    ema_decay: float = option(
        0.999, "Decay of the average of the generator that draws and is kept.", minimum=0, maximum=0.99999
    )
    stop_on_collapse: bool = option(False, "Stop when the pictures' variety collapses, instead of only saying so.")
    image_size: int | None = option(None, "Square side in pixels; by default the data decide.", minimum=8, maximum=128)
    flip: bool | None = option(None, "Mirror half of the training pictures; by default where that keeps their class.")


def build_data(config: Config) -> ImageSplits:
    """Read, check and split the pictures: uint8 (n, h, w, c), labels (all 0 where there are none) and three indices."""
    pictures = _read(config, config.image_size)
    if config.image_size is None and max(pictures.image_shape) > models.gan.gan.LARGEST:
        pictures = _read(config, USUAL_SIDE)
    if len(pictures.train) < FEWEST:
        raise UserError(f"{config.data} leaves {len(pictures.train)} pictures to train on; give at least {FEWEST}.")
    return pictures


def _read(config: Config, image_size: int | None) -> ImageSplits:
    with progress.counting() as on_progress:
        return data.image.dataset.load(
            config.data,
            config,
            image_size=image_size,
            seed=config.seed,
            limit=config.limit,
            labeled=False,
            progress=on_progress,
        )


def build_model(
    config: Config, pictures: ImageSplits, judge: Callable[[keras.Model], dict[str, float]] | None = None
) -> keras.Model:
    """The generator, its average and the discriminator; ``judge`` measures the average after each epoch."""
    config = suited(config, pictures)
    return models.gan.gan.Gan(
        config.architecture,
        pictures.image_shape,
        len(pictures.classes) if config.conditional else 0,
        width=config.width,
        loss=config.loss,
        gradient_penalty=config.gradient_penalty,
        gradient_penalty_interval=config.gradient_penalty_interval,
        mode_seeking=config.mode_seeking,
        augment="" if config.diff_augment == "none" else config.diff_augment,
        momentum=config.ema_decay,
        spectral_norm=config.spectral_norm,
        judge=judge or (lambda generator: {}),
    )


def suited(config: Config, pictures: ImageSplits) -> Config:
    """Choose what was left to the data."""
    diff_augment = config.diff_augment
    if diff_augment == "auto":
        color = "color," if pictures.image_shape[-1] == 3 else ""
        diff_augment = f"{color}translation,cutout" if len(pictures.train) < FEW else "translation"
    given = {
        "width": max(8, min(32, 1024 // max(pictures.image_shape[:2]) // 8 * 8)),
        "conditional": len(pictures.classes) > 1,
        "gradient_penalty": 10.0 if config.loss == "wasserstein-gp" else 1.0,
        "spectral_norm": config.loss == "hinge",
        "learning_rate": LEARNING_RATE,
        "discriminator_lr": config.learning_rate or LEARNING_RATE,
    }
    chosen = {name: value for name, value in given.items() if getattr(config, name) is None}
    return config.resolve(diff_augment=diff_augment, **chosen)


def train(config: Config = Config(), *, resume: Run | None = None) -> Run:
    """Split, train, keep the best epoch by the kernel distance from validation, measure once on the test, report.

    Args:
        config: the options.
        resume: a run of this recipe to go on with, instead of a new one.
    """
    run = resume or Run.create(__file__, config, data.readers.source.resolve(config.data).name)
    with run.session():
        training.distribute.strategy.devices(config.device)  # before anything starts TensorFlow
        pictures = build_data(config)
        run.describe_data(pictures.describe(), pictures.findings)
        config = suited(config, pictures)
        run.update(conditional=config.conditional)
        probe = evaluation.feature_extractor.of_data(pictures)
        generator = training.fit.fit(run, config, train_spec(run, config, pictures, probe))
        report.image_generation.evaluate_and_report(run, generator, pictures, probe)
    return run


def train_spec(run: Run, config: Config, pictures: ImageSplits, probe: Probe) -> training.train_spec.TrainSpec:
    """Say what the training loop needs: model, batches, loss."""
    flip = config.flip
    if flip is None and len(pictures.classes) < 2:
        flip = pictures.image_shape[-1] == 3  # photographs, mostly
    elif flip is None:
        flip = data.image.augment.mirroring_suits(pictures)
    mirrored = data.image.augment.Augment(flip=True) if flip else None
    measured = judge(pictures, probe)  # on this device alone, whatever trains
    return training.train_spec.TrainSpec(
        build_model=lambda: build_model(config, pictures, measured),
        batches=lambda batch_size, start: data.image.pipeline.training_pipeline(
            pictures, batch_size=batch_size, seed=config.seed, augment=mirrored, start_step=start
        ),
        validation=lambda batch_size: data.image.pipeline.evaluation_pipeline(pictures, "validation", batch_size),
        train_examples=max(len(pictures.train), SHORTEST_EPOCH * config.batch_size),
        validation_examples=JUDGED,
        compile=compile_model,
        monitor="validation_kernel_distance",
        epochs=max(8, min(15, 1_000_000 // len(pictures.train))),
        inference_model=lambda gan: gan.averaged,
        on_epoch_end=lambda gan, epoch: watch(run, config, gan, pictures, epoch),
    )


def compile_model(gan: keras.Model, config: Config, batch_size: int, **how: Any) -> training.optimizer.WarmupCosine:
    """Compile both networks for training, and return the schedule that both follow."""
    import keras

    schedule = training.optimizer.WarmupCosine(config.learning_rate)
    rates = schedule, schedule.scaled(config.discriminator_lr / config.learning_rate)
    gan.compile(*(keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.99) for rate in rates), **how)
    return schedule


def judge(pictures: ImageSplits, probe: Probe) -> Callable[[keras.Model], dict[str, float]]:
    """Return what compares a generator's pictures with those of the validation split."""
    import numpy as np

    rows = pictures.validation[:: -(-len(pictures.validation) // JUDGED)]
    labels = pictures.labels[rows][np.arange(JUDGED) % len(rows)]
    real = probe.features(pictures.images[rows])[0]

    def measured(generator: keras.Model) -> dict[str, float]:
        found = probe.features(models.gan.gan.draw(generator, JUDGED, labels=labels, seed=0))[0]
        return {
            "kernel_distance": evaluation.gan.kernel_distance(found, real),
            "coverage": evaluation.gan.neighbourhoods(real, found[: len(rows)])["coverage"],
        }

    return measured


def watch(run: Run, config: Config, gan: keras.Model, pictures: ImageSplits, epoch: int) -> bool:
    """Draw the same noise again for samples/; warn of a collapse, and return whether to stop because of it."""
    report.image_generation.write_samples(run, gan.drawing(), pictures, epoch)
    if not (what := evaluation.gan.collapse(run.history)):
        return False
    progress.warn(what)
    return config.stop_on_collapse


def evaluate(run: Run, other: str | None = None, **reading: Any) -> dict[str, Any]:
    """Measure generated pictures against the run's own test split, or against other pictures of the same classes.

    Args:
        run: a run of this recipe.
        other: what ``--data`` takes.
        reading: Options of ``ImageReadOptions`` that differ from those of the run.

    Raises:
        UserError: if the run's data have changed, or the other data hold a class that the run does not know.
    """
    pictures, config = build_data(run.config), replace(run.config, **reading)
    run.check_data(pictures.describe())
    real = pictures.images[pictures.test], pictures.labels[pictures.test]
    if other is not None:
        real = evaluation.image_classification.read_labeled(run, other, pictures.image_shape, config)
    probe = evaluation.feature_extractor.of_data(pictures)
    trained = probe.features(pictures.images[pictures.train])[0]
    return evaluation.gan.evaluate(run, run.model, pictures, probe, trained, real)


def generate(
    run: Run,
    *,
    count: int = 16,
    label: str | Sequence[str] | None = None,
    seed: int = 0,
    truncation: float | None = None,
    interpolate: int = 0,
) -> np.ndarray:
    """Draw pictures, uint8 (count, height, width, channels).

    Args:
        run: a run of this recipe.
        count: how many.
        label: the class of all of them, or a list of classes that take turns; by default all classes do.
        seed: equal seeds give equal pictures.
        truncation: keep the noise within so many standard deviations: less gives pictures that are more alike.
        interpolate: steps from each picture to the next, and from the last to the first; 0 for none. The pictures on
            the way come too, so that there are ``count`` times as many.

    Raises:
        UserError: for a class that there is not, or numbers out of range.
    """
    for name, value, least in (("--count", count, 1), ("--interpolate", interpolate, 0)):
        if value < least:
            raise UserError(f"{name} must be at least {least}, not {value}.")
    if truncation is not None and not truncation > 0:
        raise UserError(f"--truncation must be above 0, not {truncation}.")
    labels = _labels(run, [label] if isinstance(label, str) else label, count)
    noise = models.gan.gan.noise(count, seed, truncation)
    if interpolate:
        labels, noise = labels.repeat(interpolate), models.gan.gan.way(noise, interpolate)
    return models.gan.gan.paint(run.model, noise, labels)


def _labels(run: Run, wanted: Sequence[str] | None, count: int) -> np.ndarray:
    """The class numbers of ``count`` pictures."""
    import numpy as np

    if wanted and not run.info["conditional"]:
        raise UserError(f"{run.path} was trained without classes, so it cannot draw one of them: leave --class out.")
    numbers = [data.labeled.class_index(name, run.classes) for name in wanted or run.classes]
    if -1 in numbers:
        name = wanted[numbers.index(-1)]
        near = did_you_mean(name, run.classes)
        raise UserError(f"There is no class '{name}'; use one of {', '.join(run.classes)}.{near}")
    return np.array(numbers)[np.arange(count) % len(numbers)]
