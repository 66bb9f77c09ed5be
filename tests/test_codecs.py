"""The neural codecs against their packages' own calls, on checkpoints of the right structure made on the spot."""

import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from encodec import EncodecModel
from speechtokenizer import SpeechTokenizer

from rvqprobe import codecs, params, store, study
from rvqprobe.codecs import encodec, logmel_rvq, neural, speechtokenizer
from rvqprobe.codecs.neural import Checkpoint, CheckpointError
from rvqprobe.measures import TASK_METRICS
from rvqprobe.params import ROOT
from rvqprobe.store import Layout, MissingInput
from test_notebooks import printed

SMALL = {
    **speechtokenizer.CONFIG,
    "n_filters": 4,
    "dimension": 32,
    "semantic_dimension": 24,
    "codebook_size": 50,
    "n_q": 3,
}


def speech(sample_rate: int, count: int = 6):
    """A few seconds of something like voices: harmonics that come and go, with noise."""
    rng = np.random.default_rng(5)
    for length in rng.uniform(0.6, 1.4, count):
        time = np.arange(int(length * sample_rate)) / sample_rate
        tone = sum(np.sin(2 * np.pi * k * rng.uniform(90, 220) * time) / k for k in range(1, 9))
        yield (0.1 * tone * np.sin(3 * time) ** 2 + rng.normal(size=len(time)) * 0.01).astype(np.float32)


def source(folder: Path, seed: int = 42, batch_seconds: float = 0.0) -> codecs.Source:
    return codecs.Source("mine", speech, 400.0, "speech", folder, "cpu", batch_seconds, seed, folder / "fitted.npz")


@pytest.fixture(scope="module")
def encodec_checkpoint(tmp_path_factory) -> Path:
    """A state dict of EnCodec's structure, its codebooks scaled to the random encoder's output."""
    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.data.normal_(0, 0.02)
    path = tmp_path_factory.mktemp("checkpoints") / encodec.CHECKPOINT.file
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def small_speechtokenizer(tmp_path: Path) -> Path:
    return small_checkpoint(tmp_path)


def small_checkpoint(folder: Path) -> Path:
    """Write a state dict and a config of SpeechTokenizer's structure, small."""
    torch.manual_seed(0)
    model = SpeechTokenizer(SMALL)
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.data.normal_(0, 0.1)
    torch.save(model.state_dict(), folder / "own.pt")
    (folder / "config.json").write_text(json.dumps(SMALL))
    return folder / "own.pt"


def published(path: Path) -> Checkpoint:
    return Checkpoint(path.name, path.stat().st_size, store.file_digest(path), "somewhere")


