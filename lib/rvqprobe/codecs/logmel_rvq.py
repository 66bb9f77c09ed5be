"""The classical reference: k-means residual vector quantisation of log-mel frames. It needs no weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio

from rvqprobe import rvq, store
from rvqprobe.codecs import Source
from rvqprobe.progress import bar, track

SAMPLE_RATE = 16_000
HOP = 320
WINDOW = 640
FFT = 1024
FLOOR = 1e-5
"""Mel energies below it count as it: the noise of 16-bit audio."""


@dataclass(frozen=True)
class LogMelRVQ:
    """Log-mel frames of 40 ms, 50 a second, centred on their token, in nearest-neighbour codes."""

    name: str
    codebooks: np.ndarray
    device: str
    made_from: str = ""
    sample_rate: int = SAMPLE_RATE
    frame_rate: float = SAMPLE_RATE / HOP

    @property
    def plan(self) -> str:
        """Device."""
        return self.device

    def encode(self, waveforms: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the codes (T, L) uint16 of each waveform (samples,) float32; T is samples / 320, rounded up."""
        books = torch.from_numpy(self.codebooks).to(self.device)
        for waveform in waveforms:
            frames = logmel(waveform, self.codebooks.shape[2], self.device)
            yield rvq.encode(frames, books).cpu().numpy().astype(np.uint16)

    encode_alone = encode

    def decode(self, codes: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        """Return the audio (samples,) of ``codes`` (T, L) from ``layers``, counted from 1, by Griffin and Lim's method."""
        energies = torch.from_numpy(rvq.decode(codes, self.codebooks, layers)).T.exp()
        bins = FFT // 2 + 1
        power = torchaudio.transforms.InverseMelScale(bins, energies.shape[0], SAMPLE_RATE)(energies)
        whole = torchaudio.transforms.GriffinLim(FFT, win_length=WINDOW, hop_length=HOP, rand_init=False)(power)
        return torch.nn.functional.pad(whole, (0, HOP * len(codes) - len(whole))).numpy()


def logmel(waveform: np.ndarray, mels: int, device: str) -> torch.Tensor:
    """Return the log mel energies (T, mels) of ``waveform`` (samples,); frame t is centred on sample (t + ½)·320."""
    frames = -(-len(waveform) // HOP)
    before = (FFT - HOP) // 2
    padded = np.pad(waveform, (before, (frames - 1) * HOP + FFT - before - len(waveform)))
    spectrogram = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, FFT, WINDOW, HOP, n_mels=mels, center=False)
    return spectrogram.to(device)(torch.from_numpy(padded).to(device)).clamp_min(FLOOR).log().T


def build(source: Source, layers: int, codebook_size: int, mels: int) -> LogMelRVQ:
    """Return the codec, its codebooks fitted to training speech unless a fitting ``source.cache`` is there."""

    def fit() -> dict[str, np.ndarray]:
        frames = []
        with bar(source.training_seconds, "log-mel frames", "s of audio") as progress:
            for waveform in source.training_speech(SAMPLE_RATE):
                frames.append(logmel(waveform, mels, "cpu"))
                progress.update(len(waveform) / SAMPLE_RATE)
        latents = torch.cat(frames).numpy()[: rvq.MOST_LATENTS]
        books = rvq.fit(latents, layers, rvq.affordable(codebook_size, len(latents)), source.seed)
        return {"codebooks": np.stack(list(track(books, layers, "k-means", "codebook")))}

    made_from = [layers, codebook_size, mels, store.code_digest(__file__, rvq.__file__)]
    return LogMelRVQ(source.name, source.fitted(made_from, fit)["codebooks"], source.device)
