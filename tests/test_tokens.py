import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import MINI
from rvqprobe import audio, codecs, counts, encoding, phones, rvq, store, tokens
from rvqprobe.store import MissingInput
from test_split import make


class Toy:
    """Codes that tell the loudness of each hop; counts what it encodes and stops, if told to, after some."""

    name, made_from, plan = "toy", "", "cpu"
    sample_rate, frame_rate = 8000, 25.0
    codebooks = np.arange(2 * 8 * 3, dtype=np.float32).reshape(2, 8, 3)

    def __init__(self, most: int = 10**9) -> None:
        self.encoded, self.most = 0, most

    def encode(self, waveforms: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        for waveform in waveforms:
            self.encoded += 1
            if self.encoded > self.most:
                raise KeyboardInterrupt
            level = np.abs(waveform[: len(waveform) // 320 * 320]).reshape(-1, 320).mean(axis=1)
            yield np.stack([np.minimum(7, 40 * level), level > 0.1], axis=1).astype(np.uint16)

    encode_alone = encode


def encode(corpus_dir, built: Toy, made=None, f0_min: float = 60.0, shard: tuple[int, int] = (1, 1)) -> tokens.Tokens:
    saved, _, layout = make(corpus_dir)
    return encoding.encode("logmel_rvq", built, made or saved, layout, corpus_dir / "audio", f0_min, 400.0, 1, shard)


def test_tokens_bear_their_labels(corpus_dir) -> None:
    table = encode(corpus_dir, Toy())
    frame = table.frame().collect()
    assert frame.columns == ["utterance", "speaker", "chapter", "frame", "q1", "q2", "phone", "f0_hz"]
    assert frame.schema["q1"] == pl.UInt16 and frame.height == 36 * 25 == table.about["tokens"]
    one = frame.filter(utterance="20-205-0003")
    assert one["frame"].to_list() == list(range(25))
    assert one["phone"].to_list() == ["AA1"] * 12 + ["S"] * 7 + [""] * 6  # centres at 0.02 + 0.04 t seconds
    assert one["f0_hz"][:11].to_numpy() == pytest.approx(160, rel=0.02) and one["f0_hz"][13:].null_count() == 12
    assert table.about["notes"] == {"resampled from 16000 to 8000 Hz": 36}
    assert table.about["layers"] == 2 and table.about["codebook_size"] == 8 and table.about["dimension"] == 3


def test_counts_of_a_token_table_are_those_of_its_rows(corpus_dir) -> None:
    table = encode(corpus_dir, Toy())
    made, _, _ = make(corpus_dir)
    counted = counts.read(table, made, 0)
    held_out = made.utterances.filter(part="eval")["utterance"].to_list()
    rows = table.frame().collect().rows(named=True)
    mine = [row for row in rows if row["utterance"] in held_out]
    voiced = [row["f0_hz"] for row in rows if row["f0_hz"] is not None]
    assert counted.pitch.hz[0].sum() == sum(voiced) and counted.pitch.n[1].sum() == len(voiced)
    for part, chosen in (("eval", mine), ("train", [row for row in rows if row["utterance"] not in held_out])):
        of_part = getattr(counted.labels["phoneme"], part)
        assert of_part.sum() == 2 * len(chosen)
        for layer, code, label in ((0, chosen[3]["q1"], "AA1"), (1, chosen[3]["q2"], "S"), (1, 0, "")):
            number = counted.labels["phoneme"].classes.index(made.phone_classes[label])
            naive = sum(row[f"q{layer + 1}"] == code and row["phone"] == label for row in chosen)
            assert of_part[layer, code, number] == naive
        speakers = counted.labels["speaker"]
        number = speakers.classes.index("20")
        assert getattr(speakers, part)[0, :, number].sum() == sum(row["speaker"] == "20" for row in chosen)
    training = sum(row["f0_hz"] or 0 for row in rows if row["utterance"] not in held_out)
    assert counted.pitch.hz[0, :, : counts.FOLDS].sum() == pytest.approx(training)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_run_goes_on_and_ends_the_same(corpus_dir, tmp_path) -> None:
    undisturbed = encode(corpus_dir, Toy())
    folder = undisturbed.shards[0].parent
    expected = contents(folder)
    assert len(undisturbed.shards) == 4
    shutil.rmtree(folder)
    with pytest.raises(KeyboardInterrupt):
        encode(corpus_dir, Toy(most=25))
    _, _, layout = make(corpus_dir)
    with pytest.raises(MissingInput, match="02_encode"):
        tokens.load(layout, "logmel_rvq")
    rest = Toy()
    encode(corpus_dir, rest)
    assert rest.encoded == 36 - 20 and contents(folder) == expected
    nothing = Toy()
    encode(corpus_dir, nothing)
    assert nothing.encoded == 0 and contents(folder) == expected


def test_nothing_changed_is_served_from_the_cache(corpus_dir) -> None:
    before = encode(corpus_dir, Toy())
    lower = Toy()
    assert encode(corpus_dir, lower, f0_min=70.0).shards != before.shards and lower.encoded == 36
    changed = Toy()
    changed.codebooks = Toy.codebooks + 1
    encode(corpus_dir, changed, f0_min=70.0)
    assert changed.encoded == 36
    changed.encoded, changed.plan = 0, "cuda"
    encode(corpus_dir, changed, f0_min=70.0)
    assert changed.encoded == 36
    changed.encoded = 0
    path = corpus_dir / "audio/tiny/30/305/30-305-0007.flac"
    sound, rate = soundfile.read(path)
    soundfile.write(path, sound * 0.9, rate)
    after = encode(corpus_dir, changed, f0_min=70.0)
    assert 0 < changed.encoded < 12  # its shard alone
    assert {p.name for p in after.shards[0].parent.glob("*.parquet")} == {p.name for p in after.shards}


def test_tokens_of_another_split_are_refused(corpus_dir) -> None:
    encode(corpus_dir, Toy())
    other, _, layout = make(corpus_dir, seed=1)
    with pytest.raises(MissingInput, match="another split"):
        tokens.load(layout, "logmel_rvq", other)


def test_bad_audio_is_quarantined_and_the_rest_encoded(corpus_dir) -> None:
    made, _, _ = make(corpus_dir)
    folder = corpus_dir / "audio" / "tiny" / "10" / "105"
    whole = (folder / "10-105-0000.flac").read_bytes()
    (folder / "10-105-0000.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "10-105-0001.wav", np.array([0.1, np.nan]), 16000, subtype="FLOAT")
    (folder / "10-105-0001.wav").replace(folder / "10-105-0001.flac")
    (folder / "10-105-0002.flac").unlink()
    sound, rate = soundfile.read(folder / "10-105-0003.flac")
    soundfile.write(folder / "10-105-0003.flac", np.stack([sound, sound], axis=1), rate)
    make_again = encode(corpus_dir, Toy(), made)
    reasons = {name: reason for name, _, reason, _ in make_again.quarantine.iter_rows()}
    assert set(reasons) == {"10-105-0000", "10-105-0001", "10-105-0002"}
    assert "not readable" in reasons["10-105-0000"] and "not finite" in reasons["10-105-0001"]
    assert make_again.about["tokens"] == 33 * 25
    assert make_again.about["notes"]["mixed down from 2 channels"] == 1


def test_stereo_at_another_rate_is_the_same_sound(tmp_path) -> None:
    time = np.arange(44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "x.flac", np.stack([tone * 1.5, tone * 0.5], axis=1), 44100)
    sound = audio.read(tmp_path / "x.flac", 16000)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(sound.waveform[500:-500], expected[500:-500], atol=1e-3)
    assert sound.notes == ("mixed down from 2 channels", "resampled from 44100 to 16000 Hz")


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.01, 0.5)), max_size=8), st.lists(st.floats(-1, 10), max_size=20)
)
def test_the_phone_of_an_instant_is_found_as_by_hand(steps: list[tuple[float, float]], seconds: list[float]) -> None:
    start, end, now = [], [], 0.0
    for gap, length in steps:
        start.append(now + gap)
        now = start[-1] + length
        end.append(now)
    times = np.array([*seconds, *start, *end])
    ticks = [(round(1e6 * a), round(1e6 * b)) for a, b in zip(start, end, strict=True)]
    naive = [next((i for i, (a, b) in enumerate(ticks) if a <= round(1e6 * t) < b), -1) for t in times]
    assert phones.at(times, np.array(start), np.array(end)).tolist() == naive


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 20), st.integers(1, 8))
def test_rvq_takes_the_nearest_code_of_what_is_left(seed: int, layers: int, size: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    books, latents = rng.normal(size=(layers, size, dimension)), rng.normal(size=(30, dimension))
    codes = rvq.encode(torch.from_numpy(latents), torch.from_numpy(books)).numpy()
    for latent, mine in zip(latents, codes, strict=True):
        for book, code in zip(books, mine, strict=True):
            distances = np.linalg.norm(latent - book, axis=1)
            assert distances[code] == pytest.approx(distances.min())
            latent = latent - book[code]


def test_fitted_codebooks_leave_less_and_less() -> None:
    latents = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    books = np.stack(list(rvq.fit(latents, 3, 64, seed=1)))
    assert books.shape == (3, 64, 4) and np.array_equal(books, np.stack(list(rvq.fit(latents, 3, 64, seed=1))))
    assert [rvq.affordable(100, n) for n in (10_000, 9_999, 6_400, 50)] == [100, 64, 64, 1]
    codes = rvq.encode(torch.from_numpy(latents), torch.from_numpy(books)).numpy()
    sums = np.cumsum([books[layer][codes[:, layer]] for layer in range(3)], axis=0)
    left = [np.mean((latents - part) ** 2) for part in sums]
    assert left[0] < 0.3 and left[1] < 0.5 * left[0] and left[2] < 0.7 * left[1]


def test_fits_are_kept_until_what_made_them_changes(tmp_path) -> None:
    calls = []
    source = codecs.Source("x", lambda rate: iter(()), 0.0, "speech", tmp_path, "cpu", 0.0, 1, tmp_path / "fitted.npz")

    def fit() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"x": np.arange(3)}

    for made_from in ("a", "a", "b", "b"):
        assert source.fitted(made_from, fit)["x"].tolist() == [0, 1, 2]
    assert len(calls) == 2


