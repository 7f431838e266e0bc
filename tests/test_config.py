"""Options: one declaration, checked wherever the value comes from."""

from dataclasses import dataclass, replace
from typing import Literal

import pytest

from dltoolkit import config, option_names, option_values
from dltoolkit.config import OptimizerOptions, RunConfig, option
from dltoolkit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Toy(RunConfig, OptimizerOptions):
    model: Literal["resnet", "vit", "gpt"] = option("resnet", "Network family", group="model")
    backbone: str | None = option(None, "Pretrained network", group="model")
    widths: tuple[int, ...] | None = option(None, "Stages", minimum=1, applies_to={"backbone": (None,)})
    heads: int = option(4, "Attention heads", applies_to={"model": ("vit", "gpt")})
    weights: str | None = option(None, "Weights file", applies_to={"model": ("resnet", "vit")})
    augment: bool = option(True, "Augment the training images", group="augmentation")
    flip: bool | None = option(None, "Flip", applies_to={"augment": (True,), "task": ("image",)})


def test_values_are_parsed_by_type():
    made = config.make(
        Toy,
        {"learning-rate": "1e-3", "epochs": "7", "max_time": "1h30m", "widths": "32,64", "model": "vit", "flip": True},
    )
    assert (made.learning_rate, made.epochs, made.max_time) == (1e-3, 7, 5400.0)
    assert (made.widths, made.model, made.flip) == ((32, 64), "vit", True)
    assert config.make(Toy, made.to_dict()) == made


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1h30m", 5400), ("2m 5s", 125), (3, 3)],
)
def test_parse_duration_returns_seconds(text, seconds):
    assert option_values.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.0, "8s"), (90.0, "1m30s"), (600, "10m"), (5400.0, "1h30m"), (3601.5, "1h1.5s"), (0.1, "0.1s"), (0, "0s")],
)
def test_durations_are_displayed_as_the_option_takes_them(seconds, text):
    assert option_values.format_duration(seconds) == text
    assert option_values.parse_duration(text) == seconds
    assert config.display({"max_time": seconds, "seed": 3}) == {"max_time": text, "seed": 3}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "There is no option 'epoch'; did you mean 'epochs'?"),
        ({"epochs": -1}, "--epochs must be at least 1, not -1."),
        ({"epochs": 2.5}, "--epochs must be a whole number, not '2.5'."),
        ({"epochs": True}, "--epochs must be a whole number"),
        ({"learning_rate": "nan"}, "--learning-rate must be a number"),
        ({"learning_rate": 1e9}, "--learning-rate must be at most 100"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"model": "resnett"}, "Did you mean 'resnet'?"),
        ({"widths": "32,none"}, "--widths must be a whole number, not 'none'."),
        ({"widths": [0]}, "--widths must be at least 1"),
        ({"flip": "perhaps"}, "--flip must be true or false"),
        ({"max_time": "soon"}, "--max-time must be a time such as 90s"),
        ({"batch_size": None}, "--batch-size needs a value."),
    ],
)
def test_make_names_the_wrong_value(values, message):
    with pytest.raises(UserError, match="option|must|needs") as caught:
        config.make(Toy, values, flags=True)
    with option_names.flags():
        assert message in str(caught.value)


def test_an_option_may_be_on_off_or_a_stronger_form():
    @dataclass(frozen=True, kw_only=True)
    class Switched(RunConfig):
        augment: bool | Literal["strong"] = option(True, "Augmentation")

    assert [Switched(augment=value).augment for value in (True, False, "strong")] == [True, False, "strong"]
    for value in ("weak", 1.5, None):
        with pytest.raises(UserError, match="augment (must be true, false or strong|needs a value)"):
            Switched(augment=value)


def test_constructor_checks_values_from_python():
    with pytest.raises(UserError, match="epochs must be at least 1, not 0"):
        Toy(epochs=0)


