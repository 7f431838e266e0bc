"""Learning curve: test accuracy against the number of labels per class."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dltoolkit import progress, saved_runs
from dltoolkit.errors import UserError
from dltoolkit.formatting import counted

if TYPE_CHECKING:
    from dltoolkit.finetuning.backbone import Backbone
    from dltoolkit.run import Run

SEEDS = 3  # runs per number of labels, each with another sample of the labels
METHODS = ("fine-tuned", "linear_probe", "from_scratch", "linear")  # test accuracies of each run


def parse_shots(learning_curve: str | None) -> list[int | None]:
    """Return the numbers of labels per class that ``--learning-curve`` names; None stands for all.

    Raises:
        UserError: If a word is neither a positive number nor ``all``.
    """
    words = [word.strip() for word in (learning_curve or "").split(",") if word.strip()]
    if not all(word == "all" or (word.isdigit() and int(word)) for word in words):
        raise UserError(
            f"--learning-curve must be numbers of labels per class or all, such as 5,10,20,all, not '{learning_curve}'."
        )
    return [None if word == "all" else int(word) for word in words]


def measure(
    run: Run, backbone: Backbone, shots: Sequence[int | None], train: Callable[[Any], Run]
) -> list[dict[str, float]]:
    """Train with each number of labels per class and several seeds, and return the test accuracies of these runs.

    Args:
        run: The run that the curve belongs to. The runs of the curve are saved in its folder ``curve``; finished ones
            are not trained again.
        backbone: The pretrained network of all runs.
        shots: Labels per class; None for all.
        train: The recipe's ``train``.
    """
    config, out_dir = run.config, str(run.path / "curve")
    spec = backbone.spec
    if backbone.kind == "a run":
        spec = str(Path(backbone.run.path).resolve())
    module = sys.modules[train.__module__] if run.recipe_file else None
    points = []
    for count in shots:
        for seed in range(config.seed, config.seed + SEEDS):
            name = f"{count or 'all'}-{seed}"
            labels = counted(count, "label") if count else "all labels"
            progress.note(f"Learning curve: {labels} per class, seed {seed}")
            try:
                point = saved_runs.load(f"{run.info['recipe']}/{name}", out_dir, recipe=module)
            except UserError:
                changes = {"learning_curve": None, "backbone": spec, "shots": count, "seed": seed}
                point = train(replace(config, name=name, out_dir=out_dir, **changes))
            if point.info["state"] != "finished":
                point = saved_runs.resume(point)
            method = "linear_probe" if config.method == "linear-probe" else "fine-tuned"
            scores = {**point.metrics["baseline"], method: point.metrics["test"]}
            described = point.info["data"]
            points.append(
                {
                    "labels": count or described["splits"]["train"] / len(described["classes"]),
                    "seed": seed,
                    **{method: scores[method]["accuracy"] for method in METHODS if method in scores},
                }
            )
    return points
