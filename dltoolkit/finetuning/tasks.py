"""The task of a fine-tuning run, image or text classification, which the data decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import data, finetuning
from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.data.image.dataset import ImageSplits
    from dltoolkit.data.text.dataset import TextSplits
    from dltoolkit.finetuning.backbone import Backbone
    from dltoolkit.finetuning.task import Task
    from dltoolkit.run import Run

# Options of the training loop that other recipes have too
LOOP_OPTIONS = ("epochs", "max_time", "patience", "metric", "optimizer", "weight_decay", "ema_decay")


@dataclass(frozen=True)
class TaskSpec:
    """The task and the backbone of a run, which are decided before TensorFlow is imported.

    Attributes:
        name: The task, as ``run.json`` calls it.
        backbone: The pretrained network.
    """

    name: Literal["image", "text"]
    backbone: Backbone

    def reads_with_tensorflow(self, config: Any) -> bool:
        """Return whether :meth:`load_data` opens the network, because the size of the images depends on it."""
        return self.name == "image" and not config.image_size and self.backbone.image_size_needs_tensorflow

    def load_data(self, config: Any) -> ImageSplits | TextSplits:
        """Read, check and split the data."""
        if self.name == "text":
            return finetuning.loading.load_texts(config)
        return finetuning.loading.load_images(config, None if config.image_size else self.backbone.image_size)

    def create(self) -> Task:
        """Return the task itself, for which TensorFlow is imported."""
        return _task_class(self.name)(self.backbone)


def resolve(config: Any) -> TaskSpec:
    """Resolve ``--backbone``, find out whether the data are images or texts, and refuse options that have no effect.

    Args:
        config: The options of the fine-tuning recipe.

    Raises:
        UserError: If there is no such backbone, it does not read such data, or an option has no effect on them.
    """
    backbone = finetuning.backbone.resolve(
        config.backbone, weights=config.weights, out_dir=config.out_dir, seed=config.seed
    )
    if config.image_column or config.text_column:
        name = "image" if config.image_column else "text"
    else:
        name = data.task.detect(data.readers.source.resolve(config.data), config)
    if name not in backbone.reads:
        cannot = f", which {config.backbone} cannot read" if config.backbone else ""
        raise UserError(
            f"{config.data} holds {name}s{cannot}: give --backbone a KerasHub preset or its folder, or a run of "
            "sentiment-analyzer or text-generator."
        )
    backbone.check_reads(name)
    if config.weights and backbone.kind != "a keras.applications network":
        if config.backbone is None:
            raise UserError("--weights needs the network that they belong to: give --backbone, such as MobileNetV2.")
        raise UserError(
            f"--weights has no effect with --backbone={config.backbone}, which is {backbone.kind} with weights of its "
            "own: leave it out, or give --backbone the name of a network such as MobileNetV2."
        )
    config.refuse_ignored(**{"task": name, "the backbone": backbone.kind})
    if name == "text" and config.method == "lora" and config.unfreeze is not None:
        raise UserError("--unfreeze has no effect on texts with --method=lora, which adapts every layer: leave it out.")
    if config.method == "linear-probe":
        for option in LOOP_OPTIONS:
            if getattr(config, option) != getattr(type(config), option):
                flag = "--" + option.replace("_", "-")
                raise UserError(f"{flag} has no effect with --method=linear-probe: leave it out.")
    return TaskSpec(name, backbone)


def of_run(run: Run) -> Task:
    """Return the task of a run, for evaluation and prediction."""
    return _task_class(run.info["task"])()


def read_data(run: Run, config: Any, *more: Any) -> Any:
    """Read the data of a run again: as its recipe does or, after fine-tuning, without the backbone, which may be gone.

    Args:
        run: A run of any recipe.
        config: Its options, or those with another place of the data.
        more: Further arguments of the recipe's ``build_data``.
    """
    return of_run(run).read(run, config) if "task" in run.info else run.verb("build_data")(config, *more)


def _task_class(name: str) -> type[Task]:
    return finetuning.image_task.ImageTask if name == "image" else finetuning.text_task.TextTask
