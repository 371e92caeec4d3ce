"""The record, the page and the card: whole for every kind of run, self-contained, safe from the data."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from encodery.evaluation.calibration import reliability_bins
from encodery.evaluation.card import render_card
from encodery.evaluation.charts import Line, histogram, line_chart, short, ticks
from encodery.evaluation.intervals import Metric
from encodery.evaluation.metrics import score_labels, score_multilabel, score_numbers
from encodery.evaluation.mistakes import confusion_matrix, most_wrong, most_wrong_numbers, per_class_table
from encodery.evaluation.record import ComparisonRow, RunRecord
from encodery.evaluation.report import render_report
from encodery.evaluation.wording import count_text, headline, seconds_text, shortened, verdict

HOSTILE = '<script>alert(1)</script><img src="http://evil.example/x.png">'
CURVES = [
    {
        "step": step,
        "loss": 7.0 - step / 500,
        "learning_rate": 1e-3,
        "validation_loss": 6.9 - step / 500 if step % 200 == 0 else None,
    }
    for step in range(0, 1000, 20)
]


def classification(kinds=3):
    rng = np.random.default_rng(0)
    labels = [f"label {k}" for k in range(kinds - 1)] + ["<b>bold</b>"]
    truth = rng.integers(0, kinds, 300)
    scores = rng.random((300, kinds)) + 0.8 * np.eye(kinds)[truth]
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    metrics = score_labels(probabilities, truth, labels, rng=rng, resamples=50)
    points = reliability_bins(probabilities, truth)
    return RunRecord(
        name="news",
        kind="classification",
        command="encodery train recipe.yaml",
        created="2026-01-02",
        seconds=75.0,
        parameters=1_234_567,
        comparison=[
            ComparisonRow("majority", Metric(0.3, 0.25, 0.35), 3, 0.0),
            ComparisonRow("TF-IDF + logistic regression", Metric(0.7, 0.65, 0.75), 1000, 1.5, "words 1-2, C = 3"),
            ComparisonRow("pretrained", metrics["accuracy"], 1_234_567, 75.0),
        ],
        metrics={name: metric.to_dict() for name, metric in metrics.items()},
        main_metric="accuracy",
        curves=CURVES,
        labels=labels,
        confusion=confusion_matrix(truth, probabilities.argmax(axis=1), kinds).tolist(),
        per_class=per_class_table(truth, probabilities.argmax(axis=1), labels),
        calibration={
            "before": points,
            "after": points,
            "temperature": 1.3,
            "ece_before": 0.1,
            "ece_after": 0.02,
        },
        errors=most_wrong(probabilities, truth, labels, [HOSTILE + " text " * 300] * 300),
        data_facts={
            "splits": {
                "train": {"rows": 1000, "bad_rows": 2},
                "test": {"rows": 300, "windows_cut": 5, "also in train": 4},
            },
            "lengths": {"edges": [0, 10, 20, 30], "counts": [5, 9, 1], "limit": 25, "unit": "tokens"},
            "label_counts": {"label 0": 500, HOSTILE: 500},
            "bad_rows": [{"where": "train.jsonl:7", "why": "not JSON"}],
        },
        config={"training": {"seed": 3}},
        hardware={"cpu": "two cores"},
        versions={"torch": "2.13.0"},
        notes=["Read once."],
        language="en",
    )


def pretraining():
    return RunRecord(
        name="corpus",
        kind="pretraining",
        curves=CURVES,
        entropy_line=6.9,
        main_metric="validation_loss",
        metrics={"validation_loss": {"value": 4.83}},
        diagnoses=["The loss sticks."],
    )


def multilabel():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, (80, 3))
    scores = np.clip(truth * 0.4 + rng.random((80, 3)) * 0.6, 0, 1)
    metrics = score_multilabel(scores, truth, list("abc"), rng=rng, resamples=20)
    return RunRecord(
        name="tags",
        kind="multilabel",
        labels=list("abc"),
        main_metric="f1_micro",
        metrics=metrics,
        per_class=per_class_table(truth, scores >= 0.5, list("abc")),
        errors=most_wrong(scores, truth, list("abc"), ["t"] * 80),
    )


def regression():
    rng = np.random.default_rng(2)
    truth = rng.random(80) * 5
    guess = truth + rng.normal(size=80) * 0.3
    metrics = score_numbers(guess, truth, rng=rng, resamples=20)
    return RunRecord(
        name="similarity",
        kind="regression",
        main_metric="spearman",
        metrics=metrics,
        scatter=np.column_stack([truth, guess]).tolist(),
        errors=most_wrong_numbers(guess, truth, ["t"] * 80),
    )


class Structure(HTMLParser):
    """Section names, scripts and everything the page would load."""

    def __init__(self, page):
        super().__init__()
        self.sections, self.loads, self.tags, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "section":
            self.sections.append(found["id"])
        self.loads += [found[name] for name in ("src", "href", "data", "srcset", "xlink:href") if found.get(name)]
        if tag in ("section", "table", "div", "svg", "details", "ul", "dl"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("section", "table", "div", "svg", "details", "ul", "dl"):
            assert self.open.pop() == tag


EXPECTED = {
    "classification": [
        "comparison",
        "metrics",
        "curves",
        "confusion",
        "labels",
        "calibration",
        "errors",
        "data",
        "made",
    ],
    "pretraining": ["diagnoses", "metrics", "curves"],
    "multilabel": ["metrics", "labels", "errors"],
    "regression": ["metrics", "scatter", "errors"],
}


@pytest.mark.parametrize("make", [classification, pretraining, multilabel, regression])
def test_every_kind_has_its_sections_loads_nothing_and_closes_what_it_opens(make):
    record = make()
    page = render_report(record)
    found = Structure(page)
    assert found.sections == EXPECTED[record.kind]
    assert found.loads == []
    assert found.open == []
    assert found.tags.count("script") == 1
    assert not re.search(r"url\(|@import|https?:", page.split("</style>")[0])
    assert "default-src 'none'" in page


def test_a_bare_record_still_renders():
    for kind in EXPECTED:
        assert "<h1>bare</h1>" in render_report(RunRecord(name="bare", kind=kind))
        assert "# bare" in render_card(RunRecord(name="bare", kind=kind))


def test_text_of_the_data_is_escaped_and_long_text_is_shortened_in_the_middle():
    page = render_report(classification())
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<img" not in page
    assert "<b>bold" not in page
    assert "[…]" in page
    assert page.count(" text ") < 20 * 120
    text = "start " + "x" * 2000 + " end"
    assert shortened(text).startswith("start x")
    assert shortened(text).endswith("x end")
    assert len(shortened(text)) < 500


def test_the_page_says_what_the_record_holds():
    page = render_report(classification())
    for said in (
        "1.23 M",
        "75 s",
        "TF-IDF + logistic regression",
        "words 1-2, C = 3",
        "train.jsonl:7",
        "limit 25",
        "two cores",
        "2.13.0",
        "seed: 3",
        "encodery train recipe.yaml",
        "Read once.",
        "1.30",
    ):
        assert said in page, said


def test_the_curves_say_what_they_are_the_loss_of() -> None:
    alone, beside = (
        render_report(replace(classification(), config={"objective": {"kind": "classify", "ngrams": ngrams}}))
        for ngrams in (0, 2)
    )
    assert "of the encoder alone" not in alone
    assert "training, of the encoder alone" in beside and "validation, of both answers" in beside


def test_the_entropy_line_is_drawn_at_its_height():
    page = render_report(pretraining())
    assert "guessing by frequency: 6.90" in page
    assert "4.83" in page


def test_many_labels_become_a_list_of_confusions():
    page = render_report(classification(kinds=25))
    assert "most frequent of all confusions between 25 labels" in page
    assert 'class="matrix' not in page


def test_headline_and_verdict_in_plain_words():
    rows = [
        ComparisonRow("majority", Metric(0.25)),
        ComparisonRow("TF-IDF", Metric(0.891)),
        ComparisonRow("plain", Metric(0.911)),
        ComparisonRow("rival", Metric(0.95)),
        ComparisonRow("pretrained", Metric(0.912)),
    ]
    record = RunRecord(
        name="x",
        comparison=rows,
        main_metric="accuracy",
        metrics={"accuracy": Metric(0.912, 0.905, 0.918).to_dict()},
    )
    assert headline(record) == (
        "Your encoder gets 91.2 % (90.5 to 91.8) of the test rows right; TF-IDF 89.1 %, plain 91.1 %, rival 95.0 %."
    )
    better, tie, worse = verdict(record)
    assert better.startswith("Better than TF-IDF")
    assert tie.startswith("No better than plain")
    assert worse == "Worse than rival: by more than the interval. Here that is the one to use."
    rows[0] = ComparisonRow("TF-IDF", Metric(0.891), gain=Metric(0.021, -0.001, 0.043))
    assert verdict(record)[0] == (
        "No better than TF-IDF, as far as these rows can tell: +2.1 points (-0.1 to +4.3) on the same rows."
    )
    stuck = RunRecord(name="x", kind="pretraining", curves=[{"step": 9, "validation_loss": 6.88}], entropy_line=6.9)
    assert "no better than guessing by frequency" in headline(stuck)
    assert "where guessing by frequency alone would leave 992" in headline(pretraining())


def test_for_errors_lower_is_better():
    rows = [ComparisonRow("ridge", Metric(0.9)), ComparisonRow("ours", Metric(0.5))]
    record = RunRecord(
        name="x",
        kind="regression",
        comparison=rows,
        main_metric="mse",
        metrics={"mse": Metric(0.5, 0.4, 0.6).to_dict()},
    )
    assert verdict(record) == ["Better than ridge: by more than the interval."]
    rows[0] = ComparisonRow("ridge", Metric(0.9), gain=Metric(-0.4, -0.9, 0.1))
    assert verdict(record) == [
        "No better than ridge, as far as these rows can tell: -0.400 (-0.900 to +0.100) on the same rows."
    ]
    rows[0] = ComparisonRow("ridge", Metric(0.9), gain=Metric(-0.4, -0.5, -0.3))
    assert verdict(record) == ["Better than ridge: -0.400 (-0.500 to -0.300) on the same rows."]


@pytest.mark.parametrize("make", [classification, pretraining, multilabel, regression])
def test_the_record_survives_json(make):
    record = make()
    again = RunRecord.from_json(record.to_json())
    assert again.to_json() == record.to_json()
    assert render_report(again) == render_report(record)
    assert again.metric() == record.metric()


def test_json_has_no_nan_and_no_numpy():
    record = RunRecord(name="x", curves=[{"step": np.int64(1), "loss": float("nan")}], scatter=np.ones((1, 2)))
    assert json.loads(record.to_json())["curves"] == [{"step": 1, "loss": None}]
    assert json.loads(record.to_json())["scatter"] == [[1.0, 1.0]]
    assert "Training" not in render_report(record)


def test_the_card_has_front_matter_of_the_hub_and_the_table():
    record = classification()
    card = render_card(record, folder="runs/news")
    front = yaml.safe_load(card.split("---")[1])
    assert "license" not in front
    assert front["language"] == "en"
    found = {metric["type"]: metric["value"] for metric in front["model-index"][0]["results"][0]["metrics"]}
    assert found["accuracy"] == pytest.approx(record.metric("accuracy").value, abs=1e-5)
    assert "| TF-IDF + logistic regression | 70.0 % | 65.0 to 75.0 | 1,000 | 1.5 s |" in card
    assert 'encodery.load("runs/news")' in card
    assert "4 test rows stand in the training rows too." in card
    for heading in ("What it is", "How to use it", "Results", "The data", "How it was made", "Limits"):
        assert f"\n## {heading}\n" in card
    assert yaml.safe_load(render_card(record, license="mit").split("---")[1])["license"] == "mit"
    assert "start_from=" in render_card(pretraining())


def test_figures_for_people():
    assert [count_text(n) for n in (None, 0, 9999, 12_345, 4_310_276, 2e9)] == [
        "",
        "0",
        "9,999",
        "12.3 k",
        "4.31 M",
        "2 G",
    ]
    assert [seconds_text(s) for s in (0.01, 5.25, 75, 600, 9000)] == [
        "< 0.1 s",
        "5.2 s",
        "75 s",
        "10 min",
        "2 h 30 min",
    ]
    assert [short(n) for n in (0, 0.25, 1500, 2e6, 0.0003)] == ["0", "0.25", "1.5k", "2M", "3e-4"]
    assert ticks(0.13, 0.97, 5) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(-30, 1100, 6) == [0, 200, 400, 600, 800, 1000]


def test_charts_bear_odd_data():
    flat = line_chart([Line("l", [1.0], [2.0])], x_title="step", y_title="")
    assert "nan" not in flat.lower()
    long = line_chart([Line("l", list(range(10_000)), [1.0] * 10_000)], x_title="step", y_title="")
    assert len(long) < 40_000
    assert line_chart([Line("l", [], [])], x_title="step", y_title="") == ""
    assert histogram([0, 1], [0], x_title="tokens") != ""
    assert histogram([], [], x_title="tokens") == ""
    spiked = line_chart(
        [Line("l", list(range(100)), [1000.0] + [1.0 - i / 200 for i in range(99)])], x_title="s", y_title=""
    )
    assert "1k" not in spiked  # the first spike leaves the frame, the rest stays readable
