"""Encoding: from audio to the token table, in shards that an interrupted run never makes twice."""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl

from rvqprobe import audio, codecs, phones, pitch, rvq, store, tokens
from rvqprobe.codecs import Codec
from rvqprobe.corpus import LEFT_OUT
from rvqprobe.params import ParameterError, codec_name
from rvqprobe.progress import bar, track
from rvqprobe.split import TRAIN, Split, seeded_order
from rvqprobe.store import Layout
from rvqprobe.tokens import Tokens
from rvqprobe.workers import choose, each

SHARD_SECONDS = 600.0
FEWEST_SHARDS = 4
"""Shards that a small corpus makes, shorter ones then, so that several jobs can share it."""
CHECKED = 5
"""Utterances that are encoded again, one by one, to compare codes."""
FITTING_SECONDS = 4000.0
"""Training speech that a codec may fit its codebooks to."""


def build_codec(
    codec: str, split: Split, layout: Layout, corpus_dir: Path, checkpoints_dir: Path, device: str, batch_seconds: float,
    seed: int,
) -> Codec:  # fmt: skip
    """Return the codec, fitted (where it has to be) to training speech of ``split``, or as fitted before."""
    training = split.utterances.filter(part=TRAIN)
    seconds, paths = (dict(training.select("utterance", column).iter_rows()) for column in ("seconds", "path"))
    chosen: list[Path] = []
    total = 0.0
    for name in seeded_order(seconds, seed):
        if total < FITTING_SECONDS:
            chosen.append(corpus_dir / paths[name])
            total += seconds[name]

    def training_speech(sample_rate: int) -> Iterator[np.ndarray]:
        for path in chosen:
            try:
                yield audio.read(path, sample_rate).waveform
            except audio.AudioError:
                continue  # the encoding quarantines it, with its reason

    source = codecs.Source(
        name=codec_name(codec),
        training_speech=training_speech,
        training_seconds=total,
        training_digest=store.key([store.file_digest(path) for path in chosen if path.is_file()]),
        checkpoints_dir=checkpoints_dir,
        device=device,
        batch_seconds=batch_seconds,
        seed=seed,
        cache=layout.tokens(codec_name(codec)) / "fitted.npz",
    )
    return codecs.build(codec, source)


def encode(
    codec: str, built: Codec, split: Split, layout: Layout, corpus_dir: Path, f0_min: float, f0_max: float, workers: int,
    shard: tuple[int, int] = (1, 1),
) -> Tokens:  # fmt: skip
    """Encode and label the utterances of ``split``; return the saved token table.

    Shards that are there already, made from the same audio, alignments, codec and settings, are kept. Audio that
    can't be used is quarantined. Readers and F0 run in ``workers`` processes beside the codec, which works on the next
    shard while the last one's table is written. ``shard`` (I, N) makes every N-th shard, beginning with the I-th; what
    other parts have not made yet is then missing from the table. Raises ParameterError for a part without a shard.
    """
    name = codec_name(codec)
    folder = layout.tokens(name)
    rows = split.utterances.sort(["seconds", "utterance"], descending=[True, False]).to_dicts()
    made_from = [_labelling(), codecs.fingerprint(codec, built), f0_min, f0_max]
    plan = _plan(rows, corpus_dir, folder, made_from, workers)
    part, parts = shard
    if part > len(plan):
        raise ParameterError(
            f"parameter shard = '{part} of {parts}': the speech makes {len(plan)} shards, so this part has nothing to do; "
            f"divide it into at most {len(plan)}"
        )
    store.write_arrays(folder / "codebooks.npz", codebooks=built.codebooks)
    store.write_json(_about(name, built, plan, rows, split.made_from), folder / "tokens.json")
    mine = plan[part - 1 :: parts]
    if not all(path.exists() for path, _ in mine):
        _make(mine, built, layout, corpus_dir, f0_min, f0_max, workers)
    if all(path.exists() for path, _ in plan):
        for stray in set(folder.glob("tokens-*.parquet")) - {path for path, _ in plan}:
            stray.unlink(missing_ok=True)
    return tokens.load(layout, name, partial=parts > 1)


