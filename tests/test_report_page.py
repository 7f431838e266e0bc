"""The report: one safe, self-contained page for a run in any state."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dltoolkit.evaluation import metrics, ranking
from dltoolkit.evaluation.classification import Mistake
from dltoolkit.evaluation.ngram_baseline import NgramWeight
from dltoolkit.report import page as report
from dltoolkit.report import plots
from dltoolkit.run import Run

VOID = {"meta", "img", "br"}
EVIL = ["<script>alert(1)</script>", "<b>bold</b>", "quo\"te & 's", "猫", "🐱🐶", "$\\frac{$", "cost: $5", "tab\t1\n"]


class Outline(HTMLParser):
    """The visible text, tags and links of a page; every tag must be closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.text, self.links = [], [], "", []
        self.feed(page)
        assert self.open == []
        self.text = self.text.replace("\n", "")

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def scores(classes: list[str], accuracy: float = 0.7, count: int = 300) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return metrics, labels and probabilities of a classifier whose accuracy is about ``accuracy``."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % len(classes)
    probabilities = rng.dirichlet(np.ones(len(classes)), count) * 0.3
    predictions = np.where(rng.random(count) < accuracy, labels, (labels + 1) % len(classes))
    probabilities[np.arange(count), predictions] += 0.7
    return metrics.classification(labels, probabilities, classes), labels, probabilities


def compared(difference: float, *, p_value: float = 1e-9, metric: str = "accuracy") -> dict:
    """Return the comparison of a network with a baseline, as ``significance.compare`` returns it."""
    only = {"network_only": 150, "baseline_only": 50}
    return {"metric": metric, "difference": difference, "test": "mcnemar", "p_value": p_value, "examples": 300, **only}


HISTORY = [
    {
        "epoch": epoch,
        "step": 10 * epoch,
        "loss": 2 / epoch,
        "accuracy": 1 - 0.5 / epoch,
        "validation_loss": 2.1 / epoch,
        "validation_accuracy": [0.5, 0.9, 0.8][epoch - 1],
        "learning_rate": 0.001,
        "seconds": 1.5,
    }
    for epoch in (1, 2, 3)
]


def make_run(path: Path, classes: list[str], *, measured: dict | None = None, history: list | None = None) -> Run:
    """Return a run directory as training leaves it."""
    path.mkdir()
    run = Run(path, {"recipe": "image-classifier", "name": path.name, "state": "running"})
    splits = {"train": 70, "validation": 15, "test": 15}
    run.update(config={"image_size": None, "widths": [32, 64], "augment": True, "max_time": 5400.0})
    run.update(data={"source": "some/where", "fingerprint": "f00d", "splits": splits, "classes": classes})
    if measured is not None:
        run.write_json("metrics.json", measured)
    if history:
        run.write_rows("history.csv", history)
    return run


def page_of(run: Run, **options) -> tuple[str, Outline]:
    report.write(run, **options)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    return page, Outline(page)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Run, str, Outline]:
    """Return a complete run with names and images of all kinds, its page, and the outline of the page."""
    test, labels, probabilities = scores(EVIL)
    baseline = {
        "majority": {"accuracy": 0.125, "macro_f1": 0.03, "label": EVIL[0], "comparison": compared(0.6)},
        "linear": {
            **{"accuracy": 0.4, "accuracy_ci95": [0.35, 0.45], "macro_f1": 0.4, "note": "with <care>"},
            "comparison": compared(0.3),
        },
    }
    run = make_run(
        tmp_path_factory.mktemp("runs") / "it's a run",
        EVIL,
        measured={"test": test, "validation": test, "baseline": baseline},
        history=HISTORY,
    )
    run.update(command="dltoolkit train image-classifier --data 'a <b>'", time={"train_seconds": 83.2})
    run.update(data={"warnings": [f"<i>{number}</i>.jpg is odd: --resize=crop" for number in range(12)]})
    rng = np.random.default_rng(0)
    predicted = probabilities.argmax(axis=1)
    shapes = [(8, 8, 1), (200, 100, 3), (30, 30, 4), (28, 28)]
    mistakes = [
        Mistake(
            f"/data/{EVIL[labels[i]]}/'\"<{i}>🐱\udcff.png",
            EVIL[labels[i]],
            EVIL[predicted[i]],
            float(probabilities[i, predicted[i]]),
            rng.integers(0, 256, shapes[number % 4], dtype=np.uint8),
        )
        for number, i in enumerate(metrics.worst_mistakes(labels, probabilities))
    ]
    page, outline = page_of(
        run,
        mistakes=mistakes,
        samples={"augmented": rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)},
        reliability=metrics.reliability(labels, probabilities),
    )
    return run, page, outline


