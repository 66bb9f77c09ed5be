import json
import shutil

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_textgrid
from rvqprobe import corpus, phones, split
from rvqprobe.params import ParameterError
from rvqprobe.store import Layout, MissingInput


def utterances(counts: list[int]) -> pl.DataFrame:
    names = [(f"{s}-1-{u:04d}", str(s), f"{s}1", 10.0) for s, n in enumerate(counts) for u in range(n)]
    return pl.DataFrame(names, ["utterance", "speaker", "chapter", "seconds"], orient="row")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.floats(0.01, 0.9), st.integers(0, 5))
def test_every_speaker_is_divided_by_itself(counts: list[int], fraction: float, seed: int) -> None:
    table = split.divide(utterances(counts), fraction, seed)
    for speaker, n in enumerate(counts):
        mine = table.filter(speaker=str(speaker))
        held_out = mine.filter(part="eval").height
        assert held_out == min(max(1, round(fraction * n)), n - 1)
        alone = split.divide(utterances(counts).filter(speaker=str(speaker)), fraction, seed)
        assert alone.equals(mine)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(10, 200), st.integers(0, 5))
def test_chosen_speakers_are_whole_and_large_enough(counts: list[int], most: int, seed: int) -> None:
    table = utterances(counts)
    if max(counts) < split.FEWEST:
        with pytest.raises(ParameterError, match="max_utterances"):
            split.choose(table, most, seed)
        return
    chosen = split.choose(table, most, seed)
    assert chosen.height <= most
    for (speaker,), mine in chosen.group_by("speaker"):
        assert mine.height == min(counts[int(speaker)], max(split.FEWEST, most // 5)) >= split.FEWEST
    assert split.choose(table, 0, seed).equals(table)


def test_another_seed_gives_another_split() -> None:
    table = utterances([40, 40])
    first, again, other = (split.divide(table, 0.1, seed)["part"] for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)


OPTIONS = {"eval_fraction": 0.1, "seed": 42, "silence": "class", "stress": "strip"}


def make(corpus_dir, force=False, **options):
    layout = Layout(corpus_dir / "results", "tiny")
    found, quarantine = corpus.scan(corpus_dir / "audio", corpus_dir / "grids", "tiny")
    return *split.make(layout, found, quarantine, corpus_dir / "grids", OPTIONS | options, 1, force), layout


def test_a_split_is_reused_until_something_changes(corpus_dir) -> None:
    made, note, layout = make(corpus_dir)
    assert "none was saved" in note
    assert made.classes == {"phoneme": ["AA", "S", "sil"], "speaker": ["10", "20", "30"]}
    readable = json.loads(layout.split_json.read_text())
    assert len(readable["train"]) == 33 and len(readable["eval"]) == 3 and readable["classes"] == made.classes
    assert make(corpus_dir)[1].startswith("Reused")
    assert "force_resplit" in make(corpus_dir, force=True)[1]
    assert "have changed" in make(corpus_dir, seed=43)[1]
    assert "have changed" in make(corpus_dir)[1]
    grid = next((corpus_dir / "grids").rglob("*.TextGrid"))
    write_textgrid(grid, [("AA1", 0, 0.4), ("", 0.4, 1.0)])
    assert "have changed" in make(corpus_dir)[1]
    next((corpus_dir / "audio").rglob("*.flac")).unlink()
    assert "have changed" in make(corpus_dir)[1]


def test_silence_and_stress_shape_the_classes(corpus_dir) -> None:
    assert make(corpus_dir, silence="drop")[0].classes["phoneme"] == ["AA", "S"]
    assert make(corpus_dir, stress="keep")[0].classes["phoneme"] == ["AA1", "S", "sil"]
    assert make(corpus_dir, stress="keep")[0].phone_classes == {"AA1": "AA1", "S": "S", "": "sil"}


def test_an_interrupted_split_is_none(corpus_dir) -> None:
    _, _, layout = make(corpus_dir)
    layout.split_json.unlink()
    with pytest.raises(MissingInput, match="01_split"):
        split.load(layout)


def test_every_defect_is_in_the_quarantine(corpus_dir) -> None:
    audio, grids = corpus_dir / "audio" / "tiny" / "10" / "105", corpus_dir / "grids" / "tiny" / "10" / "105"
    (audio / "10-105-0000.flac").write_bytes(b"")
    (audio / "10-105-0001.flac").write_text("not audio")
    shutil.move(audio / "10-105-0002.flac", audio / "other.flac")
    (grids / "10-105-0003.TextGrid").unlink()
    (grids / "10-105-0004.TextGrid").write_text("broken")
    write_textgrid(grids / "10-105-0005.TextGrid", [("AA", 0, 1)], tier="words")
    made, _, layout = make(corpus_dir)
    found = {name: (reason, effect) for name, _, reason, effect in split.quarantined(layout).iter_rows()}
    assert {name for name, (_, effect) in found.items() if effect == corpus.LEFT_OUT} == {
        "10-105-0000",
        "10-105-0001",
        "other",
    }
    assert {name for name, (_, effect) in found.items() if effect == corpus.NO_PHONES} == {
        f"10-105-000{n}" for n in (3, 4, 5)
    }
    assert "readable as audio" in found["10-105-0001"][0] and "begin with 10-105-" in found["other"][0]
    assert (
        "no TextGrid" in found["10-105-0003"][0]
        and "not readable" in found["10-105-0004"][0]
        and "phones" in found["10-105-0005"][0]
    )
    assert made.utterances.height == 33
    aligned = set(pl.read_parquet(layout.phones)["utterance"])
    assert aligned == set(made.utterances["utterance"]) - {f"10-105-000{n}" for n in (3, 4, 5)}


def test_missing_data_says_where_it_was_looked_for_and_how_to_get_it(tmp_path) -> None:
    with pytest.raises(MissingInput, match=rf"looked for {tmp_path}/nowhere/.*fetch STUDY.*-p corpus_dir"):
        corpus.scan(tmp_path, tmp_path, "nowhere")


def test_missing_alignments_say_so(corpus_dir) -> None:
    with pytest.raises(MissingInput, match="librispeech-alignments"):
        corpus.scan(corpus_dir / "audio", corpus_dir / "audio", "tiny")


def test_phoneme_classes() -> None:
    assert len(phones.PHONEMES) == len(set(phones.PHONEMES)) == 40
    said = {label: phones.phoneme_class(label) for label in ("AH0", "AH", "sil", "sp", "", "spn", "XX", "<unk>", "ZH")}
    assert said == {
        "AH0": "AH",
        "AH": "AH",
        "sil": "sil",
        "sp": "sil",
        "": "sil",
        "spn": None,
        "XX": None,
        "<unk>": None,
        "ZH": "ZH",
    }
