"""Learning curves: their runs, none of which is trained twice."""

import keras
import pytest
from dltoolkit.recipes import fine_tune, image_classifier
from toy_runs import finished_run

from dltoolkit.errors import UserError
from dltoolkit.finetuning import backbone, learning_curve
from dltoolkit.run import Run


@pytest.mark.parametrize(("value", "shots"), [(None, []), ("5, 20,all", [5, 20, None])])
def test_parse_shots_reads_labels_per_class(value, shots):
    assert learning_curve.parse_shots(value) == shots


@pytest.mark.parametrize("value", ["5,many", "0", "-3", "1.5"])
def test_parse_shots_refuses_other_values(value):
    with pytest.raises(UserError, match="learning_curve must be numbers of labels per class or all"):
        learning_curve.parse_shots(value)


def test_measure_trains_each_number_of_labels_with_several_seeds_once(tmp_path):
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(image)))
    source = finished_run(image_classifier, tmp_path, "source", model)
    run = finished_run(fine_tune, tmp_path, "curve", model)
    run.update(config={**run.info["config"], "backbone": "source", "learning_curve": "2,all", "seed": 7})
    configs = []

    def train(config: fine_tune.Config) -> Run:
        configs.append(config)
        point = Run.create(fine_tune.__file__, config, "toys")
        point.write_json("metrics.json", {"test": {"accuracy": 0.9}, "baseline": {"linear_probe": {"accuracy": 0.8}}})
        point.update(state="finished", data={"splits": {"train": 30}, "classes": ["a", "b", "c"]})
        return point

    named = backbone.resolve("source", out_dir=str(tmp_path))
    points = learning_curve.measure(run, named, [2, None], train)
    assert [(point["labels"], point["seed"]) for point in points] == [(n, seed) for n in (2, 10) for seed in (7, 8, 9)]
    assert {(point["fine-tuned"], point["linear_probe"]) for point in points} == {(0.9, 0.8)}
    assert [config.shots for config in configs] == [2] * 3 + [None] * 3
    assert all(config.learning_curve is None and config.backbone == str(source.path.resolve()) for config in configs)
    assert learning_curve.measure(run, named, [2, None], train) == points
    assert len(configs) == 6