def agreement(built: Codec, table: Tokens, split: Split, corpus_dir: Path, seed: int) -> pl.DataFrame:
    """Encode ``CHECKED`` utterances of ``table`` again by the codec's simplest call; return what agrees, one row each.

    Columns ``utterance, tokens, equal`` (share of tokens whose codes are the same in all layers) and
    ``first_differing`` (tokens by the first layer that differs, such as "2: 1").
    """
    there = set(table.frame().select(pl.col("utterance").unique()).collect()["utterance"])
    chosen = [name for name in seeded_order(split.utterances["utterance"], seed) if name in there][:CHECKED]
    paths = dict(split.utterances.select("utterance", "path").iter_rows())
    sounds = [audio.read(corpus_dir / paths[name], built.sample_rate).waveform for name in chosen]
    saved = table.frame().filter(pl.col("utterance").is_in(chosen)).collect()
    layers = [f"q{layer}" for layer in range(1, len(built.codebooks) + 1)]
    rows = []
    for name, codes in zip(chosen, built.encode_alone(sounds), strict=True):
        first = rvq.first_differing(saved.filter(utterance=name).select(layers).to_numpy(), codes)
        told = ", ".join(f"{layer}: {count}" for layer, count in sorted(Counter(first[first > 0].tolist()).items()))
        rows.append((name, len(codes), float(np.mean(first == 0)), told))
    return pl.DataFrame(rows, ["utterance", "tokens", "equal", "first_differing"], orient="row")


Plan = list[tuple[Path, list[dict[str, Any]]]]


def _plan(rows: list[dict[str, Any]], corpus_dir: Path, folder: Path, made_from: list[Any], workers: int) -> Plan:
    """Return the shards, each a path that holds its key and its utterances: ``rows`` as they come, longest first.

    A shard's utterances are about as long as each other, so that batches of them hold little padding.
    """
    hasher = joblib.Parallel(n_jobs=choose(workers, len(rows), 500), prefer="threads", return_as="generator")
    digests = hasher(joblib.delayed(_digest)(corpus_dir / row["path"]) for row in rows)
    most = min(SHARD_SECONDS, sum(row["seconds"] for row in rows) / FEWEST_SHARDS)
    shards: list[list[tuple[dict[str, Any], str]]] = [[]]
    for row, digest in zip(rows, track(digests, len(rows), "fingerprints", "utterance"), strict=True):
        if sum(r["seconds"] for r, _ in shards[-1]) > most:
            shards.append([])
        shards[-1].append((row, digest))
    plan = []
    for number, shard in enumerate(shards):
        key = store.key(made_from, [(row["utterance"], digest, row["textgrid_sha256"]) for row, digest in shard])
        plan.append((folder / f"tokens-{number:05d}-{key[:16]}.parquet", [row for row, _ in shard]))
    return plan


def _labelling() -> str:
    """Return a key of the code and packages that read audio and label tokens."""
    code = store.code_digest(__file__, audio.__file__, pitch.__file__, phones.__file__)
    return store.key(code, [version(name) for name in ("soundfile", "soxr", "librosa", "scipy", "textgrid")])


def _digest(path: Path) -> str:
    return store.file_digest(path) if path.is_file() else "missing"


def _make(
    plan: Plan, built: Codec, layout: Layout, corpus_dir: Path, f0_min: float, f0_max: float, workers: int
) -> None:  # fmt: skip
    """Write the shards of ``plan`` that are not there."""
    waiting = [shard for shard in plan if not shard[0].exists()]
    to_do, total = (sum(row["seconds"] for _, rows in part for row in rows) for part in (waiting, plan))
    by_utterance = pl.read_parquet(layout.phones).partition_by("utterance", as_dict=True)
    intervals = {name: table for (name,), table in by_utterance.items()}
    settings = (built.sample_rate, built.frame_rate, f0_min, f0_max)
    heard = each(
        listen,
        ((corpus_dir / row["path"], *settings) for _, rows in waiting for row in rows),
        choose(workers, int(total), 3600),
    )

    def codes(waveforms: list[np.ndarray]) -> list[np.ndarray]:
        found = []
        for waveform, mine in zip(waveforms, built.encode(waveforms), strict=True):
            found.append(mine)
            progress.update(len(waveform) / built.sample_rate)
        return found

    with bar(total, "encode", "s of audio") as progress, ThreadPoolExecutor(1) as beside:
        progress.update(total - to_do)
        ahead: deque[tuple[Path, list[tuple[dict[str, Any], Heard]], Future[list[np.ndarray]]]] = deque()
        for path, rows in waiting:
            found = [(row, next(heard)) for row in rows]
            sounds = [result[0].waveform for _, result in found if not isinstance(result, str)]
            ahead.append((path, found, beside.submit(codes, sounds)))
            if len(ahead) > 1:
                _write(*ahead.popleft(), intervals, built)
        while ahead:
            _write(*ahead.popleft(), intervals, built)


