"""Encoding that is never done twice and never wrong: kills, parts, processes side by side."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from conftest import write_textgrid
from rvqprobe import corpus, encoding, phones, split, store, tokens
from rvqprobe.corpus import TooManyDefects
from rvqprobe.params import ParameterError, part
from rvqprobe.store import Layout, MissingInput
from test_split import OPTIONS
from test_tokens import Toy, contents, encode

RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from rvqprobe import corpus, encoding, split
from rvqprobe.store import Layout
from test_split import OPTIONS
from test_tokens import Toy

class Slow(Toy):
    def encode(self, waveforms):
        for codes in super().encode(waveforms):
            time.sleep(0.05)
            yield codes

folder = Path(sys.argv[1])
layout = Layout(folder / sys.argv[3], "killed")
encoding.SHARD_SECONDS = 3.0
found, quarantine = corpus.scan(folder / "audio", folder / "grids", "tiny")
made, _ = split.make(layout, found, quarantine, folder / "grids", OPTIONS, 1)
built, shard = Slow(), tuple(map(int, sys.argv[4:6]))
print()
print("started", flush=True)
encoding.encode("logmel_rvq", built, made, layout, folder / "audio", 60.0, 400.0, 1, shard)
print("encoded", built.encoded)
"""


def start(folder: Path, results: str, shard: tuple[int, int] = (1, 1)) -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(folder), str(Path(__file__).parent), results, *map(str, shard)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def await_start(process: subprocess.Popen) -> float:
    """Wait until a run has its imports and its split behind it, and return the time, seconds."""
    assert process.stdout is not None
    while process.stdout.readline() != "started\n":
        assert process.poll() is None
    return time.monotonic()


def outcome(process: subprocess.Popen) -> int:
    """Wait for a run to end well and return how many utterances it encoded."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return int(out.split()[-1])


def kept(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if not name.startswith(".")}


def test_kill_9_at_random_points_changes_nothing(corpus_dir: Path) -> None:
    first = start(corpus_dir, "undisturbed")
    whole = -await_start(first)
    assert outcome(first) == 36
    whole += time.monotonic()
    undisturbed = Layout(corpus_dir / "undisturbed", "killed")
    expected = kept(undisturbed.tokens("logmel_rvq"))
    layout = Layout(corpus_dir / "disturbed", "killed")
    rng, kills, shards = random.Random(0), 0, []
    while True:
        process = start(corpus_dir, "disturbed")
        await_start(process)
        try:
            process.wait((0.45, 0.2)[kills] * whole if kills < 2 else rng.uniform(0.3, 0.8) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, err = process.communicate(timeout=60)
        finished = layout.tokens("logmel_rvq").glob("tokens-*.parquet")
        times = {path.name: path.stat().st_mtime_ns for path in finished}
        assert all(times[name] == when for name, when in (shards[-1] if shards else {}).items())  # none was made twice
        shards.append(times)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        assert kills < 30
    assert kills >= 2 and len({len(times) for times in shards}) >= 2
    assert kept(layout.tokens("logmel_rvq")) == expected
    for name in ("split.parquet", "phones.parquet", "quarantine.parquet"):
        assert (layout.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()


def test_two_processes_on_one_folder_do_not_corrupt_each_other(corpus_dir: Path) -> None:
    assert outcome(start(corpus_dir, "alone")) == 36
    both = [start(corpus_dir, "shared") for _ in range(2)]
    assert all(outcome(process) <= 36 for process in both)
    alone, shared = (Layout(corpus_dir / name, "killed").tokens("logmel_rvq") for name in ("alone", "shared"))
    assert contents(shared) == contents(alone)


def test_parts_share_the_work_and_the_whole_is_the_same(corpus_dir: Path) -> None:
    whole = encode(corpus_dir, Toy())
    expected = contents(whole.shards[0].parent)
    for path in whole.shards:
        path.unlink()
    done = []
    for number in (2, 1, 3):
        built = Toy()
        partial = encode(corpus_dir, built, shard=(number, 3))
        done.append(built.encoded)
        layout = Layout(corpus_dir / "results", "tiny")
        if number != 3:
            assert 0 < len(partial.shards) < len(whole.shards)
            with pytest.raises(MissingInput, match=r"\d of 4 shards are missing .* every part"):
                tokens.load(layout, "logmel_rvq")
    assert sum(done) == 36 and all(done)
    assert contents(whole.shards[0].parent) == expected


def test_parts_made_with_other_settings_do_not_pass_for_one_table(corpus_dir: Path) -> None:
    encode(corpus_dir, Toy(), shard=(1, 2))
    encode(corpus_dir, Toy(), f0_min=70.0, shard=(2, 2))
    with pytest.raises(MissingInput, match="2 of 4 shards are missing"):
        tokens.load(Layout(corpus_dir / "results", "tiny"), "logmel_rvq")


def test_a_part_without_work_says_so(corpus_dir: Path) -> None:
    with pytest.raises(ParameterError, match="'5 of 5': the speech makes 4 shards"):
        encode(corpus_dir, Toy(), shard=(5, 5))


@pytest.mark.parametrize("wrong", ["1", "0 of 2", "3 of 2", "a of b", "1/2"])
def test_a_part_is_i_of_n(wrong: str) -> None:
    with pytest.raises(ParameterError, match="has to be"):
        part(wrong)
    assert part("2 of 4") == (2, 4)


def test_saved_codes_are_compared_with_the_simplest_call(corpus_dir: Path) -> None:
    built = Toy()
    table = encode(corpus_dir, built)
    made = split.load(Layout(corpus_dir / "results", "tiny"))
    same = encoding.agreement(built, table, made, corpus_dir / "audio", 0)
    assert (
        len(same) == encoding.CHECKED and same["equal"].to_list() == [1.0] * 5 and set(same["first_differing"]) == {""}
    )

    class Other(Toy):
        def encode_alone(self, waveforms):
            for codes in self.encode(waveforms):
                changed = codes.copy()
                changed[3, 1] += 1
                changed[7] += 1
                yield changed

    same = encoding.agreement(Other(), table, made, corpus_dir / "audio", 0)
    assert same["equal"].to_list() == pytest.approx([23 / 25] * 5) and set(same["first_differing"]) == {"1: 1, 2: 1"}


def test_shards_hold_utterances_of_like_length(corpus_dir: Path) -> None:
    """Lengths as in LibriSpeech: a shard's longest utterance, padded to, wastes under 5 %."""
    rng = np.random.default_rng(0)
    seconds = np.minimum(rng.gamma(9, 1.41, 3000), 24.5).tolist()
    rows = [{"utterance": str(i), "seconds": s, "path": "none", "textgrid_sha256": ""} for i, s in enumerate(seconds)]
    rows.sort(key=lambda row: -row["seconds"])
    encoding.SHARD_SECONDS, before = 600.0, encoding.SHARD_SECONDS
    plan = encoding._plan(rows, corpus_dir, corpus_dir, [], 1)
    encoding.SHARD_SECONDS = before
    padded = sum(len(part) * max(row["seconds"] for row in part) for _, part in plan)
    assert 1 - sum(seconds) / padded < 0.05 and len(plan) > 50


