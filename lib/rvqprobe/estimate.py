"""What a study will take on this machine: hours of audio, tokens, disk, memory and time, from a rehearsal of seconds.

The rehearsal runs the study's own functions: codecs of the same architecture with random weights on a few seconds of the
embedded speech, and probes of codebooks of the study's size on made-up labels.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import yaml

from rvqprobe import (
    audio,
    clusters,
    codecs,
    corpus,
    counts,
    encoding,
    params,
    phones,
    probes,
    rvq,
    split,
    store,
    tokens,
)
from rvqprobe.codecs import Source, neural
from rvqprobe.fetch import SPEECH, FetchError
from rvqprobe.phones import PHONEMES
from rvqprobe.store import Layout
from rvqprobe.workers import choose

SUBSETS = {
    "train-clean-5": (5.3, 1519, 28),
    "train-clean-100": (100.6, 28539, 251),
    "train-clean-360": (363.6, 104014, 921),
    "train-other-500": (496.7, 148688, 1166),
}
"""Hours, utterances and speakers (LibriSpeech: Panayotov et al. 2015, table 1)."""
DEMO = params.ROOT / "lib" / "demo"
UTTERANCE = 12.0
"""Seconds of a typical utterance of LibriSpeech, and of those of the rehearsal."""
NOTEBOOK = 6.0
"""Seconds that a notebook takes to start, draw and become a page (measured on the demo)."""
REPORT = 20.0
"""Seconds of the report, its page and its figures (measured on the demo)."""
TOKEN = 13.0
"""Bytes of a token on disk: eight codes of 10 bits and its labels (measured on librispeech-mini)."""
CODEC_GB, PROBES_GB = 2.8, 2.0
"""Memory of a codec that encodes and of all probes at full size (measured on two cores)."""
REHEARSED = 100_000
"""Tokens that are counted in the rehearsal."""


@dataclass(frozen=True)
class Amount:
    """How much speech a study has."""

    seconds: float
    utterances: int
    speakers: int


def amount(study: Mapping[str, Any]) -> Amount:
    """Return how much speech ``study`` has, from its corpus or, where that is not here, from the subset's known size.

    Raises FetchError where neither is known.
    """
    corpus_dir, grids = params.path(study["corpus_dir"]), params.path(study["alignments_dir"])
    if corpus.has_speech(corpus_dir, study["subset"]):
        found, _ = corpus.scan(corpus_dir, grids, study["subset"])
        chosen = split.choose(found, study["max_utterances"], study["seed"])
        return Amount(chosen["seconds"].sum(), len(chosen), chosen["speaker"].n_unique())
    if study["subset"] not in SUBSETS:
        raise FetchError(
            f"{corpus_dir / study['subset']} is not here, and its size is known of {', '.join(SUBSETS)} only"
        )
    hours, utterances, speakers = SUBSETS[study["subset"]]
    share = min(1.0, study["max_utterances"] / utterances) if study["max_utterances"] else 1.0
    return Amount(3600 * hours * share, round(utterances * share), max(2, round(speakers * share)))


def estimate(study: Mapping[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return two tables: what there is (audio, tokens, disk, memory), and the minutes of each stage on this machine.

    Where two codecs share the cores their times add up all the same.
    """
    speech, stages, all_tokens = amount(study), [], 0.0
    stages.append(("01_split", NOTEBOOK + speech.utterances * _seconds_an_utterance()))
    for codec in study["codecs"]:
        name = params.codec_name(codec)
        with tempfile.TemporaryDirectory() as folder:
            rehearsal = _Rehearsal(codec, study, Path(folder))
            stages.append((f"02_encode, {name}", NOTEBOOK + rehearsal.encoding(speech)))
            stages.append((f"03_probe, {name}", NOTEBOOK + rehearsal.probing(speech)))
            all_tokens += speech.seconds * rehearsal.built.frame_rate
    if study["evaluate"]:
        stages.append(("04_report", REPORT))
    stages.append(("in all", sum(seconds for _, seconds in stages)))
    url, _ = SPEECH.get(study["subset"], ("", ""))
    there = corpus.has_speech(params.path(study["corpus_dir"]), study["subset"])
    sides = 1 if study["workers"] == 1 or len(study["codecs"]) == 1 else 2
    facts = [
        ("audio", f"{speech.seconds / 3600:.2f} h, {speech.utterances} utterances, {speech.speakers} speakers"),
        ("speech", "here" if there else f"not here; known size of {url.rsplit('/', 1)[-1]}"),
        ("tokens", f"{all_tokens / 1e6:.2f} million"),
        ("disk for results", f"{all_tokens * TOKEN / 1e9:.2f} GB"),
        ("memory", f"up to {max(sides * CODEC_GB, PROBES_GB):.1f} GB"),
    ]
    rows = [(stage, seconds / 60) for stage, seconds in stages]
    return pl.DataFrame(facts, ["what", "how much"], orient="row"), pl.DataFrame(
        rows, ["stage", "minutes"], orient="row"
    )


