import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from rvqprobe import bootstrap, clusters, counts, findings, information, measures, probes, split, store, tokens
from rvqprobe.clusters import BROAD, Sums
from rvqprobe.split import Split
from rvqprobe.store import Layout
from rvqprobe.tokens import Tokens

PHONES = ["AA", "IY", "S", "sil"]
RATE = 50.0


def toy_study(
    folder: Path, seed: int, shards: int = 3, voiced: bool = True
) -> tuple[Layout, Split, Tokens, pl.DataFrame]:
    """A saved split and token table of 4 speakers with 10 utterances each, labels depending on codes, and all its rows.

    One speaker's held-out tokens hold a phone that no training token has, and some tokens have no phone.
    """
    rng = np.random.default_rng(seed)
    names = [f"{speaker}-1-{number:02d}" for speaker in (1, 2, 3, 4) for number in range(10)]
    speakers = [name.split("-")[0] for name in names]
    utterances = split.divide(
        pl.DataFrame({"utterance": names, "speaker": speakers, "chapter": ["1"] * 40, "seconds": [1.0] * 40}), 0.2, seed
    )
    layout = Layout(folder, "toy")
    store.write_table(utterances, layout.split)
    classes = {"phoneme": PHONES, "speaker": ["1", "2", "3", "4"]}
    known = {"AA1": "AA", "IY0": "IY", "S": "S", "": "sil"}
    store.write_json({"made_from": "toy", "classes": classes, "phone_classes": known}, layout.split_json)
    tables = []
    for name, speaker in zip(names, speakers, strict=True):
        n = int(rng.integers(5, 30))
        phone = rng.choice(["AA1", "IY0", "S", "", None], n, p=[0.3, 0.3, 0.2, 0.15, 0.05])
        number = np.array([["AA1", "IY0", "S", "", None].index(p) for p in phone])
        hz = 100.0 + 20 * int(speaker) + rng.normal(size=n)
        follows = rng.random((n, 2)) < 0.6
        codes = np.where(follows, np.stack([number, 4 + np.full(n, int(speaker))], axis=1), rng.integers(0, 10, (n, 2)))
        f0 = [h if voiced and p in ("AA1", "IY0") else None for h, p in zip(hz.tolist(), phone, strict=True)]
        tables.append(
            pl.DataFrame(
                {
                    "utterance": [name] * n,
                    "speaker": [speaker] * n,
                    "chapter": ["1"] * n,
                    "frame": pl.Series(range(n), dtype=pl.UInt32),
                    "q1": pl.Series(codes[:, 0], dtype=pl.UInt16),
                    "q2": pl.Series(codes[:, 1], dtype=pl.UInt16),
                    "phone": pl.Series(phone.tolist(), dtype=pl.String),
                    "f0_hz": pl.Series(f0, dtype=pl.Float32),
                }
            )
        )
    files = []
    for number, part in enumerate(np.array_split(np.arange(40), shards)):
        files.append(f"tokens-{number}.parquet")
        table = pl.concat([tables[i] for i in part])
        footer = json.dumps({"tokens": len(table), "notes": {}, "quarantine": []})
        store.write_table(table, layout.tokens("toy") / files[-1], {"about": footer})
    store.write_arrays(layout.tokens("toy") / "codebooks.npz", codebooks=rng.normal(size=(2, 10, 6)).astype(np.float32))
    about = {"frame_rate": RATE, "shards": files, "split": "toy"}
    store.write_json(about, layout.tokens("toy") / "tokens.json")
    made = split.load(layout)
    rows = pl.concat(tables).join(utterances.select("utterance", "part"), on="utterance", maintain_order="left")
    return layout, made, tokens.load(layout, "toy", made), rows


def fit(made: Split, table: Tokens) -> tuple[counts.Counts, list[probes.Probe], list[Sums]]:
    counted = counts.read(table, made, 0)
    fitted = probes.fit_all(counted, table.codebooks, probes.Settings(1.0, 1000, 1, 1, 0))
    return counted, fitted, clusters.collect(table, made, fitted)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_score_is_the_naive_one_over_rows(tmp_path: Path, seed: int) -> None:
    _, made, table, rows = toy_study(tmp_path, seed)
    counted, fitted, sums = fit(made, table)
    scores = measures.score_all(fitted, sums, counted, made, RATE, 0, "toy")
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


def test_lagged_probes_are_fitted_to_shifted_rows(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0)
    counted = counts.read(table, made, 0)
    training = rows.filter(part="train")
    for lag, of_lag in counted.lags.items():
        shifted = training.with_columns(pl.col("phone", "f0_hz").shift(-lag).over("utterance"))
        for number, phone in enumerate(["AA1", "IY0", "S", ""]):
            codes = shifted.filter(phone=phone)["q1"].to_numpy()
            assert np.array_equal(of_lag.phoneme[:, number], np.bincount(codes, minlength=10))
        there = shifted.drop_nulls("f0_hz")
        expected = np.bincount(there["q1"].to_numpy(), there["f0_hz"].to_numpy().astype(float), 10)
        np.testing.assert_allclose(of_lag.hz, expected)
        assert of_lag.n.sum() == len(there)


