"""The verdict about a run, which the report and the summary of a training share."""

import pytest
from dltoolkit.recipes import image_gan, sentiment_analyzer, text_generator

from dltoolkit.cli.train import print_summary
from dltoolkit.evaluation import metrics
from dltoolkit.report import headline
from dltoolkit.run import Run


def language_scores(own: float) -> dict:
    """Return metrics.json of a language model that needs ``own`` bits per character."""
    bits = {"unigram": 4.761, "5-gram": 2.322, "gzip": 3.1}
    baselines = {name: {"bits_per_character": value} for name, value in bits.items()}
    return {"test": {"bits_per_character": own, "loss": 1.2}, "baseline": baselines}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (
            5.892,
            "The network predicts the text worse than the best baseline (5-gram): 5.892 against 2.322 bits per "
            "character. It is also worse than the unigram model (4.761), which ignores the context. Train longer, or "
            "check the learning rate.",
        ),
        (
            2.5,
            "The network predicts the text worse than the best baseline (5-gram): 2.500 against 2.322 bits per "
            "character. Train longer, or check the learning rate.",
        ),
        (
            2.3221,
            "The network predicts the text no better than the best baseline (5-gram): 2.322 against 2.322 bits per "
            "character. Train longer, or check the learning rate.",
        ),
        (
            1.161,
            "The network needs 50.0 % fewer bits than the best baseline (5-gram): 1.161 against 2.322 bits per "
            "character.",
        ),
    ],
)
def test_verdict_about_a_language_model_says_how_it_compares(own, expected):
    assert str(headline.verdict(language_scores(own))) == expected


def finished(recipe, folder, measured: dict) -> Run:
    run = Run.create(recipe.__file__, recipe.Config(out_dir=str(folder)), "toy")
    run.write_json("metrics.json", measured)
    return run


def test_summary_begins_with_the_verdict_about_a_generator(tmp_path, capsys):
    print_summary(finished(text_generator, tmp_path, language_scores(5.892)))
    (first, *_) = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=1)[0] == "result"
    assert "worse than the best baseline (5-gram): 5.892 against 2.322 bits per character." in first
    print_summary(
        finished(
            image_gan,
            tmp_path,
            {
                "test": {"frechet_distance": 0.2, "coverage": 0.815},
                "baseline": {"real_vs_real": {"frechet_distance": 0.01, "coverage": 0.97}},
            },
        )
    )
    (first, *_) = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=1)[1] == (
        "The generated images cover 81.5 % of the variety of the real ones; as many real training images cover 97.0 %."
    )


def test_summary_gives_no_interval_of_a_constant_prediction(tmp_path, capsys):
    test = metrics.classification([0] * 30 + [1] * 10, [[0.9, 0.1]] * 40, ["neg", "pos"])
    print_summary(finished(sentiment_analyzer, tmp_path, {"test": test}))
    rows = capsys.readouterr().out.splitlines()
    balanced, accuracy = (
        next(row for row in rows if row.startswith(f"test {name}")) for name in ("balanced", "accuracy")
    )
    assert "50.0 %  macro F1" in balanced and "interval" not in balanced
    assert "75.0 %  (95 % interval" in accuracy
