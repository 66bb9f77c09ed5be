from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from rvqprobe import bootstrap, clusters, counts, measures, probes, split, store
from rvqprobe.clusters import BROAD
from rvqprobe.tokens import Tokens
from toy import PHONES, RATE, fit, toy_study


@pytest.mark.parametrize("seed", [0, 1])
def test_every_score_is_the_naive_one_over_rows(tmp_path: Path, seed: int) -> None:
    _, made, table, rows = toy_study(tmp_path, seed)
    counted, fitted, sums = fit(made, table)
    scores = measures.score_all(fitted, sums, counted, measures.cluster_weights(made, 0), RATE, "toy")
    assert scores.schema == pl.Schema(measures.METRICS)

    def score(task: str, layer: int, probe: str, metric: str, input: str = "layer", lag_ms: float = 0.0) -> float:
        found = scores.filter(task=task, layer=layer, probe=probe, metric=metric, input=input, lag_ms=lag_ms)
        assert len(found) == 1
        return found["value"][0]

    known = {"AA1": 0, "IY0": 1, "S": 2, "": 3}
    held_out = rows.filter(part="eval")
    checked = 0
    for probe in fitted:
        code = held_out[f"q{probe.layer}"].to_numpy()
        if probe.lag:
            label = held_out.select(
                pl.col("phone").shift(-probe.lag).over("utterance"), pl.col("f0_hz").shift(-probe.lag).over("utterance")
            )
        else:
            label = held_out.select("phone", "f0_hz")
        where = {"lag_ms": 1000 * probe.lag / RATE}
        where |= {"input": "components"} if probe.kind == probes.COMPONENTS else {}
        kind = probes.LINEAR if probe.kind in (probes.COMPONENTS, probes.LAGGED) else probe.kind
        if probe.task == "pitch":
            there = label["f0_hz"].is_not_null().to_numpy()
            y, said = label["f0_hz"].drop_nulls().to_numpy().astype(float), probe.said[code[there]]
            if kind == probes.SEMITONES:
                y = 12 * np.log2(y / counts.SEMITONES_FROM)
            if kind == probes.CONTROL:
                y = probe.truth[code[there]]
            else:
                unit = "semitones" if kind == probes.SEMITONES else "hz"
                error = sklearn_metrics.mean_absolute_error(y, said)
                assert score("pitch", probe.layer, kind, f"mae_{unit}", **where) == pytest.approx(error)
            expected = sklearn_metrics.r2_score(y, said)
            assert score("pitch", probe.layer, kind, "r2", **where) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        else:
            if probe.task == "phoneme":
                number = np.array([known.get(p, -1) if p is not None else -1 for p in label["phone"]])
            else:
                number = held_out["speaker"].cast(pl.Int64).to_numpy() - 1
            code, number = code[number >= 0], number[number >= 0]
            said = probe.said[code]
            truth = probe.truth[code] if kind == probes.CONTROL else number
            expected = sklearn_metrics.accuracy_score(truth, said)
            assert score(probe.task, probe.layer, kind, "accuracy", **where) == pytest.approx(expected)
            if kind != probes.CONTROL:
                expected = sklearn_metrics.f1_score(
                    truth, said, labels=np.unique(truth), average="macro", zero_division=0
                )
                assert score(probe.task, probe.layer, kind, "macro_f1", **where) == pytest.approx(expected)
            if kind == probes.UNBALANCED:
                prior = counted.labels[probe.task].train[0].sum(axis=0) / counted.labels[probe.task].train[0].sum()
                proba = probe.fitted.log_proba(table.codebooks[probe.layer - 1])[code, number] / np.log(2)
                expected = np.mean(proba - np.log2(prior[number]))
                assert score(probe.task, probe.layer, kind, "v_information") == pytest.approx(expected)
            if kind == probes.LINEAR and probe.task == "speaker" and not where.get("input"):
                proba = probe.fitted.log_proba(table.codebooks[probe.layer - 1])
                right = []
                for _, mine in held_out.group_by("utterance"):
                    votes = sum(proba[c] for c in mine[f"q{probe.layer}"])
                    right.append(int(np.argmax(votes)) + 1 == int(mine["speaker"][0]))
                assert score("speaker", probe.layer, kind, "utterance_accuracy") == pytest.approx(np.mean(right))
        checked += 1
    assert checked == len(fitted) == 2 * (2 * 5 + 5) + 2 * 8  # lags of −4 to 4 frames of 20 ms, without 0
    for task, metric in (("phoneme", "accuracy"), ("speaker", "accuracy"), ("pitch", "r2")):
        for layer in (1, 2):
            expected = score(task, layer, "linear", metric) - score(task, layer, "control", metric)
            assert score(task, layer, "linear", "selectivity") == pytest.approx(expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_bootstrap_is_a_naive_loop_over_resampled_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Each draw's score is recomputed from its rows, cluster by cluster, as often as it was drawn."""
    monkeypatch.setattr(bootstrap, "DRAWS", 25)
    _, made, table, rows = toy_study(tmp_path, seed)
    counted, fitted, sums = fit(made, table)
    scores = measures.score_all(fitted, sums, counted, measures.cluster_weights(made, 3), RATE, "toy")
    held_out = rows.filter(part="eval").with_columns(
        label=pl.col("phone").replace_strict({"AA1": 0, "IY0": 1, "S": 2, "": 3}, default=-1)
    )
    for task, by, metric in (
        ("phoneme", "speaker", "macro_f1"),
        ("speaker", "utterance", "accuracy"),
        ("pitch", "speaker", "r2"),
    ):
        names, _ = split.held_out_clusters(made, by)
        [probe] = [p for p in fitted if (p.task, p.layer, p.kind) == (task, 2, probes.LINEAR)]
        draws = []
        for drawn in bootstrap.weights(len(names), 3)[1:]:
            parts = [
                held_out.filter(pl.col(by) == name)
                for name, times in zip(names, drawn, strict=True)
                for _ in range(int(times))
            ]
            again = pl.concat(parts)
            if task == "pitch":
                again = again.drop_nulls("f0_hz")
                said = probe.said[again["q2"].to_numpy()]
                draws.append(sklearn_metrics.r2_score(again["f0_hz"].to_numpy().astype(float), said))
                continue
            again = again.filter(pl.col("label") >= 0) if task == "phoneme" else again
            truth = again["label"].to_numpy() if task == "phoneme" else again["speaker"].cast(pl.Int64).to_numpy() - 1
            said = probe.said[again["q2"].to_numpy()]
            if metric == "accuracy":
                draws.append(np.mean(said == truth))
            else:
                labels = np.unique(truth)
                draws.append(sklearn_metrics.f1_score(truth, said, labels=labels, average="macro", zero_division=0))
        row = scores.filter(task=task, layer=2, probe="linear", input="layer", metric=metric, lag_ms=0)
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([row["low"][0], row["high"][0]], expected, rtol=1e-6, atol=1e-9)


def test_intervals_hold_the_value_and_every_probe_has_one(tmp_path: Path) -> None:
    _, made, table, _ = toy_study(tmp_path, 0)
    counted, fitted, sums = fit(made, table)
    scores = measures.score_all(fitted, sums, counted, measures.cluster_weights(made, 0), RATE, "toy")
    assert scores.select(pl.col("value", "low", "high").null_count()).row(0) == (0, 0, 0)
    assert scores.filter((pl.col("low") > pl.col("value")) | (pl.col("high") < pl.col("value"))).height < 0.02 * len(
        scores
    )


def test_recalls_and_confusions_are_the_naive_ones(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0)
    counted, fitted, sums = fit(made, table)
    recalls = measures.recalls(fitted, sums, made, measures.cluster_weights(made, 0), "toy")
    confusions = measures.confusions(fitted, counted)
    held_out = rows.filter(part="eval").drop_nulls("phone")
    truth = held_out["phone"].replace_strict({"AA1": 0, "IY0": 1, "S": 2, "": 3}).to_numpy()
    broad = np.array([BROAD.index(name) for name in ("vowel", "vowel", "fricative", "silence")])
    for layer in (1, 2):
        [probe] = [p for p in fitted if (p.task, p.layer, p.kind) == ("phoneme", layer, probes.LINEAR)]
        said = probe.said[held_out[f"q{layer}"].to_numpy()]
        expected = sklearn_metrics.confusion_matrix(truth, said, labels=range(4))
        for true, said_name, n in (
            confusions.filter(task="phoneme", layer=layer).select("true", "said", "tokens").iter_rows()
        ):
            assert expected[PHONES.index(true), PHONES.index(said_name)] == n > 0
        assert confusions.filter(task="phoneme", layer=layer)["tokens"].sum() == len(truth)
        for level, names, t, s in (("phone", PHONES, truth, said), ("broad class", BROAD, broad[truth], broad[said])):
            for name, recall in recalls.filter(layer=layer, level=level).select("class", "recall").iter_rows():
                mine = t == names.index(name)
                assert recall == pytest.approx(np.mean(s[mine] == t[mine]))


def test_paired_differences_share_their_draws(tmp_path: Path) -> None:
    """The same codec twice differs by nothing at all; two layers differ draw by draw."""
    layout, made, table, _ = toy_study(tmp_path, 0)
    _, fitted, sums = fit(made, table)
    for name in ("toy", "twin"):
        clusters.save(fitted, sums, name, layout)
    found = measures.profiles(["toy", "twin"], measures.cluster_weights(made, 0), layout)
    assert found["toy", "phoneme"].shape == (1 + bootstrap.DRAWS, 2)
    same = measures.compare(found)
    assert same["difference"].abs().max() == same["high"].abs().max() == 0 and len(same) == 3 * 2
    flipped = {("toy", task): values for (codec, task), values in found.items() if codec == "toy"}
    flipped |= {("other", task): values[:, ::-1] for (_, task), values in flipped.items()}
    table_ = measures.compare(flipped)
    for task in measures.PRIMARY:
        mine = found["toy", task]
        difference = mine[:, 0] - mine[:, 1]
        row = table_.filter(task=task, layer=1).row(0, named=True)
        assert row["difference"] == pytest.approx(difference[0])
        assert row["disagree"] == pytest.approx(np.mean(np.sign(difference[1:]) != np.sign(difference[0])))
        np.testing.assert_allclose([row["low"], row["high"]], np.quantile(difference[1:], [0.025, 0.975]))


def test_all_f0_null_and_classes_without_a_held_out_token(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0, voiced=False)
    counted, fitted, sums = fit(made, table)
    scores = measures.score_all(fitted, sums, counted, measures.cluster_weights(made, 0), RATE, "toy").vstack(
        measures.describe(counted, "toy")
    )
    assert set(scores["task"]) == {"phoneme", "speaker"} and {p.task for p in fitted} == {"phoneme", "speaker"}
    held_out = rows.filter(part="eval", phone="S").height
    assert held_out and scores.filter(task="phoneme", metric="macro_f1")["chance"].unique().to_list() == [1 / 4]
    changed = rows.with_columns(phone=pl.when(part="eval", phone="S").then(None).otherwise("phone")).drop("part")
    store.write_table(changed, table.shards[0])
    fewer = Tokens(table.shards[:1], table.codebooks, table.about, table.quarantine)
    counted, fitted, sums = fit(made, fewer)
    scores = measures.score_all(fitted, sums, counted, measures.cluster_weights(made, 0), RATE, "toy")
    assert scores.filter(task="phoneme", metric="macro_f1")["chance"].unique().to_list() == [1 / 3]
    assert counted.labels["phoneme"].train[0, :, 2].sum() and not counted.labels["phoneme"].eval[0, :, 2].sum()


def test_bound_is_what_the_best_lookup_of_held_out_tokens_reaches(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0)
    counted, fitted, sums = fit(made, table)
    bounds = measures.describe(counted, "toy").filter(probe="bound")
    scores = measures.score_all(fitted, sums, counted, measures.cluster_weights(made, 0), RATE, "toy").filter(lag_ms=0)
    voiced = (
        rows.filter(part="eval")
        .drop_nulls("f0_hz")
        .with_columns(best=pl.col("f0_hz").cast(pl.Float64).mean().over("q1"))
    )
    expected = sklearn_metrics.r2_score(voiced["f0_hz"], voiced["best"])
    assert bounds.filter(task="pitch", layer=1)["value"][0] == pytest.approx(expected, rel=1e-5)
    for task, metric in (("phoneme", "accuracy"), ("speaker", "accuracy"), ("pitch", "r2")):
        for layer in (1, 2):
            reached = scores.filter(pl.col("probe") != "control", task=task, metric=metric, layer=layer)["value"]
            assert reached.max() <= bounds.filter(task=task, layer=layer)["value"][0] + 1e-9
    speaker = rows.filter(part="eval").group_by("q2", "speaker").len().group_by("q2").agg(pl.max("len"))["len"].sum()
    assert bounds.filter(task="speaker", layer=2)["value"][0] == pytest.approx(
        speaker / rows.filter(part="eval").height
    )


@given(st.integers(0, 10**6))
def test_confusion_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.poisson(1.5, size=(9, 5))
    predicted = rng.integers(0, 5, 9)
    code, truth = (np.repeat(index.ravel(), table.ravel()) for index in np.indices(table.shape))
    expected = sklearn_metrics.confusion_matrix(truth, predicted[code], labels=range(5)) if len(code) else 0
    assert np.array_equal(measures.confusion(predicted, table), expected + np.zeros((5, 5), int))
