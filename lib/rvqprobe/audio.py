"""The one place that opens audio, and packs it for a page."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

FULL_SCALE = 0.9999
MOST_CLIPPED = 0.01
"""An utterance with more than this share of its samples at full scale is clipped: neither F0 nor codes mean much."""


class AudioError(ValueError):
    """Audio that cannot be used; the message is the reason, as the quarantine table shows it."""


@dataclass(frozen=True)
class Audio:
    """One utterance."""

    waveform: np.ndarray
    """(samples,) float32, one channel."""
    notes: tuple[str, ...]
    """What was done to it: mixed down, resampled."""


def read(path: Path, sample_rate: int) -> Audio:
    """Read an audio file as one channel at ``sample_rate`` Hz.

    Channels are averaged; another rate is converted by soxr (high quality). Raises AudioError where the file can't be
    read to its end, has no sample, has one that is not finite, or is clipped.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise AudioError(f"not readable as audio: {reason}") from error
    if not len(samples):
        raise AudioError("no sample in the file")
    if not np.isfinite(samples).all():
        raise AudioError("samples that are not finite")
    clipped = float(np.mean(np.abs(samples) >= FULL_SCALE))
    if clipped > MOST_CLIPPED:
        raise AudioError(f"clipped: {clipped:.1%} of its samples are at full scale")
    notes = []
    if samples.shape[1] > 1:
        notes.append(f"mixed down from {samples.shape[1]} channels")
    if rate != sample_rate:
        notes.append(f"resampled from {rate} to {sample_rate} Hz")
    waveform = samples.mean(axis=1, dtype=np.float32)
    return Audio(
        soxr.resample(waveform, rate, sample_rate, quality="HQ") if rate != sample_rate else waveform, tuple(notes)
    )


def mp3(waveform: np.ndarray, sample_rate: int) -> bytes:
    """Return a waveform (samples,) as MP3; what exceeds full scale is clipped."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), sample_rate, format="MP3")
    return file.getvalue()
