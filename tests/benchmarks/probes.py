"""Times the probes of two codecs on token tables of the size of LibriSpeech train-clean-100.

    python tests/benchmarks/probes.py [--share 1.0] [--folder PATH] [--ten-times]

The tables are made up (seeded), in the format and with the sizes of the real ones: labels depend on codes, and codes on
their embeddings. Prints a table and, last, one line of JSON.
"""

import argparse
import contextlib
import json
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import psutil
import threadpoolctl
from sklearn.linear_model import LogisticRegression

from rvqprobe import clusters, counts, measures, probes, solvers, split, store, tokens
from rvqprobe.phones import PHONEMES
from rvqprobe.probes import KINDS, LAGGED, LINEAR
from rvqprobe.store import Layout

SEED = 0
UTTERANCES, SPEAKERS, HOURS, LAYERS, CODES = 28_539, 251, 100.6, 8, 1024
CODECS = {"encodec": (128, 75), "speechtokenizer": (1024, 50)}
"""Dimensions of the codebooks, tokens a second."""
SHARD = 600
"""Seconds of speech in a shard."""
SKLEARN_TOKENS = 200_000
T = TypeVar("T")
DRAWN = 1 << 14
"""Codes drawn beforehand for each label; tokens take theirs from these."""


def make_split(layout: Layout, share: float) -> None:
    """Write a split of ``share`` of the corpus: made-up names, real sizes, a tenth of each speaker held out."""
    rng = np.random.default_rng(SEED)
    n = round(UTTERANCES * share)
    speaker = np.sort(rng.integers(0, SPEAKERS, n))
    seconds = np.minimum(rng.gamma(9, 1.41, n), 24.5)
    table = pl.DataFrame(
        {
            "utterance": [f"{s + 100}-{s + 1000}-{i:05d}" for i, s in enumerate(speaker)],
            "speaker": [str(s + 100) for s in speaker],
            "chapter": [str(s + 1000) for s in speaker],
            "seconds": seconds * HOURS * 3600 * share / seconds.sum(),
        }
    )
    store.write_table(split.divide(table, 0.1, SEED), layout.split)
    classes = {"phoneme": list(PHONEMES), "speaker": sorted(set(table["speaker"]))}
    phone_classes = {phone: phone for phone in PHONEMES}
    store.write_json({"made_from": "benchmark", "classes": classes, "phone_classes": phone_classes}, layout.split_json)


