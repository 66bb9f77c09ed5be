"""F0 at the centres of tokens, by YIN (de Cheveigné & Kawahara 2002, JASA 111:1917)."""

import librosa
import numpy as np
import scipy.fft

PERIODS = 2.4
"""Length of the analysis frame in periods of the lowest F0: 40 ms at 60 Hz."""
APERIODICITY = 0.45
"""A frame is voiced below this aperiodicity. With ``ENERGY_GATE`` chosen against Praat's autocorrelation method on 60
LibriSpeech utterances: 93 % of frames agree on voicing, 1.6 % of those voiced for both are more than 20 % apart."""
ENERGY_GATE = 0.15
"""A voiced frame's RMS is above this share of the utterance's RMS."""


def f0(
    waveform: np.ndarray, sample_rate: int, frame_rate: float, frames: int, f0_min: float, f0_max: float
) -> np.ndarray:
    """Return F0 in Hz at the centres of the first ``frames`` tokens, NaN where unvoiced; (frames,) float32.

    ``waveform`` is (samples,). Token t's centre is (t + ½) / ``frame_rate`` seconds; the analysis frame is centred
    there, silence standing before and after the utterance. Frequency is ``librosa.yin``'s; the voicing decision, which
    that lacks, is the aperiodicity at its lag and an energy gate. A lag at an end of the range is no dip of the
    difference function, so the frame is unvoiced.
    """
    hop = round(sample_rate / frame_rate)
    length = 2 * round(PERIODS * sample_rate / f0_min / 2) + hop % 2
    begin, total = (hop - length) // 2, (frames - 1) * hop + length
    kept = waveform[max(0, begin) : begin + total]
    padded = np.pad(kept, (max(0, -begin), total - max(0, -begin) - len(kept)))
    framed = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]
    loud = np.flatnonzero(np.sqrt(np.mean(framed**2, axis=1)) > ENERGY_GATE * np.sqrt(np.mean(waveform**2)))
    found = np.full(frames, np.nan, np.float32)
    if not len(loud):
        return found
    apart = framed[loud]  # laid end to end, so that YIN works on loud frames alone
    hertz = librosa.yin(
        apart.ravel(), fmin=f0_min, fmax=f0_max, sr=sample_rate, frame_length=length, hop_length=length, center=False
    )
    inside = (hertz > f0_min) & (hertz < f0_max)
    lag = np.rint(sample_rate / hertz[inside]).astype(int)
    periodic = aperiodicity(apart[inside], lag) < APERIODICITY
    found[loud[inside][periodic]] = hertz[inside][periodic]
    return found


def aperiodicity(framed: np.ndarray, lag: np.ndarray) -> np.ndarray:
    """Return YIN's d′ (its equation 8) of each frame at its own ``lag``; (frames,), 0 = periodic, about 1 = noise.

    ``framed`` is (frames, length), ``lag`` (frames,) in samples. The difference function is the mean over all pairs of
    samples in the frame that lie ``lag`` apart.
    """
    frames, length = framed.shape
    lags = np.arange(1, lag.max(initial=1) + 1)
    size = scipy.fft.next_fast_len(length + len(lags), real=True)
    spectrum = np.abs(scipy.fft.rfft(framed, size, axis=1)) ** 2
    correlation = scipy.fft.irfft(spectrum, size, axis=1)[:, 1 : len(lags) + 1]
    energy = np.cumsum(framed.astype(np.float64) ** 2, axis=1)
    pairs = energy[:, length - 1 - lags] + (energy[:, -1:] - energy[:, lags - 1]) - 2 * correlation
    difference = np.maximum(pairs, 0) / (length - lags)
    rows, column = np.arange(frames), lag - 1
    mean = np.cumsum(difference, axis=1)[rows, column] / lag
    return np.divide(difference[rows, column], mean, out=np.ones(frames), where=mean > 0)