def test_counts_are_the_naive_ones_and_those_of_shards_add_up(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0)
    whole = counts.read(table, made, 0)
    assert len(table.shards) == 3
    singles = [
        counts.read(Tokens((shard,), table.codebooks, table.about, table.quarantine), made, 0) for shard in table.shards
    ]
    for task, labels in whole.labels.items():
        assert np.array_equal(labels.table, sum(single.labels[task].table for single in singles))
    for name, values in vars(whole.pitch).items():
        np.testing.assert_allclose(values, sum(getattr(single.pitch, name) for single in singles))
    for lag, of_lag in whole.lags.items():
        assert np.array_equal(of_lag.phoneme, sum(single.lags[lag].phoneme for single in singles))
    for part, part_counts in (("train", "train"), ("eval", "eval")):
        mine = rows.filter(part=part)
        naive = np.zeros((2, 10, 4), int)
        for row in mine.iter_rows(named=True):
            for layer in (0, 1):
                naive[layer, row[f"q{layer + 1}"], int(row["speaker"]) - 1] += 1
        assert np.array_equal(getattr(whole.labels["speaker"], part_counts), naive)
    filled = {task: (labels.folds.sum(axis=(0, 1, 3)) > 0).sum() for task, labels in whole.labels.items()}
    assert filled == {"phoneme": 4, "pitch": 4, "speaker": 10}  # folds of the 4 speakers, and of 32 utterances


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_tokens_changes_no_count(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 6, (40, 3)).astype(np.uint16), rng.integers(0, 4, 40)
    order = rng.permutation(40)
    one, other = np.zeros((2, 3, 6, 4), np.int64)
    counts.add(codes, slice(None), labels, (one, None))
    counts.add(codes[order], slice(None), labels[order], (other, None))
    assert np.array_equal(one, other) and one.sum() == 120


@pytest.mark.parametrize("seed", [0, 1])
def test_bootstrap_is_a_naive_loop_over_resampled_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Each draw's score is recomputed from its rows, cluster by cluster, as often as it was drawn."""
    monkeypatch.setattr(bootstrap, "DRAWS", 25)
    _, made, table, rows = toy_study(tmp_path, seed)
    counted, fitted, sums = fit(made, table)
    scores = measures.score_all(fitted, sums, counted, made, RATE, 3, "toy")
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
    scores = measures.score_all(fitted, sums, counted, made, RATE, 0, "toy")
    assert scores.select(pl.col("value", "low", "high").null_count()).row(0) == (0, 0, 0)
    assert scores.filter((pl.col("low") > pl.col("value")) | (pl.col("high") < pl.col("value"))).height < 0.02 * len(
        scores
    )


def test_recalls_and_confusions_are_the_naive_ones(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0)
    counted, fitted, sums = fit(made, table)
    recalls = measures.recalls(fitted, sums, made, 0, "toy")
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
    found = measures.profiles(["toy", "twin"], made, layout, 0)
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
    scores = measures.score_all(fitted, sums, counted, made, RATE, 0, "toy").vstack(measures.describe(counted, "toy"))
    assert set(scores["task"]) == {"phoneme", "speaker"} and {p.task for p in fitted} == {"phoneme", "speaker"}
    held_out = rows.filter(part="eval", phone="S").height
    assert held_out and scores.filter(task="phoneme", metric="macro_f1")["chance"].unique().to_list() == [1 / 4]
    changed = rows.with_columns(phone=pl.when(part="eval", phone="S").then(None).otherwise("phone")).drop("part")
    store.write_table(changed, table.shards[0])
    fewer = Tokens(table.shards[:1], table.codebooks, table.about, table.quarantine)
    counted, fitted, sums = fit(made, fewer)
    scores = measures.score_all(fitted, sums, counted, made, RATE, 0, "toy")
    assert scores.filter(task="phoneme", metric="macro_f1")["chance"].unique().to_list() == [1 / 3]
    assert counted.labels["phoneme"].train[0, :, 2].sum() and not counted.labels["phoneme"].eval[0, :, 2].sum()


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_mutual_information_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    folds = rng.poisson(1.0, size=(7, 4, 5))
    folds[0, :, 0] += 1
    whole = folds.sum(axis=1)
    code, label = (np.repeat(index.ravel(), whole.ravel()) for index in np.indices(whole.shape))
    expected = sklearn_metrics.mutual_info_score(code, label) / np.log(2)
    found = information.estimates(folds)
    assert found["mi"][0] == pytest.approx(expected, abs=1e-12)
    share = np.bincount(label) / len(label)
    entropy = -sum(p * np.log2(p) for p in share if p)
    if entropy:
        assert found["pnmi"][0] == pytest.approx(expected / entropy, abs=1e-12)
    cells = [np.count_nonzero(part) - 1 for part in (whole.sum(axis=1), whole.sum(axis=0), whole)]
    bias = (cells[0] + cells[1] - cells[2]) / (2 * len(code) * np.log(2))
    assert found["mi_corrected"][0] == pytest.approx(expected + bias, abs=1e-12)
    left = [information.mutual(whole - folds[:, f]) for f in range(4) if folds[:, f].any()]
    variance = sum((v - np.mean(left)) ** 2 for v in left) * (len(left) - 1) / len(left)
    assert found["mi"][2] - found["mi"][0] == pytest.approx(3.182446305 * np.sqrt(variance), abs=1e-9)  # t, 3 d.f.