def test_encodec_is_its_packages(encodec_checkpoint: Path, monkeypatch) -> None:
    monkeypatch.setattr(encodec, "CHECKPOINT", published(encodec_checkpoint))
    built = encodec.build(source(encodec_checkpoint.parent), "pretrained")
    oracle = EncodecModel.encodec_model_24khz(pretrained=False)
    oracle.load_state_dict(torch.load(encodec_checkpoint, weights_only=True))
    oracle.set_target_bandwidth(6.0)
    assert built.codebooks.shape == (8, 1024, 128) and (built.sample_rate, built.frame_rate) == (24000, 75.0)
    assert built.made_from == store.file_digest(encodec_checkpoint)
    waveforms = list(speech(24000))
    with torch.inference_mode():
        for waveform, codes in zip(waveforms, built.encode(waveforms), strict=True):
            ((expected, _),) = oracle.encode(torch.from_numpy(waveform)[None, None])
            assert codes.dtype == np.uint16 and codes.shape == (-(-len(waveform) // 320), 8)
            assert np.mean(codes == expected[0].T.numpy()) > 0.999
        decoded = oracle.decode([(torch.from_numpy(codes.T.astype(np.int64))[None], None)])[0, 0].numpy()
    np.testing.assert_allclose(built.decode(codes, range(1, 9)), decoded, atol=1e-5)
    with torch.inference_mode():  # any set of layers: the decoder on the sum of their embeddings
        chosen = [
            oracle.quantizer.vq.layers[k - 1].decode(torch.from_numpy(codes[None, :, k - 1].astype(np.int64)))
            for k in (2, 5)
        ]
        np.testing.assert_allclose(built.decode(codes, [2, 5]), oracle.decoder(sum(chosen))[0, 0].numpy(), atol=1e-6)


def test_speechtokenizer_is_its_packages(small_speechtokenizer: Path) -> None:
    built = speechtokenizer.build(source(small_speechtokenizer.parent), "own.pt", "config.json")
    oracle = SpeechTokenizer(SMALL).eval()
    oracle.load_state_dict(torch.load(small_speechtokenizer, weights_only=True))
    assert built.codebooks.shape == (3, 50, 32) and (built.sample_rate, built.frame_rate) == (16000, 50.0)
    assert built.made_from == store.file_digest(small_speechtokenizer)
    waveforms = list(speech(16000))
    with torch.inference_mode():
        for waveform, codes in zip(waveforms, built.encode(waveforms), strict=True):
            expected = oracle.encode(torch.from_numpy(waveform)[None, None])[:, 0].T.numpy()
            assert codes.shape == expected.shape and np.mean(codes == expected) > 0.999
        decoded = oracle.decode(torch.from_numpy(codes.T.astype(np.int64))[:, None])[0, 0].numpy()
        part = oracle.decode(torch.from_numpy(codes.T.astype(np.int64))[1:, None], st=1)[0, 0].numpy()
    np.testing.assert_allclose(built.decode(codes, [1, 2, 3]), decoded, atol=1e-5)
    np.testing.assert_allclose(built.decode(codes, [2, 3]), part, atol=1e-5)


def test_a_missing_checkpoint_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        MissingInput,
        match=rf"looked for {tmp_path}/encodec_24khz-d7cc33bc.th; it is published at .*{encodec.CHECKPOINT.sha256}",
    ):
        encodec.require(tmp_path, "pretrained")
    with pytest.raises(MissingInput, match=rf"looked for {tmp_path}/mine.pt"):
        speechtokenizer.require(tmp_path, "mine.pt")
    with pytest.raises(MissingInput, match=rf"no SpeechTokenizer config: looked for {tmp_path}/c.json"):
        speechtokenizer.require(tmp_path, "untrained", "c.json")
    encodec.require(tmp_path, "untrained")


def test_truncated_and_altered_checkpoints_are_refused_with_both_checksums(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"x": torch.zeros(100)}, whole)
    known = Checkpoint("found.pt", whole.stat().st_size, store.file_digest(whole), "somewhere")
    content = bytearray(whole.read_bytes())
    for damaged in (content[:-10], content[:300] + b"!" + content[301:]):
        (tmp_path / "found.pt").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=known.sha256) as refusal:
            known.load("pretrained", tmp_path)
        assert store.file_digest(tmp_path / "found.pt") in str(refusal.value) and "somewhere" in str(refusal.value)
    (tmp_path / "found.pt").write_bytes(content)
    assert known.load("pretrained", tmp_path)[1] == known.sha256


class Malicious:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_but_tensors_is_unpickled(tmp_path: Path, capsys) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Malicious()))
    torch.save({"x": Malicious()}, tmp_path / "evil2.pt")
    for file in ("evil.pt", "evil2.pt"):
        with pytest.raises(CheckpointError, match="no checkpoint that torch can load safely"):
            encodec.CHECKPOINT.load(file, tmp_path)
    assert capsys.readouterr().out == ""


def test_checkpoints_of_another_architecture_are_refused(small_speechtokenizer: Path) -> None:
    with pytest.raises(CheckpointError, match="own.pt .* is a checkpoint of another architecture"):
        encodec.build(source(small_speechtokenizer.parent), "own.pt")


@pytest.mark.parametrize("config", ["config.json"])
def test_untrained_codecs_are_seeded_and_spread_over_their_codes(small_speechtokenizer: Path, config: str) -> None:
    folder = small_speechtokenizer.parent
    built = speechtokenizer.build(source(folder), "untrained", config)
    again = speechtokenizer.build(source(folder), "untrained", config)
    other = speechtokenizer.build(source(folder, seed=43), "untrained", config)
    waveforms = list(speech(16000))
    codes = list(built.encode(waveforms))
    assert all(np.array_equal(a, b) for a, b in zip(codes, again.encode(waveforms), strict=True))
    assert built.made_from == again.made_from != other.made_from
    assert not np.array_equal(codes[0], next(other.encode(waveforms)))
    assert built.codebooks.shape == (3, 50, 32)
    assert min(len(np.unique(np.concatenate(codes)[:, layer])) for layer in range(3)) > 25
    with torch.inference_mode():
        latents = np.concatenate([built.model.encoder(torch.from_numpy(w)[None, None])[0].T for w in waveforms])
    assert 0.5 < latents.std() < 2 and abs(latents.mean()) < 0.3
    assert len(built.decode(codes[0], [1, 3])) == 320 * len(codes[0])