def test_write_saves_every_plot_and_embeds_it(finished):
    run, page, _ = finished
    names = ["augmented", "confusion", "confusion_normalized", "curves", "mistakes", "reliability"]
    assert sorted(path.name for path in (run.path / "plots").iterdir()) == [f"{name}.png" for name in names]
    for name in names:
        with Image.open(run.path / "plots" / f"{name}.png") as image:
            assert image.format == "PNG"
            grays = np.asarray(image.convert("L"))
        assert grays.std() > 5, f"{name} is blank"
    assert page.count("data:image/png;base64,") == 5 + 25  # mistakes.png is shown as 25 cards


def test_page_loads_nothing_from_outside(finished):
    _, page, outline = finished
    assert all(link.startswith("data:image/png;base64,") for link in outline.links)
    assert "script" not in outline.tags
    assert "link" not in outline.tags
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_page_escapes_what_the_user_named(finished):
    _, page, outline = finished
    assert "<script>alert" not in page
    for name in EVIL:
        assert name.strip() in outline.text
    assert "Training time1 min 23 s" in outline.text
    assert "widths32 × 64" in outline.text
    assert "max_time1h30m" in outline.text
    assert "<i>3</i>.jpg is odd: resize='crop'" in outline.text
    assert "--data 'a <b>'" in outline.text
    assert "Linear model: with <care>." in outline.text
    assert r"🐱\udcff.png" in outline.text  # an undecodable byte in a file name


def test_headline_compares_the_network_with_the_baselines(finished):
    run, _, outline = finished
    test = run.metrics["test"]
    head = outline.text[: outline.text.index("Training curves")]
    low, high = test["accuracy_ci95"]
    for share in (test["accuracy"], low, high, 0.4, 0.125, test["macro_f1"], test["ece"]):
        assert f"{100 * share:.1f}\N{NO-BREAK SPACE}%" in head
    assert "on 300 examples" in head
    assert "50\N{NO-BREAK SPACE}% fewer mistakes than the linear model" in head  # 0.3 of 0.6
    assert "finished" in head  # although the state is "running" while the last file is written
    assert "12 more" not in head
    assert "2 more" in head


def test_headline_says_that_a_run_is_no_better_than_the_majority_class(tmp_path):
    labels = np.repeat([0, 1], (90, 10))
    test = metrics.classification(labels, np.eye(2)[np.zeros(100, int)], ["ham", "spam"])
    majority = {"accuracy": 0.9, "balanced_accuracy": 0.5, "label": "ham"}
    comparison = {**compared(0.0, p_value=1.0, metric="balanced_accuracy"), "network_only": 0, "baseline_only": 0}
    measured = {"test": test, "baseline": {"majority": {**majority, "comparison": comparison}}}
    _, outline = page_of(make_run(tmp_path / "run", ["ham", "spam"], measured=measured))
    head = outline.text[: outline.text.index("Confusion matrix")]
    assert "no better than always predicting 'ham'" in head
    assert head.index("50.0\N{NO-BREAK SPACE}%test balanced accuracy") < head.index("90.0\N{NO-BREAK SPACE}%")
    assert "The classes are imbalanced" in head
    assert "Majority class50.0\N{NO-BREAK SPACE}%" in head


