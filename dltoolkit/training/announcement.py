"""The rows of the plan about the model and its training, which are known when the model is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dltoolkit import option_names, plan, progress
from dltoolkit.config import RunConfig
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    import keras

    from dltoolkit.run import Run
    from dltoolkit.training.time_budget import TimeBudget
    from dltoolkit.training.train_spec import TrainSpec


def announce(
    run: Run, config: RunConfig, spec: TrainSpec, budget: TimeBudget, steps_per_epoch: int, inference_model: keras.Model
) -> None:
    """Print the plan of a run and store it in run.json.

    Args:
        run: The run, whose run.json describes the device and the model.
        config: The options.
        spec: The training specification; without a summary, the recipe announces its plan itself.
        budget: The plan of the number of steps.
        steps_per_epoch: Optimizer steps in an epoch.
        inference_model: The model that will be evaluated.
    """
    if not spec.summary:
        return
    model, device = run.info["model"], run.info["device"]
    evaluation = spec.evaluation
    if evaluation and device["workers"] > 1:  # a probe on the chief alone would wait for the others
        evaluation = plan.Evaluation(evaluation.what)
    several = f" × {device['replicas']}" if device["replicas"] > 1 else ""
    rows = [
        *spec.summary,
        ("Model", f"{model['name']}, {model['parameters']:,} parameters"),
        ("Device", f"{device['kind']}{several}, {device['precision']}{', XLA' if device['xla'] else ''}"),
        *_length_rows(run, config, spec, budget, steps_per_epoch),
        ("Selection", f"the epoch with the best {spec.monitor.replace('_', ' ')}{patience(config)}"),
        *([_evaluation_row(evaluation, inference_model, config)] if evaluation else []),
        ("Result", str(run.path)),
    ]
    plan.announce(run, rows)


def _length_rows(
    run: Run, config: RunConfig, spec: TrainSpec, budget: TimeBudget, steps_per_epoch: int
) -> list[plan.Row]:
    """Return the rows about the length. Without a time limit, the time is printed once steps have been measured."""
    size = counted(run.info["plan"]["batch_size"], "example")
    steps = f"of {counted(steps_per_epoch, 'step')} of {size}, {config.optimizer}"
    in_steps = spec.max_steps and not config.epochs
    if budget.epochs:
        length = f"{counted(budget.steps, 'step')} in epochs" if in_steps else counted(budget.epochs, "epoch")
        return [("Training", f"{length} {steps}"), ("Warning", _few_steps(config, spec, budget.steps))]
    longest = (config.epochs, "epoch") if config.epochs else (spec.max_steps, "step")
    limit = f" or {counted(*longest)}" if longest[0] else ""
    return [
        ("Training", f"epochs {steps}"),
        ("Time", f"{progress.duration(config.max_time)}{limit}, compilation and validation included"),
    ]


def _few_steps(config: RunConfig, spec: TrainSpec, steps: int) -> str:
    """Return a warning if training has so few steps that the model can hardly learn, or an empty text."""
    if steps >= spec.few_steps or config.max_time:  # a resumed run follows the plan of its time limit
        return ""
    remedy = "raise --steps" if spec.max_steps and not config.epochs else "reduce --batch-size or raise --epochs"
    return option_names.spell(f"only {counted(steps, 'step')}, in which a model hardly learns: {remedy}")


def patience(config: RunConfig) -> str:
    """Return the part of the row "Selection" that says when training stops early."""
    return f"; stops after {counted(config.patience, 'epoch')} without a better one" if config.patience else ""


@progress.phase("Estimating the time of the evaluation")
def _evaluation_row(evaluation: plan.Evaluation, inference_model: keras.Model, config: RunConfig) -> plan.Row:
    return evaluation.row(inference_model, config.max_time)
