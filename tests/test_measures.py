import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from rvqprobe import counts, findings, measures, probes
from rvqprobe.counts import Counts, LabelCounts, PitchCounts
from test_probes import rows


@given(st.integers(0, 10**6))
def test_scores_are_scikit_learns_over_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.poisson(1.5, size=(9, 5))
    table[:, 2] = 0
    table[0, 0] += 1
    predicted = rng.integers(0, 5, 9)
    code, truth = rows(table, np.arange(9)[:, None])
    said = predicted[code[:, 0]]
    matrix = measures.confusion(predicted, table)
    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(truth, said, labels=range(5)))
    assert measures.accuracy(matrix) == pytest.approx(sklearn_metrics.accuracy_score(truth, said))
    occur = np.unique(truth)
    expected = sklearn_metrics.f1_score(truth, said, labels=occur, average="macro", zero_division=0)
    assert measures.macro_f1(matrix) == pytest.approx(expected)


@given(st.integers(0, 10**6))
def test_r2_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hz, said = rng.uniform(60, 400, (2, 30))
    assert measures.r2(said, hz) == pytest.approx(sklearn_metrics.r2_score(hz, said))


@given(st.integers(0, 10**6))
def test_counts_are_the_naive_ones_and_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 6, (40, 3)).astype(np.uint16), rng.integers(-1, 4, 40)
    naive = np.zeros((3, 6, 4), int)
    for token, label in zip(codes, labels, strict=True):
        for layer, code in enumerate(token):
            naive[layer, code, label] += label >= 0
    whole = counts.table(codes, labels, 6, 4)
    assert np.array_equal(whole, naive)
    assert np.array_equal(
        whole, counts.table(codes[:15], labels[:15], 6, 4) + counts.table(codes[15:], labels[15:], 6, 4)
    )


def toy_counts() -> Counts:
    train, held_out = np.array([[[8, 1], [1, 8], [0, 2]]]), np.array([[[3, 0], [1, 2], [0, 0]]])
    pitch = PitchCounts(
        np.array([[2, 2, 0]]), np.array([[200.0, 400.0, 0.0]]), np.array([[0], [1]]), np.array([110.0, 180.0])
    )
    return Counts(LabelCounts(["a", "b"], train, held_out), LabelCounts(["x", "y"], train, 0 * held_out), pitch)


def test_metrics_of_a_case_worked_by_hand() -> None:
    said = np.array([0, 1, 1])
    fitted = [probes.Probe("phoneme", 1, None, said, said), probes.Probe("speaker", 1, None, said, said)]
    fitted.append(probes.Probe("pitch", 1, None, np.array([100.0, 200, 150]), np.array([150.0, 150, 150])))
    table = measures.score_all(fitted, toy_counts(), "toy")
    assert table.schema == pl.Schema(measures.METRICS)
    numbers = {
        (t, p, m): (v, c) for t, p, m, v, c in table.select("task", "probe", "metric", "value", "chance").iter_rows()
    }
    assert numbers["phoneme", "linear", "accuracy"] == (5 / 6, 2 / 6)  # the training majority is b: 2 of 6 held out
    assert numbers["phoneme", "linear", "macro_f1"] == (pytest.approx((6 / 7 + 4 / 5) / 2), 1 / 2)
    assert numbers["pitch", "lookup", "mae_hz"] == (15, 35) and numbers["pitch", "linear", "mae_hz"] == (35, 35)
    assert numbers["pitch", "lookup", "r2"] == (pytest.approx(1 - (100 + 400) / (2 * 35**2)), 0)
    assert table.filter(task="phoneme")["n_train"].unique().to_list() == [20]
    assert table.filter(task="speaker").is_empty()  # nothing held out has a label


def metrics(**profiles: list[float]) -> pl.DataFrame:
    rows = [
        (codec, task, layer, "layer", "linear", {"pitch": "r2"}.get(task, "macro_f1"), value, 0.1, 1, 1)
        for name, profile in profiles.items()
        for codec, task in [name.split("__")]
        for layer, value in enumerate(profile, 1)
    ]
    return pl.DataFrame(rows, measures.METRICS, orient="row")


def test_findings_follow_the_numbers() -> None:
    as_predicted = metrics(
        speechtokenizer__phoneme=[0.6, 0.2, 0.2, 0.1], speechtokenizer__speaker=[0.1, 0.3, 0.2, 0.2],
        speechtokenizer__pitch=[0.1, 0.1, 0.0, 0.0], encodec__speaker=[0.1, 0.1, 0.3, 0.1], encodec__pitch=[0.0, 0.1, 0.2, 0.0],
    )  # fmt: skip
    assert findings.verdict(as_predicted)["agrees"].to_list() == ["yes"] * 5
    opposite = metrics(
        speechtokenizer__phoneme=[0.2, 0.6, 0.2, 0.1], speechtokenizer__speaker=[0.3, 0.1, 0.2, 0.2],
        speechtokenizer__pitch=[0.9, 0.1, 0.0, 0.0], encodec__speaker=[0.3, 0.1, 0.1, 0.1], encodec__pitch=[0.0, 0.7, 0.2, 0.0],
    )  # fmt: skip
    assert findings.verdict(opposite)["agrees"].to_list() == ["no"] * 5
    other = metrics(logmel_rvq__phoneme=[0.2, 0.05])
    assert findings.verdict(other)["agrees"].to_list() == ["not tested"] * 5
    assert "none of its 5 predictions is tested" in findings.conclusion(other)
    assert "5 could be tested" in findings.conclusion(opposite) and "0 agree" in findings.conclusion(opposite)
    sentence = next(iter(findings.summary(other)))
    assert "highest in layer 1 (0.200, chance 0.100)" in sentence and "1 of 2 layers" in sentence