def test_files_appear_whole_or_not_at_all(tmp_path) -> None:
    store.write_json([1], tmp_path / "x.json")
    with pytest.raises(RuntimeError), store.atomic(tmp_path / "x.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "x.json").read_text() == "[\n 1\n]\n" and [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(ValueError, match="[Oo]bject"):
        store.write_arrays(tmp_path / "x.npz", a=np.array([{}]))


@pytest.mark.needs("data")
def test_labels_of_real_speech_are_those_of_the_textgrids(tmp_path) -> None:
    """By brute force, from the TextGrid's lines."""
    grid = MINI / "alignments/train-clean-100/19/198/19-198-0001.TextGrid"
    lines = [line.strip() for line in grid.read_text().split('name = "phones"')[1].splitlines()]
    value = lambda key: [line.split(" = ")[1].strip('"') for line in lines if line.startswith(f"{key} =")]  # noqa: E731
    by_hand = list(zip(value("text"), map(float, value("xmin")[1:]), map(float, value("xmax")[1:]), strict=True))
    intervals = phones.read_textgrid(grid)
    assert [i[0] for i in intervals] == [i[0] for i in by_hand]
    np.testing.assert_allclose([i[1:] for i in intervals], [i[1:] for i in by_hand], atol=1e-5)
    times = np.arange(700) / 50 + 0.01
    index = phones.at(times, *(np.array([i[k] for i in intervals]) for k in (1, 2)))
    for time, found in zip(times, index, strict=True):
        ticks = round(100_000 * time)
        assert ([] if found < 0 else [by_hand[found][0]]) == [
            x for x, a, b in by_hand if round(100_000 * a) <= ticks < round(100_000 * b)
        ]
