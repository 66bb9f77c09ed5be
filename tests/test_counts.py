import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from rvqprobe import counts, store
from rvqprobe.tokens import Tokens, write_shard
from toy import toy_study


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


PROBING = """
import resource, sys
from pathlib import Path
from rvqprobe import clusters, counts, probes, split, tokens
from rvqprobe.store import Layout
layout = Layout(Path(sys.argv[1]), "toy")
made = split.load(layout)
table = tokens.load(layout, "many", made)
counted = counts.read(table, made, 0)
fitted = probes.fit_all(counted, table.codebooks, probes.Settings(1.0, 1000, 1, 1, 0))
clusters.collect(table, made, fitted)
print(int(counted.labels["speaker"].table[0].sum()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    layout, made, _, _ = toy_study(tmp_path, 0)
    rng, size = np.random.default_rng(0), 100_000
    names = np.repeat(made.utterances["utterance"].to_numpy(), size // 40)
    frame = {"utterance": names} | {f"q{n}": rng.integers(0, 10, size).astype(np.uint16) for n in range(1, 9)}
    frame |= {"phone": rng.choice(["AA1", "IY0", "S"], size), "f0_hz": rng.uniform(90, 200, size).astype(np.float32)}
    folder, peaks = layout.tokens("many"), []
    write_shard(pl.DataFrame(frame), folder / "tokens-000.parquet")
    store.write_arrays(folder / "codebooks.npz", codebooks=rng.normal(size=(8, 10, 6)).astype(np.float32))
    for shards in (40, 120):
        files = [f"tokens-{number:03d}.parquet" for number in range(shards)]
        for file in files[1:]:
            if not (folder / file).exists():
                os.link(folder / files[0], folder / file)
        store.write_json({"frame_rate": 50.0, "shards": files, "split": "toy"}, folder / "tokens.json")
        done = subprocess.run(
            [sys.executable, "-c", PROBING, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
        )
        tokens, kilobytes = map(int, done.stdout.split()[-2:])
        assert tokens == shards * size
        peaks.append(kilobytes / 1024)
    assert peaks[1] - peaks[0] < 80, peaks  # MB; eight million tokens with their labels are 400