def test_curves_mark_the_epoch_with_the_best_validation_accuracy(finished):
    run, _, outline = finished
    assert "Best epoch2 of 3" in outline.text
    curves = (run.path / "plots" / "curves.png").read_bytes()
    assert curves == plots.curves(run.history, 2)
    assert curves != plots.curves(run.history, 3)


def test_class_scores_start_with_the_lowest_f1_and_number_names_that_the_font_lacks(finished):
    run, _, outline = finished
    table = outline.text[outline.text.index("Scores per class") : outline.text.index("Calibration")]
    ordered = sorted(run.metrics["test"]["per_class"].items(), key=lambda entry: entry[1]["f1"])
    positions = [table.index(name.strip()) for name, _ in ordered]
    assert positions == sorted(positions)
    assert "No.Class" in table
    assert "#3猫" in table


def test_confusions_are_counted_by_true_and_predicted_class(tmp_path):
    labels = np.array([0] * 6 + [1] * 4)
    probabilities = np.eye(2)[[0, 0, 0, 1, 1, 1, 1, 1, 1, 0]] * 0.8 + 0.1
    run = make_run(
        tmp_path / "run",
        ["cat", "dog"],
        measured={"test": metrics.classification(labels, probabilities, ["cat", "dog"])},
    )
    _, outline = page_of(run)
    space = "\N{NO-BREAK SPACE}"
    assert f"catdog350.0{space}%dogcat125.0{space}%" in outline.text


def test_commands_quote_the_path_of_the_run(finished):
    run, _, outline = finished
    quoted = str(run.path).replace("'", "'\"'\"'")
    assert f"dltoolkit predict '{quoted}' IMAGE.jpg" in outline.text
    assert f"dltoolkit resume '{quoted}' --epochs N" in outline.text


def test_page_of_many_classes_shows_the_most_confused_and_folds_the_table(tmp_path):
    classes = [f"class {number}" for number in range(100)]
    labels = np.arange(1000) % 100
    predictions = labels.copy()
    predictions[labels == 70] = 12  # ten mistakes
    predictions[(labels == 33) & (np.arange(1000) < 500)] = 99  # five mistakes
    test = metrics.classification(labels, np.eye(100)[predictions], classes)
    features = {name: [NgramWeight(f"word of {name}", 1.0, 2)] for name in classes}
    page, outline = page_of(make_run(tmp_path / "run", classes, measured={"test": test}), top_features=features)
    matrix = plots.confusion(test["confusion"], classes, shown=[12, 33, 70, 99])
    assert (tmp_path / "run/plots/confusion.png").read_bytes() == matrix
    assert "The matrix shows the 4 of 100 classes that are confused most often." in outline.text
    assert "70 more" in outline.text
    assert all(f">{name}</bdi>" in page for name in classes)
    assert page.count("word of class") == 12
    assert all(f"word of class {number}</bdi>" in page for number in (12, 33, 70))
    assert "the 12 classes with the lowest F1" in outline.text


def test_page_of_many_classes_without_mistakes_has_no_matrix(tmp_path):
    classes = [f"class {number}" for number in range(60)]
    test = metrics.classification(np.arange(60), np.eye(60), classes)
    _, outline = page_of(make_run(tmp_path / "run", classes, measured={"test": test}))
    assert "All predictions on the test split are correct." in outline.text
    assert not (tmp_path / "run/plots").exists()


def test_page_shows_ranking_curves_of_two_classes_only(tmp_path, finished):
    labels = np.array([0, 0, 1, 1, 1])
    second = np.array([0.1, 0.6, 0.4, 0.8, 0.9])
    probabilities = np.stack([1 - second, second], axis=1)
    test = metrics.classification(labels, probabilities, ["bad", "<good>"])
    run = make_run(tmp_path / "run", ["bad", "<good>"], measured={"test": test})
    _, outline = page_of(run, ranking=ranking.curves(labels, probabilities))
    assert (run.path / "plots/ranking.png").exists()
    assert "A positive is an example of the class <good>." in outline.text
    assert "0.8333ROC AUC" in outline.text  # five of six pairs are in order
    assert "ROC" not in finished[2].text


