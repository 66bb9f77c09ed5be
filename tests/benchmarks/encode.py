"""Times encoding on this machine: whole pipeline, its stages, and batches against the package's own call.

    python tests/benchmarks/encode.py [--device auto] [--seconds 600] [--batch-seconds 600] [--alone 60] [--workers 0]

Speech is the embedded demo corpus, its utterances strung together to LibriSpeech's lengths; the codecs are
the untrained ones, of the published size. Prints a table and, last, one line of JSON.
"""

import argparse
import itertools
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import soundfile
import torch

from rvqprobe import audio, codecs, corpus, encoding, phones, pitch, rvq, split
from rvqprobe.codecs import Source, batched, encodec, speechtokenizer
from rvqprobe.codecs.neural import UNTRAINED, NeuralCodec
from rvqprobe.params import ROOT
from rvqprobe.store import Layout

DEMO = ROOT / "lib" / "demo" / "LibriSpeech" / "demo"
RATE = 16_000


def make_corpus(folder: Path, seconds: float) -> None:
    """Write utterances of LibriSpeech's lengths, cut from the demo corpus, and alignments of a phone each 80 ms."""
    rng = np.random.default_rng(0)
    demo = np.concatenate([audio.read(path, RATE).waveform for path in sorted(DEMO.glob("*/*/*.flac"))])
    total, number = 0.0, 0
    while total < seconds:
        length = float(np.clip(rng.gamma(9, 1.41), 2, 24.5))
        begin = int(rng.integers(0, len(demo)))
        speaker = str(number % 20)
        name = f"{speaker}-1-{number:04d}"
        place = Path("made") / speaker / "1"
        for kind in ("audio", "grids"):
            (folder / kind / place).mkdir(parents=True, exist_ok=True)
        waveform = np.take(demo, np.arange(begin, begin + int(length * RATE)), mode="wrap")
        soundfile.write(folder / "audio" / place / f"{name}.flac", waveform, RATE)
        times = np.linspace(0, len(waveform) / RATE, max(2, int(length / 0.08)))
        intervals = "\n".join(
            f'intervals [{i}]:\nxmin = {a}\nxmax = {b}\ntext = "{phones.PHONEMES[i % 40]}"'
            for i, (a, b) in enumerate(itertools.pairwise(times), 1)
        )
        head = f'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = {times[-1]}\ntiers? <exists>\nsize = 1\n'
        tier = f'item []:\nitem [1]:\nclass = "IntervalTier"\nname = "phones"\nxmin = 0\nxmax = {times[-1]}\n'
        size = f"intervals: size = {len(times) - 1}\n"
        (folder / "grids" / place / f"{name}.TextGrid").write_text(f"{head}{tier}{size}{intervals}\n")
        total, number = total + length, number + 1


def build(name: str, device: str, batch_seconds: float, folder: Path) -> NeuralCodec:
    """Return the untrained codec of the published size: random weights, 1024 codes a layer fitted to the demo corpus."""

    def speech(rate: int) -> Iterator[np.ndarray]:
        for path in sorted(DEMO.glob("*/*/*.flac")):
            yield audio.read(path, rate).waveform

    source = Source(name, speech, 1e6, "demo", folder, device, batch_seconds, 0, folder / f"fitted-{name}.npz")
    return (encodec if name == "encodec" else speechtokenizer).build(source, UNTRAINED)