def _seconds_an_utterance() -> float:
    """Time reading headers and TextGrids."""
    started = time.perf_counter()
    found, _ = corpus.scan(DEMO / "LibriSpeech", DEMO / "alignments", "demo")
    phones.read(found, DEMO / "alignments", 1)
    return (time.perf_counter() - started) / len(found)


class _Rehearsal:
    """A codec of the study's architecture on a little speech."""

    def __init__(self, codec: str, study: Mapping[str, Any], folder: Path) -> None:
        self.study, self.folder, self.settings = study, folder, codecs.settings(codec)
        self.fits = self.settings.get("weights", neural.UNTRAINED) == neural.UNTRAINED
        self.file = folder / f"{params.codec_name(codec)}.yaml"
        untrained = {"weights": neural.UNTRAINED} if "weights" in self.settings else {}
        self.file.write_text(yaml.safe_dump(self.settings | untrained))
        self.paths = sorted((DEMO / "LibriSpeech").rglob("*.flac"))
        source = Source(
            self.file.stem, self._speech, 20.0, "rehearsal", params.path(study["checkpoints_dir"]), codecs.device(study["device"]), study["batch_seconds"],
            study["seed"], folder / "fitted.npz",
        )  # fmt: skip
        self.built = codecs.build(str(self.file), source)
        self.device = source.device

    def _speech(self, rate: int) -> Iterator[np.ndarray]:
        for path in self.paths[:8]:
            yield audio.read(path, rate).waveform

    def encoding(self, speech: Amount) -> float:
        """Return the seconds of 02_encode."""
        rate = self.built.sample_rate
        voices = np.concatenate([audio.read(path, rate).waveform for path in self.paths[:16]])
        utterance = np.resize(voices, int(UTTERANCE * rate))
        alone = [utterance] * (joblib.cpu_count() if self.device == "cpu" else 20)
        list(self.built.encode([utterance[:rate]]))  # the first call makes what the others reuse
        started = time.perf_counter()
        list(self.built.encode(alone))
        codec = (time.perf_counter() - started) / (UTTERANCE * len(alone))
        labels = self._labels() / (self.study["workers"] or joblib.cpu_count())
        return speech.seconds * (codec + labels) + self._fitting(speech, codec) + encoding.CHECKED * UTTERANCE * codec

    def _labels(self) -> float:
        """Return the seconds in which one core reads and labels a second of speech."""
        read = 0.0
        started = time.perf_counter()
        for path in self.paths[:24]:
            heard = encoding.listen(
                path, self.built.sample_rate, self.built.frame_rate, self.study["f0_min"], self.study["f0_max"]
            )
            read += len(heard[0].waveform) / self.built.sample_rate if not isinstance(heard, str) else 0.0
        return (time.perf_counter() - started) / read

    def _fitting(self, speech: Amount, codec: float) -> float:
        """Return the seconds of fitting codebooks: encoding the training speech that it takes, and k-means."""
        if not self.fits:
            return 0.0
        layers, _, dimension = self.built.codebooks.shape
        frames, size = self._training_frames(speech), self.codes(speech)
        most = neural.LATENTS_A_CODE * size if "weights" in self.settings else frames
        latents = min(rvq.MOST_LATENTS, frames, most)
        few = min(latents, 8 * size)
        started = time.perf_counter()
        list(rvq.fit(np.random.default_rng(0).normal(size=(few, dimension)).astype(np.float32), 1, size, 0))
        one = (time.perf_counter() - started) * latents / few
        return latents / self.built.frame_rate * codec + layers * one

    def codes(self, speech: Amount) -> int:
        """Return the codes a layer that the study will have."""
        wanted = int(self.settings.get("codebook_size", 1024))
        return rvq.affordable(wanted, self._training_frames(speech)) if self.fits else wanted

    def _training_frames(self, speech: Amount) -> int:
        """Return the frames of training speech that codebooks are fitted to."""
        training = (1 - self.study["eval_fraction"]) * speech.seconds
        return int(min(encoding.FITTING_SECONDS, training) * self.built.frame_rate)

    def probing(self, speech: Amount) -> float:
        """Return the seconds of 03_probe."""
        study, layers, size = self.study, len(self.built.codebooks), self.codes(speech)
        table, made = _made_up(self.folder, size, self.built.codebooks.shape[2], self.built.frame_rate, speech.speakers)
        kinds = probes.KINDS if study["evaluate"] else [probes.LINEAR]
        alone = probes.Settings(study["C"], study["max_iter"], 1, study["blas_threads"] or 1, study["seed"])
        counts.read(table, made, study["seed"])  # the first call starts what the others reuse
        times = [time.perf_counter()]
        counted = counts.read(table, made, study["seed"])
        times.append(time.perf_counter())
        fitted = probes.fit_all(counted, table.codebooks, alone, [kind for kind in kinds if kind != probes.LAGGED])
        times.append(time.perf_counter())
        if study["evaluate"]:
            clusters.collect(table, made, fitted)
        times.append(time.perf_counter())
        if study["evaluate"]:
            probes.fit_all(counted, table.codebooks, alone, [probes.LAGGED])  # of the first layer only
        times.append(time.perf_counter())
        count, fit, score, lagged = np.diff(times)
        work = layers * table.codebooks.size * (len(PHONEMES) + speech.speakers)
        workers = choose(study["workers"], work, probes.WORK)
        a_token = layers * (count + score) / REHEARSED
        return speech.seconds * self.built.frame_rate * a_token + (layers * fit + lagged) / workers