def make_tokens(layout: Layout, codec: str) -> None:
    """Write a codec's token table: in each layer a token's code follows its phone, its speaker, its F0 or none of them."""
    rng = np.random.default_rng([SEED, len(codec)])
    dimension, rate = CODECS[codec]
    made = split.load(layout)
    folder = layout.tokens(codec)
    rotation = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    spectrum = np.arange(1, dimension + 1) ** -0.5
    codebooks = (rng.normal(size=(LAYERS, CODES, dimension)) * spectrum @ rotation).astype(np.float32)
    affinities = [_affinity(rng, codebook) for codebook in codebooks]
    drawn = [_draw_codes(rng, affinity) for affinity in affinities]
    least = [np.quantile(a[:, :40], q) for a, q in zip(affinities, np.linspace(0.6, 0, LAYERS), strict=True)]
    share = np.linspace([0.97, 0.02, 0.01], [0.05, 0.2, 0.1], LAYERS)  # of codes that follow phone, speaker, F0
    height = rng.uniform(90, 230, SPEAKERS)
    shards = []
    rows = made.utterances.with_columns(shard=(pl.col("seconds").cum_sum() // SHARD).cast(pl.Int64))
    for (number,), mine in rows.group_by("shard", maintain_order=True):
        frames = (mine["seconds"].to_numpy() * rate).astype(int)
        n, utterance = frames.sum(), np.repeat(np.arange(len(mine)), frames)
        who = mine["speaker"].cast(pl.Int64).to_numpy()[utterance] - 100
        phone = np.repeat(rng.choice(40, n, p=_zipf(40)), rng.geometric(12 / rate, n))[:n]
        voiced = phone % 2 == 0
        hz = height[who] * np.exp(0.15 * np.sin(np.arange(n) / rate) + 0.1 * rng.normal(size=n))
        label = np.stack([phone, 40 + who, 40 + SPEAKERS + np.digitize(hz, np.geomspace(60, 400, 19)), np.full(n, 311)])
        table = {name: mine[name].gather(utterance) for name in ("utterance", "speaker", "chapter")}
        table["frame"] = pl.Series(np.arange(n) - np.repeat(np.cumsum(frames) - frames, frames), dtype=pl.UInt32)
        for layer in range(LAYERS):
            source = (rng.random(n)[:, None] > np.cumsum(share[layer])).sum(axis=1)
            source[(source == 2) & ~voiced] = 3
            of_token = label[source, np.arange(n)]
            code = drawn[layer][of_token, rng.integers(0, DRAWN, n)]
            barred = affinities[layer][code, phone] < least[layer]  # many codes are never used for many phones
            code[barred] = drawn[layer][phone[barred], rng.integers(0, DRAWN, barred.sum())]
            table[f"q{layer + 1}"] = pl.Series(code)
        table["phone"] = pl.Series(PHONEMES).gather(phone)
        table["f0_hz"] = pl.Series(np.where(voiced, hz, np.nan), dtype=pl.Float32).fill_nan(None)
        shards.append(f"tokens-{number:05d}.parquet")
        tokens.write_shard(pl.DataFrame(table), folder / shards[-1])
    store.write_arrays(folder / "codebooks.npz", codebooks=codebooks)
    store.write_json({"frame_rate": rate, "shards": shards, "split": "benchmark"}, folder / "tokens.json")


def _zipf(n: int) -> np.ndarray:
    weights = 1 / np.arange(1, n + 1)
    return weights / weights.sum()


def _affinity(rng: np.random.Generator, codebook: np.ndarray) -> np.ndarray:
    """Return (K, labels), how well codes go with 40 phones, the speakers, 20 ranges of F0, none: by their embeddings."""
    labels = 40 + SPEAKERS + 21
    affinity = codebook @ rng.normal(size=(codebook.shape[1], labels))
    affinity = 4 * affinity / affinity.std() + 0.7 * rng.normal(size=affinity.shape)
    affinity[:, -1] = 0
    return affinity


def _draw_codes(rng: np.random.Generator, affinity: np.ndarray) -> np.ndarray:
    """Return codes (labels, DRAWN), each label's drawn by their use and ``affinity`` (K, labels)."""
    use = rng.permutation(np.arange(1, len(affinity) + 1) ** -0.7)
    chance = np.cumsum(use[:, None] * np.exp(affinity), axis=0)
    chance /= chance[-1]
    return np.stack([np.searchsorted(column, rng.random(DRAWN)) for column in chance.T]).astype(np.uint16)


class Peak(threading.Thread):
    """The largest memory (resident, summed over this process and its workers) while the thread runs, GB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.gb = 0.0
        self.start()

    def run(self) -> None:
        """Look five times a second."""
        process = psutil.Process()
        while True:
            family = [process, *process.children(recursive=True)]
            with contextlib.suppress(psutil.NoSuchProcess):
                self.gb = max(self.gb, sum(p.memory_info().rss for p in family) / 1e9)
            time.sleep(0.2)


def measure(layout: Layout, codec: str, kinds: tuple[str, ...], max_iter: int = 1000) -> dict[str, float]:
    """Go from Parquet to metrics with the probes of ``kinds`` and return the seconds of each step."""
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        seconds[step] = time.perf_counter() - began
        return result

    made = split.load(layout)
    table = tokens.load(layout, codec, made)
    counted = timed("count", lambda: counts.read(table, made, SEED, LAGGED in kinds))
    chosen = probes.settings(1.0, max_iter, 0, 0, SEED, counted, table.codebooks)
    fitted = timed("fit", lambda: probes.fit_all(counted, table.codebooks, chosen, kinds))
    sums = timed("score", lambda: clusters.collect(table, made, fitted))

    def write() -> None:
        metrics = measures.score_all(
            fitted, sums, counted, measures.cluster_weights(made, SEED), table.about["frame_rate"], codec
        )
        if LINEAR in kinds:
            probes.save(fitted, codec, layout, made.classes)
            clusters.save(fitted, sums, codec, layout)
        else:
            metrics = pl.concat([metrics, measures.describe(counted, codec)])
        measures.save(metrics, layout.probes(codec) / f"{'-'.join(kinds)}.parquet", made)

    timed("intervals and writing", write)
    certificates = probes.certificates(fitted)
    empty = ", ".join(f"{np.mean(counted.labels[task].train == 0):.0%} ({task})" for task in ("phoneme", "speaker"))
    print(f"{codec}: {len(fitted)} probes, {chosen.workers} workers. {probes.warning(certificates)}")
    print(f"Code-class cells without a training token: {empty}")
    print(certificates.group_by("task", "probe").agg(pl.max("iterations", "largest gradient")).sort("task", "probe"))
    return seconds


def against_sklearn(layout: Layout) -> dict[str, float]:
    """Fit one phoneme probe to the same tokens with scikit-learn and from counts, one thread each."""
    made = split.load(layout)
    table = tokens.load(layout, "encodec", made)
    parts: list[tokens.Batch] = []
    for batch in tokens.batches(table, made, "rows"):
        parts.append(batch)
        if sum(len(part.hz) for part in parts) >= SKLEARN_TOKENS:
            break
    code, label = (
        np.concatenate(a)[:SKLEARN_TOKENS] for a in ([p.codes[:, 0] for p in parts], [p.phoneme for p in parts])
    )
    codebook = table.codebooks[0]
    rows = codebook[code].astype(np.float64)
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("error")  # a fit that did not converge is no peer
        began = time.perf_counter()
        theirs = LogisticRegression(C=1.0, class_weight="balanced", max_iter=10_000).fit(rows, label)
        sklearn_seconds = time.perf_counter() - began
        began = time.perf_counter()
        counted = np.zeros((1, CODES, len(PHONEMES)), np.int64)
        counts.add(code[:, None], slice(None), label, (counted, None))
        ours = solvers.fit_logistic(counted[0], codebook)
        our_seconds = time.perf_counter() - began
    proba = theirs.predict_log_proba(rows)[np.arange(len(label)), np.searchsorted(theirs.classes_, label)]
    weight = solvers.class_weights(np.bincount(label, minlength=len(PHONEMES)).clip(1), True)[label]
    objective = -np.vdot(weight, proba) + np.sum(theirs.coef_**2) / 2
    print(
        f"scikit-learn: {sklearn_seconds:.1f} s, {theirs.n_iter_[0]} iterations, objective {objective:.3f}; "
        f"from counts: {our_seconds:.3f} s, {ours.iterations} iterations, objective {ours.objective:.3f}"
    )
    return {
        "sklearn_tokens": len(label),
        "sklearn_seconds": sklearn_seconds,
        "sklearn_ratio": sklearn_seconds / our_seconds,
        "objective_gap": (ours.objective - objective) / objective,
    }


def ten_times(layout: Layout, codec: str) -> float:
    """Return how far ten times the iterations, without any tolerance, move a held-out metric of the linear probes."""
    made = split.load(layout)
    table = tokens.load(layout, codec, made)
    counted = counts.read(table, made, SEED, lagged=False)
    moved = []
    for task in ("phoneme", "speaker"):
        labels = counted.labels[task]
        for layer, codebook in enumerate(table.codebooks):
            first = solvers.fit_logistic(labels.train[layer], codebook)
            more = solvers.fit_logistic(labels.train[layer], codebook, max_iter=10 * first.iterations, tolerance=0.0)
            scores = []
            for fitted in (first, more):
                matrix = measures.confusion(fitted.predict(codebook), labels.eval[layer])
                truth, said, hits = matrix.sum(axis=1), matrix.sum(axis=0), np.diag(matrix)
                scores.append((float(measures.macro_f1(truth, said, hits)), hits.sum() / truth.sum()))
            moved.append(np.abs(np.subtract(*scores)).max())
            print(
                f"{codec} {task} layer {layer + 1}: {first.iterations} → {more.iterations} iterations move {moved[-1]:.6f}"
            )
    return float(max(moved))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of train-clean-100's size")
    parser.add_argument("--folder", type=Path, help="where the tables are made, or lie since the last call")
    parser.add_argument(
        "--ten-times", action="store_true", help="fit all linear probes with ten times the iterations too"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        layout = Layout(options.folder or Path(temporary), f"benchmark-{options.share:g}")
        if not layout.split_json.exists():
            make_split(layout, options.share)
        for codec in CODECS:
            if not (layout.tokens(codec) / "tokens.json").exists():
                make_tokens(layout, codec)
        rows, summary, peak = [], {}, Peak()
        for name, kinds in (("probes_seconds", (LINEAR,)), ("rest_seconds", tuple(k for k in KINDS if k != LINEAR))):
            summary[name] = 0.0
            for codec in CODECS:
                steps = measure(layout, codec, kinds)
                summary[name] += sum(steps.values())
                rows += [(name.removesuffix("_seconds"), codec, step, seconds) for step, seconds in steps.items()]
        summary["peak_gb"] = peak.gb
        summary |= against_sklearn(layout)
        if options.ten_times:
            summary["ten_times_moves"] = max(ten_times(layout, codec) for codec in CODECS)
    with pl.Config(tbl_rows=-1):
        print(pl.DataFrame(rows, ["part", "codec", "step", "seconds"], orient="row"))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