def synchronise(device: str) -> None:
    """Wait for what the device still has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def first_differing(
    built: Any, waveforms: list[np.ndarray], pairs: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[int, int], float]:
    """Return tokens by the first layer in which (ours, the package's) codes differ, and the largest margin among these."""
    first, clearest = Counter[int](), 0.0
    for waveform, (ours, theirs) in zip(waveforms, pairs, strict=True):
        layers = rvq.first_differing(ours, theirs)
        frames = np.flatnonzero(layers)
        if len(frames):
            latents = built.model.encoder(_tensor(waveform, built.device))[0].T.cpu().numpy()
            margins = rvq.margins(latents, built.codebooks, theirs)[frames, layers[frames] - 1]
            clearest = max(clearest, float(margins.max()))
            first.update(layers[frames].tolist())
    return dict(sorted(first.items())), clearest


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the numbers of one codec."""
    device = codecs.device(options.device)
    built: Any = build(name, device, options.batch_seconds, folder)
    found, quarantine = corpus.scan(folder / "audio", folder / "grids", "made")
    layout = Layout(folder, f"encode-{name}")
    chosen = {"eval_fraction": 0.1, "seed": 0, "silence": "class", "stress": "strip"}
    made, _ = split.make(layout, found, quarantine, folder / "grids", chosen, 1)
    longest = made.utterances.sort("seconds", descending=True)
    waveforms = [audio.read(folder / "audio" / path, built.sample_rate).waveform for path in longest["path"]]
    list(built.encode(waveforms[:2]))  # kernels are chosen and memory is taken on the first call

    def timed(work: Any) -> tuple[float, Any]:
        synchronise(device)
        began = time.perf_counter()
        result = work()
        synchronise(device)
        return time.perf_counter() - began, result

    seconds = sum(map(len, waveforms)) / built.sample_rate
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    codec_seconds, codes = timed(lambda: list(built.encode(waveforms)))
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None
    few = list(range(0, len(waveforms), max(1, round(seconds / options.alone))))
    spoken = sum(len(waveforms[i]) for i in few) / built.sample_rate
    alone_seconds, alone = timed(lambda: [built.encode_one(_tensor(waveforms[i], device)).cpu() for i in few])
    pairs = [(codes[i], codes_alone[:, 0].T.numpy()) for i, codes_alone in zip(few, alone, strict=True)]
    equal = np.concatenate([(ours == theirs).all(axis=1) for ours, theirs in pairs])
    first, clearest = first_differing(built, [waveforms[i] for i in few], pairs)
    paths = [folder / "audio" / path for path in longest["path"][:: max(1, len(longest) // 20)]]
    read_seconds, heard = timed(lambda: [audio.read(path, built.sample_rate) for path in paths])
    sounds = [sound.waveform for sound in heard]
    frames = [int(len(sound) * built.frame_rate / built.sample_rate) for sound in sounds]
    pitch.f0(sounds[0], built.sample_rate, built.frame_rate, frames[0], 60.0, 400.0)  # compiles
    label_seconds, _ = timed(
        lambda: [
            pitch.f0(sound, built.sample_rate, built.frame_rate, count, 60.0, 400.0)
            for sound, count in zip(sounds, frames, strict=True)
        ]
    )
    listened = sum(map(len, sounds)) / built.sample_rate
    whole_seconds, _ = timed(
        lambda: encoding.encode(name, built, made, layout, folder / "audio", 60.0, 400.0, options.workers)
    )
    work = codec_seconds + seconds * (read_seconds + label_seconds) / listened  # of one core each, or the GPU's
    sizes = [len(w) for w in waveforms]
    plan = (
        batched.plan(sizes, int(built.batch_seconds * built.sample_rate)) if built.batch_seconds else [[i] for i in few]
    )
    padded = sum(len(batch) * max(sizes[i] for i in batch) for batch in plan)
    return {
        "codec": name,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{joblib.cpu_count()} CPU cores",
        "batch_seconds": built.batch_seconds,
        "audio_seconds": round(seconds, 1),
        "codec_times_real_time": seconds / codec_seconds,
        "whole_times_real_time": seconds / whole_seconds,
        "hours_a_minute": seconds / whole_seconds / 60,
        "padding_waste": 1 - sum(sizes[i] for batch in plan for i in batch) / padded,
        "share_of_codec": codec_seconds / work,
        "share_of_reading": seconds * read_seconds / listened / work,
        "share_of_labels": seconds * label_seconds / listened / work,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "reading_times_real_time_a_core": listened / read_seconds,
        "labels_times_real_time_a_core": listened / label_seconds,
        "peak_gpu_gb": peak,
        "equal_codes": float(equal.mean()),
        "compared_tokens": len(equal),
        "first_differing_layers": first,
        "clearest_margin_that_differs": clearest,
        "alone_times_real_time": spoken / alone_seconds,
        "ratio_to_plain_loop": (seconds / codec_seconds) / (spoken / alone_seconds),
    }


def _tensor(waveform: np.ndarray, device: str) -> torch.Tensor:
    return torch.from_numpy(waveform).to(device)[None, None]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps or auto")
    parser.add_argument("--seconds", type=float, default=600.0, help="speech to encode")
    parser.add_argument("--batch-seconds", type=float, default=0.0, help="as the parameter batch_seconds")
    parser.add_argument("--alone", type=float, default=60.0, help="of it, for the plain loop over utterances")
    parser.add_argument("--workers", type=int, default=0, help="processes that read and label")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_corpus(Path(folder), options.seconds)
        for name in ("encodec", "speechtokenizer"):
            rows.append(measure(name, options, Path(folder)))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=60):
        names = [row["codec"] for row in rows]
        print(
            pl.DataFrame(
                [[key, *(str(row[key]) for row in rows)] for key in rows[0]], ["measure", *names], orient="row"
            )
        )
    print(json.dumps({row["codec"]: row for row in rows}))


if __name__ == "__main__":
    main()