def test_untrained_encodec_has_its_architecture(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(neural, "LATENTS_A_CODE", 10)
    built = encodec.build(source(tmp_path), "untrained", 32)
    assert built.codebooks.shape == (8, 32, 128) and built.frame_rate == 75
    waveform = next(speech(24000))
    (codes,) = built.encode([waveform])
    assert codes.shape == (-(-len(waveform) // 320), 8) and codes.max() < 32


def test_logmel_codes_turn_back_into_the_same_spectrum(tmp_path: Path) -> None:
    built = logmel_rvq.build(source(tmp_path), 4, 64, 40)
    waveform = next(speech(16000))
    (codes,) = built.encode([waveform])
    before = logmel_rvq.logmel(waveform, 40, "cpu").numpy()
    likeness = {}
    for layers in ((1, 2, 3, 4), (4,)):
        sound = built.decode(codes, layers)
        assert len(sound) == 320 * len(codes)
        after = logmel_rvq.logmel(sound, 40, "cpu").numpy()[: len(before)]
        likeness[layers] = np.corrcoef(before[2:-2].ravel(), after[2:-2].ravel())[0, 1]
    assert likeness[1, 2, 3, 4] > 0.6 > 0.4 > likeness[4,]


TOY = '''
"""A toy: seeded random projections of log-mel frames, in 46 layers of 16 codes of 64 dimensions."""
import numpy as np, torch
from rvqprobe import rvq
from rvqprobe.codecs.logmel_rvq import logmel

class Toy:
    sample_rate, frame_rate, made_from, plan = 16000, 50.0, "toy", "cpu"

    def __init__(self, name, spread):
        rng = np.random.default_rng(1)
        self.name, self.mix = name, torch.from_numpy(rng.normal(size=(40, 64)) / 40).float()
        scale = spread * 0.9 ** np.arange(46)[:, None, None]
        self.codebooks = (rng.normal(size=(46, 16, 64)) * scale).astype(np.float32)

    def encode(self, waveforms):
        books = torch.from_numpy(self.codebooks)
        return [rvq.encode(logmel(w, 40, "cpu") @ self.mix, books).numpy().astype(np.uint16) for w in waveforms]

    encode_alone = encode

    def decode(self, codes, layers):
        return np.zeros(320 * len(codes), np.float32)

def build(source, spread):
    return Toy(source.name, spread)
'''


def test_a_further_codec_is_one_module_and_one_params_file(tmp_path: Path, monkeypatch) -> None:
    """46 layers of 16 codes of 64 dimensions, through all four notebooks on the embedded corpus."""
    (tmp_path / "toy_module.py").write_text(TOY)
    (tmp_path / "toy.yaml").write_text("module: toy_module\nspread: 0.3\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    values = params.load_study("demo", {"codecs": [str(tmp_path / "toy.yaml")], "results_dir": str(tmp_path)})
    index = study.run(values, tmp_path / "reports", "again")
    layout = Layout(tmp_path, "demo")
    metrics = pl.read_parquet(layout.metrics)
    own = metrics.filter(probe="linear", input="layer", lag_ms=0)
    named = own.filter(pl.col("metric").is_in([name for names in TASK_METRICS.values() for name in names]))
    assert metrics["layer"].max() == 46 and named.height == 46 * sum(map(len, TASK_METRICS.values()))
    assert pl.read_parquet(layout.tokens("toy") / "*.parquet").width == 4 + 46 + 2
    assert "46 layers of 16 codes in 64 dimensions" in printed(index.parent / "02_encode-toy.ipynb")
    assert store.read_arrays(layout.probe("toy", 46, "speaker"))["coef"].shape == (6, 64)
    pages = {page.name for page in index.parent.glob("*.html")}
    assert pages == {"01_split.html", "02_encode-toy.html", "03_probe-toy.html", "index.html"}
    assert (
        "<strong>These are controls.</strong>" in index.read_text()
        and "./run_all.sh train-clean-100" in index.read_text()
    )
    assert all(page in index.read_text() for page in pages - {"index.html"})


def test_a_study_of_trained_codecs_stops_without_their_weights(tmp_path: Path) -> None:
    values = params.load_study(
        "train-clean-100", {"checkpoints_dir": str(tmp_path), "corpus_dir": str(ROOT / "nowhere")}
    )
    with pytest.raises(MissingInput, match="encodec_24khz-d7cc33bc.th"):
        study.check_inputs(values)