def test_text_grids_that_lie_are_quarantined(corpus_dir: Path) -> None:
    grids = corpus_dir / "grids/tiny/10/105"
    write_textgrid(grids / "10-105-0001.TextGrid", [("AA1", 0, 0.5), ("S", 0.5, 1.6)])  # the audio lasts 1 s
    write_textgrid(grids / "10-105-0002.TextGrid", [("AA1", 0, 0.5), ("Q", 0.5, 0.8), ("spn", 0.8, 1.0)])
    found, quarantine = corpus.scan(corpus_dir / "audio", corpus_dir / "grids", "tiny")
    intervals, unusable = phones.read(found, corpus_dir / "grids", 1)
    assert {name: (reason, effect) for name, _, reason, effect in unusable.iter_rows()} == {
        "10-105-0001": ("another length than the audio: 1.60 s and 1.00 s", corpus.NO_PHONES),
        "10-105-0002": ("unknown phones: Q", corpus.FEWER_PHONES),
    }
    assert "10-105-0001" not in intervals["utterance"].to_list()
    assert intervals.filter(utterance="10-105-0002")["phone"].to_list() == ["AA1", "Q", "spn"]
    layout = Layout(corpus_dir / "results", "tiny")
    made, _ = split.make(layout, found, quarantine, corpus_dir / "grids", OPTIONS, 1)
    table = encode(corpus_dir, Toy(), made).frame().collect()
    assert table.filter(utterance="10-105-0001")["phone"].null_count() == 25
    assert "Q" not in made.phone_classes


def test_clipped_audio_is_quarantined(corpus_dir: Path) -> None:
    path = corpus_dir / "audio/tiny/10/105/10-105-0004.flac"
    sound, rate = soundfile.read(path)
    soundfile.write(path, np.clip(20 * sound, -1, 1), rate)
    table = encode(corpus_dir, Toy())
    ((name, _, reason, effect),) = table.quarantine.iter_rows()
    assert name == "10-105-0004" and reason.startswith("clipped: ") and effect == corpus.LEFT_OUT


def test_too_many_defects_stop_the_run() -> None:
    rows = [(str(i), f"{i}.flac", "no sample in the file" if i else "clipped: 3 %", corpus.LEFT_OUT) for i in range(3)]
    quarantine = pl.DataFrame(rows, corpus.QUARANTINE, orient="row")
    corpus.tolerate(quarantine, 300, 0.01)
    corpus.tolerate(quarantine[:0], 0, 0.0)
    told = r"3 of 299 .*2 × no sample in the file; 1 × clipped.*0.flac.*-p max_quarantined 0.02"
    with pytest.raises(TooManyDefects, match=told):
        corpus.tolerate(quarantine, 299, 0.01)


def test_a_lock_is_given_back_by_whoever_dies(tmp_path: Path) -> None:
    code = f"from rvqprobe import store; import time; from pathlib import Path\nwith store.alone(Path({str(tmp_path / 'lock')!r})): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    began = time.monotonic()
    with store.alone(tmp_path / "lock"):
        assert time.monotonic() - began < 10
    holder.wait()


def test_the_manifest_says_what_was_encoded(corpus_dir: Path) -> None:
    table = encode(corpus_dir, Toy())
    about = json.loads((table.shards[0].parent / "tokens.json").read_text())
    assert about["utterances"] == 36 and about["shards"] == [path.name for path in table.shards]
    assert table.about["tokens"] == 36 * 25 and table.about["frame_rate"] == 25