def test_page_has_no_axes_around_a_single_point(tmp_path):
    run = make_run(tmp_path / "run", ["a", "b"], history=HISTORY[:1])
    run.update(learning_curve=[{"labels": 5, "seed": seed, "linear": 0.5 + seed / 10} for seed in (0, 1)])
    bins = {"count": np.array([0, 9]), "accuracy": np.array([0, 0.9]), "confidence": np.array([0.25, 0.95])}
    _, outline = page_of(run, reliability=bins)
    assert not (run.path / "plots").exists()
    space = "\N{NO-BREAK SPACE}"
    assert f"accuracy50.0{space}%50.0{space}%" in outline.text  # of training and validation after the only epoch
    assert f"5255.0{space}%" in outline.text  # five labels, two runs, their mean
    assert f"about the same probability, 95.0{space}% on average, and 90.0{space}% are correct" in outline.text


def test_page_of_a_fine_tuning_says_which_network_was_selected(tmp_path):
    test, _, _ = scores(["a", "b"])
    run = make_run(tmp_path / "run", ["a", "b"], measured={"test": test}, history=HISTORY)
    probe = {"C": 1.0, "accuracy": 0.95, "loss": 0.2}
    run.update(recipe="fine-tune", selected="linear_probe", linear_probe=probe)
    _, outline = page_of(run)
    space = "\N{NO-BREAK SPACE}"
    assert f"the linear probe was selected: accuracy 90.0{space}% in epoch 2 of fine-tuning, 95.0{space}% with the" in (
        outline.text
    )
    assert "No epoch is better on validation than the linear probe" in outline.text
    assert "The dashed line" not in outline.text
    assert (run.path / "plots/curves.png").read_bytes() == plots.curves(run.history, None)
    run.update(selected="fine-tuned", linear_probe={**probe, "accuracy": 0.85})
    _, outline = page_of(run)
    assert "On validation, the fine-tuned network was selected" in outline.text
    assert "Best epoch of fine-tuning2 of 3" in outline.text


def test_page_marks_the_epoch_that_the_selecting_metric_picks(tmp_path):
    rows = [{**row, "validation_macro_f1": 0.9 - 0.1 * row["epoch"]} for row in HISTORY]
    run = make_run(tmp_path / "run", ["a", "b"], history=rows)
    assert "best validation macro F1 80.0\N{NO-BREAK SPACE}% was reached in epoch 1" in page_of(run)[1].text
    run.update(plan={"monitor": "validation_loss"})
    assert "best validation loss 0.7 was reached in epoch 3" in page_of(run)[1].text


def test_page_shows_what_was_done_to_the_data(tmp_path):
    run = make_run(tmp_path / "run", ["a", "b"])
    truncated = {"count": 1200, "fraction": 0.25, "max_length": 256, "unit": "words"}
    run.update(data={"columns": {"text": "<review>"}, "split_origin": "predefined by folders", "truncated": truncated})
    _, outline = page_of(run)
    assert "Columnstext from '<review>'" in outline.text
    assert "Splits70 train, 15 validation, 15 test texts; predefined by folders" in outline.text
    assert "Truncated1,200 texts (25.0 %) after 256 words" in outline.text

    images = make_run(tmp_path / "images", ["a", "b"])
    scale = {"low": 0.0, "high": 4095.0, "minimum": 17, "maximum": 4000}
    images.update(
        data={"image_shape": [32, 32, 1], "resize": {"mode": "letterbox", "pixels_used": 0.98}, "scale": scale}
    )
    _, outline = page_of(images)
    assert "Splits70 train, 15 validation, 15 test images" in outline.text
    assert "Resizingletterbox, 98.0 % of the pixels used" in outline.text
    assert "17 to 4,000 in the data; 0 becomes black and 4,095 white" in outline.text