def _write(
    path: Path, found: list[tuple[dict[str, Any], "Heard"]], encoded: Future[list[np.ndarray]],
    intervals: dict[Any, pl.DataFrame], built: Codec,
) -> None:  # fmt: skip
    """Write one shard as soon as its codes are there."""
    usable = [(row, *result) for row, result in found if not isinstance(result, str)]
    quarantine = [(row["utterance"], row["path"], why, LEFT_OUT) for row, why in found if isinstance(why, str)]
    tables = [_table(found[0][0], np.zeros((0, len(built.codebooks)), np.uint16), np.zeros(0, np.float32), None, 1.0)]
    for (row, _, hertz), codes in zip(usable, encoded.result(), strict=True):
        tables.append(_table(row, codes, hertz, intervals.get(row["utterance"]), built.frame_rate))
    notes = Counter(note for _, sound, _ in usable for note in sound.notes)
    tokens.write_shard(pl.concat(tables), path, notes, quarantine)


Heard = tuple[audio.Audio, np.ndarray] | str
"""An utterance's audio and F0, or why it can't be used."""


def listen(path: Path, sample_rate: int, frame_rate: float, f0_min: float, f0_max: float) -> Heard:
    """Return an utterance's audio and F0 (a little longer than its tokens), or the reason why it can't be used."""
    try:
        sound = audio.read(path, sample_rate)
    except audio.AudioError as error:
        return str(error)
    frames = int(len(sound.waveform) * frame_rate / sample_rate) + 2
    return sound, pitch.f0(sound.waveform, sample_rate, frame_rate, frames, f0_min, f0_max)


def _table(
    row: dict[str, Any], codes: np.ndarray, hertz: np.ndarray, intervals: pl.DataFrame | None, frame_rate: float
) -> pl.DataFrame:
    """Return the tokens of one utterance; ``codes`` is (T, L), ``hertz`` (at least T,)."""
    count = len(codes)
    phone = pl.Series("phone", [None] * count, pl.String)
    if intervals is not None:
        index = phones.at(
            (np.arange(count) + 0.5) / frame_rate, intervals["start"].to_numpy(), intervals["end"].to_numpy()
        )
        label = pl.Series(index).replace(-1, None)
        phone = intervals["phone"].gather(label).replace("spn", None).rename("phone")
    return pl.DataFrame(
        {
            "utterance": pl.repeat(row["utterance"], count, eager=True),
            "speaker": pl.repeat(row["speaker"], count, eager=True),
            "chapter": pl.repeat(row["chapter"], count, eager=True),
            "frame": pl.Series(np.arange(count, dtype=np.uint32)),
            **{f"q{layer}": pl.Series(codes[:, layer - 1]) for layer in range(1, codes.shape[1] + 1)},
            "phone": phone,
            "f0_hz": pl.Series(hertz[:count], dtype=pl.Float32).fill_nan(None),
        }
    )


def _about(codec: str, built: Codec, plan: Plan, rows: list[dict[str, Any]], split: str) -> dict[str, Any]:
    """Return the manifest of a token table, which its shards' own footers complete."""
    layers, size, dimension = built.codebooks.shape
    return {
        "codec": codec,
        "sample_rate": built.sample_rate,
        "frame_rate": built.frame_rate,
        "layers": layers,
        "codebook_size": size,
        "dimension": dimension,
        "utterances": len(rows),
        "seconds": sum(row["seconds"] for row in rows),
        "shards": [path.name for path, _ in plan],
        "split": split,
    }
