"""The embedded corpus: what it has to be, and that its script makes it again."""

import importlib
import subprocess
import sys
from itertools import groupby, pairwise

import numpy as np
import pytest
import soundfile

from conftest import ROOT
from rvqprobe import __main__ as command
from rvqprobe import corpus, params, phones

DEMO = ROOT / "lib" / "demo"
sys.path.insert(0, str(DEMO))
make = importlib.import_module("make")


def test_it_is_small_and_varied_enough() -> None:
    found, quarantine = corpus.scan(DEMO / "LibriSpeech", DEMO / "alignments", "demo")
    assert quarantine.is_empty() and found["speaker"].n_unique() >= 6
    assert found.group_by("speaker").len()["len"].min() >= 12
    assert found["seconds"].min() >= 2 and found["seconds"].max() <= 4
    assert {sex for _, _, sex in make.VOICES.values()} == {"F", "M"}
    intervals, unreadable = phones.read(found, DEMO / "alignments", 1)
    assert unreadable.is_empty()
    assert {phones.phoneme_class(label) for label in intervals["phone"]} == set(phones.PHONEMES)
    assert sum(file.stat().st_size for file in DEMO.rglob("*")) < 8e6


def test_every_alignment_ends_with_its_audio_and_has_words() -> None:
    for grid in DEMO.rglob("*.TextGrid"):
        audio = DEMO / "LibriSpeech" / grid.relative_to(DEMO / "alignments").with_suffix(".flac")
        intervals = phones.read_textgrid(grid)
        assert intervals[-1][2] == pytest.approx(soundfile.info(audio).duration, abs=1e-4)
        assert all(a[2] == pytest.approx(b[1]) for a, b in pairwise(intervals))
        assert 'name = "words"' in grid.read_text()


def test_every_sentence_is_read_once() -> None:
    sentences = (DEMO / "sentences.txt").read_text().splitlines()
    assert sorted(sentence for *_, sentence in make.utterances()) == sorted(sentences) and len(set(sentences)) == 72


@pytest.mark.needs("voices")
def test_the_script_makes_it_again(tmp_path) -> None:
    """The first utterance of each voice, sample by sample and mark by mark."""
    for speaker, mine in groupby(make.utterances(), key=lambda u: u[0]):
        _, chapter, name, sentence = next(mine)
        samples, grid = make.apart(speaker, sentence)
        place = f"demo/{speaker}/{chapter}/{name}"
        soundfile.write(tmp_path / "again.flac", samples, make.RATE, subtype="PCM_16")
        again, kept = (
            soundfile.read(f, dtype="int16")[0]
            for f in (tmp_path / "again.flac", DEMO / "LibriSpeech" / f"{place}.flac")
        )
        assert np.array_equal(again, kept)
        grid.write(str(tmp_path / "again.TextGrid"))
        assert (tmp_path / "again.TextGrid").read_text() == (DEMO / "alignments" / f"{place}.TextGrid").read_text()


def test_it_is_what_runs_with_nothing_said() -> None:
    study = params.load_study(command.DEFAULT_STUDY, {})
    assert study["codecs"] == ["encodec-untrained", "speechtokenizer-untrained", "logmel_rvq"]
    assert study == {
        p.name: p.default for p in params.PARAMETERS
    }  # so a notebook alone, with its defaults, finds its results
    assert subprocess.run(["git", "-C", ROOT, "check-ignore", "-q", DEMO / "make.py"], check=False).returncode == 1