def _made_up(
    folder: Path, codes: int, dimension: int, frame_rate: float, speakers: int
) -> tuple[tokens.Tokens, split.Split]:
    """Save one layer of tokens that follow phone, speaker or nothing; return it with its split."""
    rng, layout = np.random.default_rng(0), Layout(folder, "made-up")
    names = [f"{100 + speaker}-1-{number:04d}" for speaker in range(speakers) for number in range(10)]
    table = pl.DataFrame({"utterance": names, "speaker": [name[: name.index("-")] for name in names]})
    table = table.with_columns(chapter=pl.lit("1"), seconds=pl.lit(10.0))
    store.write_table(split.divide(table, 0.1, 0), layout.split)
    classes = {"phoneme": list(PHONEMES), "speaker": sorted(table["speaker"].unique())}
    store.write_json(
        {"made_from": "", "classes": classes, "phone_classes": {p: p for p in PHONEMES}}, layout.split_json
    )
    utterance = np.sort(rng.integers(0, len(names), REHEARSED))
    phone = np.repeat(rng.integers(0, len(PHONEMES), REHEARSED), 5)[:REHEARSED]
    follows, noise = rng.random(REHEARSED), rng.integers(0, codes, REHEARSED)
    near = rng.geometric(min(1.0, 20 / codes), REHEARSED)
    of_phone, of_speaker = (phone * 911 + near) % codes, (utterance // 10 * 577 + near) % codes
    code = np.where(follows < 0.5, of_phone, np.where(follows < 0.7, of_speaker, noise))
    frame = pl.DataFrame({"utterance": pl.Series(names).gather(utterance), "q1": pl.Series(code, dtype=pl.UInt16)})
    hz = pl.Series(np.where(phone % 2, 120.0 + code % 50, np.nan), dtype=pl.Float32).fill_nan(None)
    frame = frame.with_columns(phone=pl.Series(PHONEMES).gather(phone), f0_hz=hz)
    home = layout.tokens("made-up")
    tokens.write_shard(frame, home / "tokens-0.parquet")
    store.write_arrays(home / "codebooks.npz", codebooks=rng.normal(size=(1, codes, dimension)).astype(np.float32))
    store.write_json({"frame_rate": frame_rate, "shards": ["tokens-0.parquet"], "split": ""}, home / "tokens.json")
    made = split.load(layout)
    return tokens.load(layout, "made-up", made), made