def test_page_of_a_gan_explains_its_scores_next_to_those_of_real_images(tmp_path):
    test = {"frechet_distance": 0.136562, "coverage": 0.82, "memorization_rate": 0.2, "gan_train_accuracy": 0.94}
    real = {"frechet_distance": 0.041752, "coverage": 0.91, "classifier_accuracy": 0.99}
    run = make_run(tmp_path / "run", ["a"], measured={"test": test, "baseline": {"real_vs_real": real}})
    images = np.zeros((4, 8, 8, 3), np.uint8)
    page, outline = page_of(run, samples={"generated": images, "nearest": (images, images + 200)})
    space = "\N{NO-BREAK SPACE}"
    head = outline.text[: outline.text.index("Scores")]
    statement = f"Trained on generated images alone, a classifier recognizes 94.0{space}% of the real test images"
    assert f"{statement}; trained on real images, it recognizes 99.0{space}%." in head
    assert f"20.0{space}% of them are nearly copies of training images." in head
    assert "GAN-train accuracyAccuracy on the real test images of a classifier trained on generated" in outline.text
    assert f"the more the generated images are worth.94.0{space}%99.0{space}%" in outline.text
    assert "papers are not comparable.0.13660.04175" in outline.text
    assert outline.text.index("and the nearest training images") < outline.text.index("Run details")
    assert page.count("data:image/png;base64,") == 2
    plain = {key: value for key, value in test.items() if not key.startswith(("gan", "memo"))}
    run.write_json("metrics.json", {"test": plain, "baseline": {"real_vs_real": real}})
    assert f"The generated images cover 82.0{space}% of the variety" in page_of(run)[1].text


def test_page_of_an_unfinished_run_says_its_state(tmp_path):
    bare = make_run(tmp_path / "bare", ["a", "b"])
    _, outline = page_of(bare)
    assert "still training" in outline.text
    assert "There are no scores yet." in outline.text
    assert not (bare.path / "plots").exists()

    stopped = make_run(tmp_path / "stopped", ["a", "b"], history=HISTORY[:2])
    stopped.update(state="interrupted")
    _, outline = page_of(stopped)
    assert "the best validation accuracy 90.0\N{NO-BREAK SPACE}% was reached in epoch 2" in outline.text
    assert f"dltoolkit resume {stopped.path}" in outline.text
    assert "dltoolkit predict" not in outline.text

    failed = make_run(tmp_path / "failed", ["a", "b"])
    failed.update(state="failed", error="The loss became <nan>")
    assert "The loss became <nan>" in page_of(failed)[1].text

    nothing = Run(tmp_path / "bare", {})
    assert "unknown" in page_of(nothing)[1].text


@pytest.mark.parametrize("keys", [["accuracy"], ["per_class"], ["confusion", "per_class"], ["accuracy", "ece"]])
def test_page_shows_the_metrics_that_are_present(tmp_path, keys):
    test, _, _ = scores(["a", "b", "c"])
    run = make_run(tmp_path / "run", ["a", "b", "c"], measured={"test": {key: test[key] for key in keys}}, history=[])
    _, outline = page_of(run)
    assert ("test accuracy" in outline.text) == ("accuracy" in keys)
    assert ("Scores per class" in outline.text) == ("per_class" in keys)


def test_page_shows_metrics_columns_and_samples_of_other_recipes(tmp_path):
    rows = [
        {"epoch": 1, "step": 5, "loss": 1.0, "coverage": 0.2},
        {"epoch": 2, "step": 10, "loss": 0.9, "coverage": 0.4},
    ]
    run = make_run(tmp_path / "run", [], measured={"test": {"top_5": 1.52}}, history=rows)
    _, outline = page_of(run, samples={"fixed_noise": np.zeros((4, 8, 8, 3), np.uint8)})
    assert "1.52top 5" in outline.text
    assert "Fixed noise" in outline.text
    assert (run.path / "plots/curves.png").exists()


