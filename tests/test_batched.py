"""Batches against the packages' own calls, an utterance at a time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvqprobe import rvq
from rvqprobe.codecs import batched, encodec, neural, speechtokenizer
from rvqprobe.codecs.neural import NeuralCodec
from test_codecs import encodec_checkpoint, published, small_checkpoint, source  # noqa: F401

BOUND = 1e-5
"""Two codes are told apart in float32 where their squared distances differ by more than this share of the squared norms."""
ADVERSARIAL = [1, 2, 3, 5, 7, 159, 319, 320, 321, 639, 640, 641, 2 * 8 * 320 - 1, 6400, 6401]


def compare(built: NeuralCodec, waveforms: list[np.ndarray], bound: float = BOUND) -> Counter:
    """Check a batch against the package's call; return first-differing layers, all of them nearer than ``bound``."""
    first: Counter = Counter()
    for waveform, alone, codes in zip(waveforms, built.encode_alone(waveforms), built.encode(waveforms), strict=True):
        assert codes.shape == alone.shape and codes.dtype == np.uint16
        layers = rvq.first_differing(codes, alone)
        if layers.any():
            with torch.inference_mode():
                latents = built.model.encoder(torch.from_numpy(waveform)[None, None])[0].T.numpy()
            margin = rvq.margins(latents, built.codebooks, alone)
            for frame in np.flatnonzero(layers):
                assert margin[frame, layers[frame] - 1] < bound
                first[int(layers[frame])] += 1
    return first


def noise(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.normal(size=n) * np.abs(np.sin(np.arange(n) / 4000 + n))).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def full_encodec(encodec_checkpoint: Path) -> NeuralCodec:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodec, "CHECKPOINT", published(encodec_checkpoint))
        return encodec.build(source(encodec_checkpoint.parent, batch_seconds=100.0), "pretrained")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> NeuralCodec:
    folder = small_checkpoint(tmp_path_factory.mktemp("small")).parent
    return speechtokenizer.build(source(folder, batch_seconds=2000.0), "own.pt", "config.json")


def test_encodec_of_adversarial_lengths(full_encodec: NeuralCodec) -> None:
    waveforms = noise([*ADVERSARIAL, 24_000, 30_011])
    first = compare(full_encodec, waveforms)
    assert sum(first.values()) <= 2  # of 270 frames


def test_encodec_of_35_seconds_beside_a_short_one(full_encodec: NeuralCodec) -> None:
    assert sum(compare(full_encodec, noise([35 * 24_000, 24_001], seed=1)).values()) <= 3  # of 2,700 frames


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 32))
def test_small_speechtokenizer_in_batches_of_any_lengths(small: NeuralCodec, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [
        int(n)
        for n in np.where(rng.random(count) < 0.3, rng.choice(ADVERSARIAL, count), rng.integers(1, 20_000, count))
    ]
    assert not compare(small, noise(lengths, seed))


def test_small_speechtokenizer_of_35_seconds(small: NeuralCodec) -> None:
    assert not compare(small, noise([35 * 16_000, *ADVERSARIAL], seed=2))


def test_full_speechtokenizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = speechtokenizer.SpeechTokenizer(speechtokenizer.CONFIG)
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.data.normal_(0, 0.02)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    built = speechtokenizer.build(source(tmp_path, batch_seconds=100.0), "own.pt")
    assert sum(compare(built, noise([1, 319, 320, 321, 16_000, 25_000])).values()) <= 2  # of 133 frames


def test_untrained_codecs_in_batches(tmp_path: Path) -> None:
    """Random weights, an affine map of their latents, and fitted codebooks."""
    built = speechtokenizer.build(
        source(small_checkpoint(tmp_path).parent, batch_seconds=50.0), "untrained", "config.json"
    )
    assert sum(compare(built, noise([*ADVERSARIAL, 16_000, 30_011])).values()) <= 1


def test_untrained_encodec_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its affine map magnifies rounding by the latents' mean over their spread."""
    monkeypatch.setattr(neural, "LATENTS_A_CODE", 10)
    built = encodec.build(source(tmp_path, batch_seconds=50.0), "untrained", 32)
    first = compare(built, noise([*ADVERSARIAL, 24_000, 30_011]), bound=100 * BOUND)
    assert sum(first.values()) <= 4  # of 270 frames


def test_margins_of_a_case_worked_by_hand() -> None:
    books = np.array([[[0.0, 0], [4, 0]], [[1, 0], [0, 1]]])
    found = rvq.margins(np.array([[1.0, 0]]), books, np.array([[0, 0]]))
    np.testing.assert_allclose(found, [[(9 - 1) / (1 + 0), (2 - 0) / (1 + 1)]])


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.integers(1, 5000))
def test_a_plan_holds_each_utterance_once_and_never_too_much(lengths: list[int], most: int) -> None:
    batches = batched.plan(lengths, most)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert all(size <= most or len(batch) == 1 for size, batch in zip(padded, batches, strict=True))
    assert padded[0] >= max(lengths)


def test_out_of_memory_halves_the_batch_and_goes_on(small: NeuralCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds three utterances and no more."""
    sizes, whole = [], batched.forward

    def forward(module, x, lengths):
        if type(module).__name__ == "SEANetEncoder":
            sizes.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(module, x, lengths)

    waveforms = noise([4000, 300, 9000, 8000, 5000, 7000, 640, 3000])
    expected = list(small.encode(waveforms))
    monkeypatch.setattr(batched, "forward", forward)
    assert all(np.array_equal(a, b) for a, b in zip(small.encode(waveforms), expected, strict=True))
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    monkeypatch.setattr(batched, "forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("nothing fits")))
    with pytest.raises(torch.OutOfMemoryError, match="nothing fits"):
        list(small.encode(waveforms))