def test_the_correction_takes_most_of_the_bias_away() -> None:
    rng = np.random.default_rng(0)
    tables = [np.bincount(rng.integers(0, 30 * 20, 3000), minlength=600).reshape(30, 20) for _ in range(50)]
    plain, corrected = (np.mean([information.mutual(t, c) for t in tables]) for c in (False, True))
    assert plain > 0.1 and abs(corrected) < 0.1 * plain  # code and label are independent


def test_code_use_of_a_case_worked_by_hand() -> None:
    codebooks = np.zeros((2, 4, 3), np.float32)
    codebooks[0, 0, 0], codebooks[1, :3] = 1, np.eye(3)
    found = information.code_use(np.array([[8, 8, 0, 0], [1, 1, 1, 1]]), codebooks)
    assert found["dead codes"].to_list() == [2, 0] and found["rank"].to_list() == [1, 3]
    assert found["perplexity"].to_list() == pytest.approx([2, 4])


def test_bound_is_what_the_best_lookup_of_held_out_tokens_reaches(tmp_path: Path) -> None:
    _, made, table, rows = toy_study(tmp_path, 0)
    counted, fitted, sums = fit(made, table)
    bounds = measures.describe(counted, "toy").filter(probe="bound")
    scores = measures.score_all(fitted, sums, counted, made, RATE, 0, "toy").filter(lag_ms=0)
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


def metrics(**profiles: list[float]) -> pl.DataFrame:
    rows = [
        (
            codec,
            task,
            layer,
            "layer",
            "linear",
            0.0,
            measures.PRIMARY[task],
            value,
            value - 0.01,
            value + 0.01,
            0.1,
            1,
            1,
        )
        for name, profile in profiles.items()
        for codec, task in [name.split("__")]
        for layer, value in enumerate(profile, 1)
    ]
    return pl.DataFrame(rows, measures.METRICS, orient="row")


def drawn(**profiles: list[float]) -> measures.Profiles:
    """Profiles whose draws are nine times the value itself, and once its reverse."""
    return {tuple(name.split("__")): np.array([profile] * 10 + [profile[::-1]]) for name, profile in profiles.items()}


def test_findings_follow_the_numbers() -> None:
    as_predicted = drawn(
        speechtokenizer__phoneme=[0.6, 0.2, 0.2, 0.1], speechtokenizer__speaker=[0.1, 0.3, 0.2, 0.2],
        speechtokenizer__pitch=[0.1, 0.1, 0.0, 0.0], encodec__speaker=[0.1, 0.1, 0.3, 0.1], encodec__pitch=[0.0, 0.1, 0.2, 0.0],
    )  # fmt: skip
    table = findings.verdict(as_predicted)
    assert table["agrees"].to_list() == ["yes"] * 5
    assert table["in draws"].to_list() == [0.9, 1.0, 1.0, 1.0, 1.0]  # reversed, layer 1 is not the best
    opposite = drawn(
        speechtokenizer__phoneme=[0.2, 0.6, 0.2, 0.1], speechtokenizer__speaker=[0.3, 0.1, 0.2, 0.2],
        speechtokenizer__pitch=[0.9, 0.1, 0.0, 0.0], encodec__speaker=[0.3, 0.1, 0.1, 0.1], encodec__pitch=[0.0, 0.7, 0.2, 0.0],
    )  # fmt: skip
    assert findings.verdict(opposite)["agrees"].to_list() == ["no"] * 5
    other = metrics(logmel_rvq__phoneme=[0.2, 0.05])
    nothing = drawn(logmel_rvq__phoneme=[0.2, 0.05])
    assert findings.verdict(nothing)["agrees"].to_list() == ["not tested"] * 5
    assert "none of its 5 predictions is tested" in findings.conclusion(nothing)
    assert "5 could be tested" in findings.conclusion(opposite) and "0 agree" in findings.conclusion(opposite)
    sentence = next(iter(findings.summary(other)))
    assert "highest in layer 1 (0.200, 95 % interval 0.190 to 0.210, chance 0.100)" in sentence
    assert "above chance in 1 of 2 layers" in sentence
