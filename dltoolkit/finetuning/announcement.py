"""The plan of a fine-tuning run, which is announced before the features of the frozen layers are computed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dltoolkit import plan, progress
from dltoolkit.evaluation import duration
from dltoolkit.formatting import counted
from dltoolkit.training import announcement, selection

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.image.augment import Augment
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.finetuning.task import Task
    from dltoolkit.run import Run
    from dltoolkit.training.distribute.strategy import Devices

    Splits = ImageSplits | TextSplits


def announce(
    run: Run,
    config: Any,
    task: Task,
    splits: Splits,
    model: keras.Model,
    devices: Devices,
    epochs: int,
) -> None:
    """Print the plan of a run and store it in run.json.

    Args:
        run: The run.
        config: Options with every default resolved.
        task: Image or text classification.
        splits: The data.
        model: The full network.
        devices: The devices of the run.
        epochs: Number of epochs if neither ``--epochs`` nor ``--max-time`` is given.
    """
    several = f" × {devices.replicas}" if devices.replicas > 1 else ""
    length, seconds = _describe_length(config, epochs)
    augment = task.resolve_augmentation(config, splits)
    if task.name == "image":
        run.update(augment=asdict(augment) if augment else None)
    rows = [
        *splits.summary(),
        ("Augmentation", _describe_augmentation(config, task, augment)),
        ("Backbone", f"{task.backbone.name} ({task.backbone.kind}), {model.count_params():,} parameters"),
        ("Device", f"{devices.kind}{several}, {config.precision}"),
        ("Training", f"linear probe on frozen features{length}"),
        ("Time", seconds),
        ("Selection", _describe_selection(config)),
        _evaluation_row(config, task, splits, model, devices),
        ("Result", str(run.path)),
    ]
    plan.announce(run, rows)


def _describe_augmentation(config: Any, task: Task, augment: Augment | None) -> str:
    if task.name == "text":
        return f"{100 * config.token_dropout:.0f} % of the tokens masked" if config.method != "linear-probe" else "none"
    if augment is None or config.augment_copies == 1:
        return "none"
    copies = config.augment_copies
    return f"{copies} copies of each image, {copies - 1} of them changed: {augment.describe()}"


def _describe_selection(config: Any) -> str:
    if config.method == "linear-probe":
        return ""
    monitor = selection.monitor(config).replace("_", " ")
    return f"the epoch with the best {monitor}, or the linear probe if it is better{announcement.patience(config)}"


def _describe_length(config: Any, epochs: int) -> tuple[str, str]:
    """Return what is trained after the linear probe, and the time limit."""
    if config.method == "linear-probe":
        return " only", ""
    if config.method == "lora":
        trained = f"LoRA of rank {config.rank}"
    elif config.unfreeze == "all":
        trained = "all layers"
    else:
        trained = f"the upper {100 * float(config.unfreeze):.0f} % of the layers"
    if config.max_time:
        length = f" for at most {counted(config.epochs, 'epoch')}" if config.epochs else ""
        limit = f"{progress.duration(config.max_time)}, linear probe, compilation and validation included"
    else:
        length = f" for {counted(config.epochs or epochs, 'epoch')}"
        limit = ""  # printed when the first steps have been measured, if training takes that long
    return f", then {trained}{length} in steps of {counted(config.batch_size, 'example')}, {config.optimizer}", limit


@progress.phase("Estimating the time of the evaluation")
def _evaluation_row(config: Any, task: Task, splits: Splits, model: keras.Model, devices: Devices) -> plan.Row:
    limit = config.max_time and config.max_time / 4
    estimate = duration.of_images if task.name == "image" else duration.of_texts
    compared = "small network trained from scratch"
    has_probe_baseline = config.method != "linear-probe"  # a linear probe is not compared with itself
    compared = f"linear probe, {compared}" if has_probe_baseline else compared
    what = f"{compared}, learning curve for {config.learning_curve}" if config.learning_curve else compared
    seconds = min(duration.FROM_SCRATCH_SECONDS, limit or 1e9)
    evaluation = estimate(splits, what, extra_seconds=seconds, test_passes=1 + has_probe_baseline)
    if devices.workers > 1:  # a probe on the chief alone would wait for the others
        evaluation = plan.Evaluation(evaluation.what)
    return evaluation.row(model, config.max_time)