def test_mistakes_of_texts_are_quoted_and_shortened(tmp_path):
    mistakes = [Mistake("line 3", "good", "bad", 0.9, text="not <i>bad</i> " + "x" * 500)]
    run = make_run(tmp_path / "run", ["bad", "good"])
    page, outline = page_of(run, mistakes=mistakes)
    assert "not <i>bad</i> xxx" in outline.text
    assert "x" * 380 in page
    assert "x" * 400 not in page
    assert not (run.path / "plots/mistakes.png").exists()


def test_page_of_a_language_model_compares_bits_per_character_and_shows_the_last_sample_first(tmp_path):
    scores = {
        "test": {"loss": 1.2, "bits_per_character": 1.7, "perplexity": 3.3, "tokens": 100},
        "baseline": {
            "unigram": {"bits_per_character": 4.5, "loss": 3.0, "perplexity": 20.0},
            "gzip": {"bits_per_character": 2.1},
        },
    }
    run = make_run(tmp_path / "run", [], measured=scores)
    _, outline = page_of(run, texts={"epoch-0001": "first <b>", "epoch-0002": "second\r\n</pre>"})
    assert "needs 19.0\N{NO-BREAK SPACE}% fewer bits than the best baseline (gzip): 1.700 against 2.100" in outline.text
    rows = outline.text[outline.text.index("Perplexity") :]
    assert rows.startswith("PerplexityThis network1.7001.20003.30gzip2.100unigram4.5003.000020.00")
    assert outline.text.index("second") < outline.text.index("1 earlier") < outline.text.index("first <b>")
    assert "dltoolkit generate" in outline.text
    assert "dltoolkit predict" not in outline.text


def test_page_shows_top_features_of_each_class(tmp_path):
    features = {"<bad>": [NgramWeight("<i>awful", 2.0, 7), NgramWeight("dull", 1.0, 1200)], "good": []}
    page, outline = page_of(make_run(tmp_path / "run", list(features)), top_features=features)
    assert "<bad>Word or phraseWeightTexts<i>awful2.007dull1.001,200good" in outline.text
    assert "--share:100.0%" in page
    assert "--share:50.0%" in page


def test_page_shows_the_learning_curve(tmp_path):
    run = make_run(tmp_path / "run", ["a", "b"])
    points = [
        {"labels": n, "seed": seed, "fine-tuned": 0.5 + n / 100, "linear": 0.5} for n in (5, 10) for seed in (0, 1)
    ]
    run.update(learning_curve=points)
    _, outline = page_of(run)
    assert "Learning curve" in outline.text
    assert (run.path / "plots/learning_curve.png").read_bytes() == plots.learning_curve(points)


def test_page_escapes_every_value_of_a_run(tmp_path):
    """A run may come from a stranger: no value of its files becomes markup, or reverses the text that follows it."""
    evil = "<script>alert(1)</script>\x1b[2J\u202e"
    run = make_run(tmp_path / "run", [evil], history=[{"epoch": 1, "step": 1, evil: 1.0}])
    values = dict.fromkeys(["name", "recipe", "state", "error", "command", "device", "machine", "created"], evil)
    run.update(**values, model={"name": evil}, config={evil: evil}, plan={evil: [evil]})
    run.update(versions={evil: evil}, calibration={evil: evil})
    run.update(data={"source": evil, "warnings": [evil], "splits": {evil: 3}, "fingerprint": evil, "classes": [evil]})
    page, outline = page_of(run, samples={evil.replace("/", ""): np.zeros((1, 4, 4, 3), np.uint8)}, texts={evil: evil})
    assert "script" not in outline.tags
    assert "<script" not in page
    assert outline.text.count("alert(1)</script>\\x1b[2J\\u202e") > 15
    assert not {"\x1b", "\u202e"} & set(page)


def test_import_needs_neither_tensorflow_nor_pyplot():
    code = (
        "import sys; from dltoolkit.evaluation import baseline, metrics; from dltoolkit.report import page, plots; "
        "import json; print(json.dumps([name for name in ('tensorflow', 'keras', 'sklearn', 'matplotlib.pyplot') "
        "if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
