import librosa
import numpy as np
import parselmouth
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import MINI
from rvqprobe import pitch


def naive_aperiodicity(frame: np.ndarray, lag: int) -> float:
    """YIN's equation 8 with the mean over all pairs in the frame, as it is written."""
    difference = [np.mean((frame[k:] - frame[:-k]) ** 2) for k in range(1, lag + 1)]
    return difference[-1] / np.mean(difference)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_aperiodicity_is_the_papers(seed: int, lag: int) -> None:
    frame = np.random.default_rng(seed).normal(size=(3, 160))
    expected = [naive_aperiodicity(row, lag) for row in frame]
    np.testing.assert_allclose(pitch.aperiodicity(frame, np.full(3, lag)), expected, rtol=1e-6)


def test_silence_is_unvoiced() -> None:
    assert np.isnan(pitch.f0(np.zeros(8000, np.float32), 16000, 50, 25, 60, 400)).all()


@pytest.mark.parametrize(("rate", "frame_rate"), [(16000, 50), (24000, 75), (24000, 12.5), (44100, 44100 / 512)])
@pytest.mark.parametrize("hertz", [80, 150, 333])
def test_a_tone_has_its_pitch_at_the_tokens_centre(rate: int, frame_rate: float, hertz: int) -> None:
    time = np.arange(rate) / rate
    tone = np.where(time < 0.5, np.sign(np.sin(2 * np.pi * hertz * time)), 0).astype(np.float32)
    frames = int(frame_rate)
    found = pitch.f0(tone, rate, frame_rate, frames, 60, 400)
    centre = (np.arange(frames) + 0.5) / frame_rate
    inside, outside = (centre > 0.02) & (centre < 0.48), centre > 0.52
    np.testing.assert_allclose(found[inside], hertz, rtol=0.01)
    assert np.isnan(found[outside]).all()


@pytest.mark.needs("data")
def test_f0_is_librosas_and_agrees_with_praat() -> None:
    files = sorted((MINI / "LibriSpeech").rglob("*.flac"))[::14]
    voiced_alike = frames = both = gross = 0
    for file in files:
        sound, rate = soundfile.read(file, dtype="float32")
        count = len(sound) // 320
        ours = pitch.f0(sound, rate, 50, count, 60, 400)
        padded = np.pad(sound, (160, 640))
        librosas = librosa.yin(padded, fmin=60, fmax=400, sr=rate, frame_length=640, hop_length=320, center=False)[
            :count
        ]
        voiced = ~np.isnan(ours)
        np.testing.assert_allclose(ours[voiced], librosas[voiced], rtol=1e-4)
        praat = parselmouth.Sound(sound.astype(np.float64), rate).to_pitch_ac(
            time_step=0.005, pitch_floor=60, pitch_ceiling=400
        )
        reference = np.array([praat.get_value_at_time((t + 0.5) / 50) for t in range(count)])
        voiced_alike += np.sum(voiced == ~np.isnan(reference))
        frames += count
        shared = voiced & ~np.isnan(reference)
        both += shared.sum()
        gross += np.sum(np.abs(ours[shared] / reference[shared] - 1) > 0.2)
    assert len(files) > 35 and voiced_alike / frames >= 0.90 and gross / both <= 0.02
