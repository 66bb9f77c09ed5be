"""Players: what is heard is what the codec decodes from the layers that are named, in few bytes."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile
import torch
from encodec import EncodecModel

from conftest import ROOT
from rvqprobe import audio, corpus, encoding, examples, listening, params, split
from rvqprobe.split import Split
from rvqprobe.store import Layout
from rvqprobe.tokens import Tokens

CORPUS = ROOT / "lib" / "demo" / "LibriSpeech"
ALIGNMENTS = ROOT / "lib" / "demo" / "alignments"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Layout, Split, object, Tokens]:
    """Tokens of one voice of the demo from an EnCodec with made-up weights."""
    folder = tmp_path_factory.mktemp("listening")
    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.data.normal_(0, 2.0)  # large, so that a random decoder's output depends on the codes
    torch.save(model.state_dict(), folder / "made_up.th")
    codec = folder / "made_up.yaml"
    codec.write_text("module: rvqprobe.codecs.encodec\nweights: made_up.th\n")
    assert params.is_trained(str(codec))
    layout = Layout(folder, "study")
    found, quarantine = corpus.scan(CORPUS, ALIGNMENTS, "demo")
    options = {"eval_fraction": 0.25, "seed": 1, "silence": "class", "stress": "strip"}
    made, _ = split.make(layout, split.choose(found, 12, 1), quarantine, ALIGNMENTS, options, 1, False)
    built = encoding.build_codec(str(codec), made, layout, CORPUS, folder, "cpu", 0.0, 1)
    return layout, made, built, encoding.encode(str(codec), built, made, layout, CORPUS, 60.0, 400.0, 1)


def heard(html: str) -> dict[str, tuple[np.ndarray, int]]:
    """By name, the sound of each player of a page."""
    found = re.findall(r"aria-label='([^']+)' src='data:audio/mpeg;base64,([^']+)'", html)
    return {name: soundfile.read(io.BytesIO(base64.b64decode(mp3))) for name, mp3 in found}


def likeness(mp3: np.ndarray, original: np.ndarray) -> float:
    """The correlation of two sounds where they fit best; an encoder of MP3 adds a delay."""
    size = min(len(mp3), len(original))
    spectra = np.fft.rfft(mp3[:size], 2 * size), np.fft.rfft(original[:size], 2 * size)
    at_best = np.abs(np.fft.irfft(spectra[0] * spectra[1].conj())).max()
    return float(at_best / np.linalg.norm(mp3[:size]) / np.linalg.norm(original[:size]))


def test_players_play_the_layers_that_they_name(study: tuple) -> None:
    layout, made, built, table = study
    assert listening.make(built, table, made, layout, CORPUS, 1) == 1  # one speaker, so one utterance
    (utterance,) = listening.chosen(made, 1)
    page = listening.players([str(layout.results_dir / "made_up.yaml")], made, layout, 1).data
    sounds = heard(page)
    names = ["original", "layer 1", "layers 1–2", "layers 1–4", "layers 1–8", "layers 2–8"]
    assert list(sounds) == [f"{utterance}, made_up, {name}" for name in names] and len(page) < 500_000
    codes = table.frame().filter(utterance=utterance).collect().select(r"^q\d$").to_numpy()
    path = made.utterances.filter(utterance=utterance)["path"][0]
    original = audio.read(CORPUS / path, built.sample_rate).waveform
    layers = [[1], [1, 2], [1, 2, 3, 4], list(range(1, 9)), list(range(2, 9))]
    truths = [original, *(built.decode(codes, of) for of in layers)]
    for number, (mp3, rate) in enumerate(sounds.values()):
        assert rate == built.sample_rate and abs(len(mp3) - len(original)) < 0.15 * rate
        assert max(range(6), key=lambda other: likeness(np.diff(mp3), np.diff(truths[other]))) == number
    assert likeness(sounds[f"{utterance}, made_up, original"][0], original) > 0.98


def test_what_is_there_is_not_made_again_unless_its_codes_change(study: tuple, monkeypatch) -> None:
    layout, made, built, table = study
    listening.make(built, table, made, layout, CORPUS, 1)
    (file,) = layout.listening("made_up", "x").parent.glob("*.parquet")
    before = file.stat().st_mtime_ns
    assert listening.make(built, table, made, layout, CORPUS, 1) == 1 and file.stat().st_mtime_ns == before
    monkeypatch.setattr(listening, "SECONDS", 1.0)
    assert listening.make(built, table, made, layout, CORPUS, 1) == 1 and file.stat().st_mtime_ns > before
    shorter = heard(listening.players([str(layout.results_dir / "made_up.yaml")], made, layout, 1).data)
    assert all(len(sound) < 1.2 * rate for sound, rate in shorter.values())


def test_without_trained_weights_there_is_a_sentence(study: tuple) -> None:
    layout, made, *_ = study
    assert "nothing to listen to" in listening.players(["logmel_rvq"], made, layout, 1).data


def test_variants_are_never_empty_nor_twice_the_same() -> None:
    assert listening.variants(1) == {"layer 1": [1]}
    assert listening.variants(4) == {
        "layer 1": [1],
        "layers 1–2": [1, 2],
        "layers 1–4": [1, 2, 3, 4],
        "layers 2–4": [2, 3, 4],
    }


def test_examples_show_what_the_table_holds(study: tuple) -> None:
    layout, made, _, table = study
    frame = table.frame().collect()
    name = frame["utterance"][0]
    drawn = examples.utterance("made_up", name, made, layout, CORPUS)
    mine = frame.filter(utterance=name)
    assert [list(row) for row in drawn.data[-1].z] == [mine[f"q{layer}"].to_list() for layer in (1, 2, 3, 4)]
    code = int(frame["q1"].mode()[0])
    page = examples.code("made_up", 1, code, made, layout, CORPUS).data
    theirs = frame.filter(q1=code)
    assert f"layer 1, code {code}: {theirs.height:,} tokens" in page
    assert 1 <= len(heard(page)) == min(examples.HEARD, theirs.height)
    assert all(0.3 < len(sound) / rate < 1.2 for sound, rate in heard(page).values())
    top = theirs["phone"].value_counts(sort=True)["count"][0]
    assert f"<td style='text-align:right'>{top}</td>" in page
    with pytest.raises(ValueError, match="layers 1 to 8 with codes 0 to 1023"):
        examples.code("made_up", 9, 0, made, layout, CORPUS)
    with pytest.raises(ValueError, match="did you mean"):
        examples.utterance("made_up", name + "x", made, layout, CORPUS)