@pytest.mark.parametrize(
    ("values", "with_flags", "with_names"),
    [
        (
            {"heads": 2},
            "--heads has no effect with --model resnet: leave it out, or use --model vit or gpt.",
            "heads has no effect with model='resnet': leave it out, or use model='vit' or gpt.",
        ),
        (
            {"weights": "w", "model": "gpt"},
            "--weights has no effect with --model gpt: leave it out, or use --model resnet",
            "weights has no effect with model='gpt': leave it out, or use model='resnet'",
        ),
        (
            {"widths": (8,), "backbone": "run"},
            "--widths has no effect with --backbone: leave one of them out.",
            "widths has no effect with backbone: leave one of them out.",
        ),
        (
            {"flip": False, "augment": False},
            "--no-flip has no effect with --no-augment: leave it out, or use --augment",
            "flip=False has no effect with augment=False: leave it out, or use augment",
        ),
        (
            {"flip": True, "augment": False},
            "--flip has no effect with --no-augment",
            "flip has no effect with augment=False",
        ),
    ],
)
def test_applies_to_refuses_an_option_that_the_mode_ignores(values, with_flags, with_names):
    for construct in (lambda: Toy(**values), lambda: config.make(Toy, values), lambda: replace(Toy(), **values)):
        with pytest.raises(UserError, match="has no effect") as caught:
            construct()
        assert with_names in str(caught.value)
        with option_names.flags():
            assert with_flags in str(caught.value)


def test_applies_to_accepts_an_option_in_its_mode_and_a_default_in_any():
    assert Toy(heads=2, model="vit").heads == 2
    assert Toy(heads=4, model="resnet").heads == 4
    assert Toy(backbone="run").widths is None
    assert Toy(flip=False).flip is False


def test_refuse_ignored_checks_facts_of_the_data():
    Toy(flip=True).refuse_ignored(task="image")
    Toy().refuse_ignored(task="text")
    with pytest.raises(UserError, match="^flip has no effect on text data: leave it out.$"):
        Toy(flip=True).refuse_ignored(task="text")


def test_resolve_sets_values_that_the_user_may_not_set():
    resolved = Toy(backbone="run").resolve(widths=[8, 16], heads=2)
    assert (resolved.widths, resolved.heads, resolved.backbone) == ((8, 16), 2, "run")
    with pytest.raises(UserError, match="widths must be at least 1"):
        resolved.resolve(widths=[0])


def test_options_of_bases_come_first_in_written_order():
    names = list(config.options(Toy))
    assert names[:2] == ["data", "limit"]
    assert names.index("xla") < names.index("optimizer") < names.index("model") < names.index("flip")


def test_option_refuses_an_unknown_group():
    with pytest.raises(ValueError, match="group must be one of data, model"):
        option(1, "Help", group="dta")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("--lr", "--learning-rate"),
        ("--lr0", "--learning-rate"),
        ("--batch", "--batch-size"),
        ("--bs", "--batch-size"),
        ("--imgsz", "--image-size"),
        ("--img-size", "--image-size"),
        ("--wd", "--weight-decay"),
        ("--num-epochs", "--epochs"),
        ("--max-iters", "--epochs"),
        ("--n-head", "--heads"),
        ("--learning_rate", "--learning-rate"),
        ("--leraning-rate", "--learning-rate"),
        ("lr", "'learning_rate'"),
    ],
)
def test_no_such_option_suggests_the_option_of_the_same_meaning(written, meant):
    names = [*config.options(Toy), "image_size"]
    assert option_names.no_such_option(written, names) == f"There is no option '{written}'; did you mean {meant}?"


def test_no_such_option_prefers_an_option_that_the_recipe_has():
    assert "--steps?" in option_names.no_such_option("--max-iters", ["epochs", "steps"])
    assert "--max-length?" in option_names.no_such_option("--block-size", ["max_length"])
    assert option_names.no_such_option("--block-size", ["epochs", "xla"]) == "There is no option '--block-size'."
    assert "all CPU cores" in option_names.no_such_option("--workers", ["epochs"])
