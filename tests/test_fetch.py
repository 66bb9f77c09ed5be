"""Downloads from a server that misbehaves, and archives that do."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import ROOT, write_textgrid
from rvqprobe import __main__ as command
from rvqprobe import corpus, fetch, params
from rvqprobe.fetch import FetchError, Item
from rvqprobe.store import MissingInput

CONTENT = np.random.default_rng(0).bytes(3_000_000)
PIECE = 1 << 20


class Server(ThreadingHTTPServer):
    """Serves ``content`` in one of several bad ways; ``asked`` has what each request began from."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.manner, self.asked = CONTENT, "well", []
        self.allow = threading.Event()

    def item(self, folder: Path, digest: str = "", subset: str | None = None) -> Item:
        url = f"http://127.0.0.1:{self.server_port}/file"
        return Item("thing", url, digest or hashlib.sha256(self.content).hexdigest(), folder / "thing.bin", subset)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        content, manner = self.server.content, self.server.manner
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if self.command == "GET":
            self.server.asked.append(begin)
        asked = len(self.server.asked)
        if manner == "404" or manner == "503" or (manner == "503 twice" and asked <= 2 and self.command == "GET"):
            self.send_error(int(manner[:3]))
            return
        if manner == "no ranges":
            begin = 0
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        wrong = bytes(reversed(content)) if manner == "wrong" else content
        if manner == "breaks" or (manner in ("stalls", "no ranges") and asked == 1):
            self.wfile.write(wrong[begin : begin + PIECE])
            self.wfile.flush()
            if manner == "stalls":
                self.server.allow.wait(10)
            self.close_connection = True
            return
        self.wfile.write(wrong[begin:])


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch, "PAUSE", 0.01)
    monkeypatch.setattr(fetch, "STALLED", 1.0)
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.allow.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("manner", "asked"),
    [
        ("well", [0]),
        ("breaks", [0, PIECE, 2 * PIECE]),
        ("stalls", [0, PIECE]),
        ("no ranges", [0, PIECE]),
        ("503 twice", [0, 0, 0]),
    ],
)
def test_a_bad_connection_goes_on_where_it_broke(server: Server, tmp_path: Path, manner: str, asked: list[int]) -> None:
    server.manner = manner
    item = server.item(tmp_path)
    fetch.download(item, fetch._size(item))
    assert item.path.read_bytes() == CONTENT and server.asked == asked
    assert [file.name for file in tmp_path.iterdir()] == ["thing.bin"]


def test_an_interrupted_download_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    item = server.item(tmp_path)
    fetch._part(item).write_bytes(CONTENT[:1234])
    fetch.download(item)
    assert item.path.read_bytes() == CONTENT and server.asked == [1234]
    fetch._part(item).write_bytes(CONTENT)  # whole, but killed before it was checked
    item.path.unlink()
    fetch.download(item)
    assert item.path.read_bytes() == CONTENT and server.asked == [1234, len(CONTENT)]
    fetch.download(item)  # there already: nothing is asked for
    assert len(server.asked) == 2


def test_wrong_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    server.manner = "wrong"
    with pytest.raises(FetchError, match="sent other bytes than those of"):
        fetch.download(server.item(tmp_path))
    assert not list(tmp_path.iterdir())
    server.manner = "well"
    fetch.download(server.item(tmp_path, "md5:" + hashlib.md5(CONTENT).hexdigest()))
    assert (tmp_path / "thing.bin").read_bytes() == CONTENT


def test_refusals_are_told(server: Server, tmp_path: Path) -> None:
    server.manner = "404"
    with pytest.raises(FetchError, match="answers 404"):
        fetch._size(server.item(tmp_path))
    with pytest.raises(FetchError, match="answers 404 Not Found: the thing cannot be had there"):
        fetch.download(server.item(tmp_path))
    assert server.asked == [0]  # at once
    server.manner = "503"
    with pytest.raises(FetchError, match=r"broke off 5 times at 0 bytes \(status 503\).*run the same command again"):
        fetch.download(server.item(tmp_path))
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match="broke off 5 times"):
        fetch.download(server.item(tmp_path))


def test_too_little_disk_is_refused_beforehand(server: Server, tmp_path: Path, capsys) -> None:
    item = server.item(tmp_path / "data")
    with pytest.raises(FetchError, match="too little disk"):
        fetch._make_room([item], {item.path: 10**15})
    assert "1000000.00 GB to download" in capsys.readouterr().out
    there = server.item(tmp_path / "data", subset="dev")
    there.path.parent.mkdir()
    there.path.write_bytes(CONTENT)  # an archive that was fetched, but killed while it was unpacked
    fetch._make_room([there], {there.path: len(CONTENT)})
    assert "0.00 GB to download" in capsys.readouterr().out
    fetch._make_room([item], {item.path: 3_000_000})
    fetch._make_room([], {})


def flac(seed: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(seed).normal(size=16000) * 0.1, 16000, format="FLAC")
    return file.getvalue()


def speech(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in names.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return file.getvalue()


def archive_of_speech() -> bytes:
    folder = "LibriSpeech/train-clean-100/19/198"
    return speech(
        {"LibriSpeech/SPEAKERS.TXT": b"19 | F"} | {f"{folder}/19-198-{n:04d}.flac": flac(n) for n in range(3)}
    )


def test_a_study_gets_all_it_needs(server: Server, tmp_path: Path, monkeypatch, capsys) -> None:
    server.content = archive_of_speech()
    url = f"http://127.0.0.1:{server.server_port}/train-clean-100.tar.gz"
    monkeypatch.setattr(fetch, "SPEECH", {"train-clean-100": (url, hashlib.sha256(server.content).hexdigest())})
    grid = tmp_path / "one.TextGrid"
    write_textgrid(grid, [("AA1", 0, 1.0)])
    with zipfile.ZipFile(tmp_path / "grids.zip", "w") as packed:
        for number in range(3):
            packed.write(
                grid, f"LibriSpeech-Alignments/LibriSpeech/train-clean-100/19/198/19-198-{number:04d}.TextGrid"
            )
    arguments = [
        "train-clean-100",
        "-p",
        "codecs",
        "[logmel_rvq]",
        "-p",
        "corpus_dir",
        str(tmp_path / "speech"),
        "-p",
        "alignments_dir",
        str(tmp_path / "grids"),
    ]
    assert command.main(arguments) == 1
    assert "To get what the study needs: ./run_all.sh fetch train-clean-100" in capsys.readouterr().err
    assert server.asked == []  # a run downloads nothing
    assert command.main(["fetch", *arguments]) == 1
    told = capsys.readouterr()
    assert "GB to download" in told.out and "fetch STUDY --alignments ARCHIVE" in told.err
    assert command.main(["fetch", *arguments, "--alignments", str(tmp_path / "grids.zip")]) == 0
    assert server.asked == [0] and (tmp_path / "speech" / "SPEAKERS.TXT").read_text() == "19 | F"
    found, quarantine = corpus.scan(tmp_path / "speech", tmp_path / "grids", "train-clean-100")
    assert found.height == 3 and quarantine.is_empty() and not list(tmp_path.glob("*/.unpacking-*"))
    assert not (tmp_path / "speech" / "train-clean-100.tar.gz").exists()
    assert command.main(["fetch", *arguments]) == 0 and server.asked == [0]


def test_what_the_studies_need_has_an_address() -> None:
    for name in ("train-clean-5", "train-clean-100", "train-clean-360", "sanity"):
        study = params.load_study(name, {"corpus_dir": "/nowhere", "checkpoints_dir": "/nowhere"})
        speech, encodec, speechtokenizer = fetch.items(study)
        assert speech.url.endswith(f"/{study['subset']}.tar.gz") and speech.path == Path(
            f"/nowhere/{study['subset']}.tar.gz"
        )
        assert encodec.url.endswith("/encodec/v0/encodec_24khz-d7cc33bc.th") and encodec.digest.startswith("d7cc33bc")
        assert "fnlp/SpeechTokenizer/resolve/main/speechtokenizer_hubert_avg/SpeechTokenizer.pt" in speechtokenizer.url
    assert fetch.items(params.load_study("demo", {})) == []
    with pytest.raises(FetchError, match="no address is known of the speech of mine"):
        fetch.items(params.load_study("demo", {"subset": "mine"}))


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside-rvqprobe.txt", "LibriSpeech/../../outside.txt"])
def test_unpacking_cannot_write_outside(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "x.tar.gz").write_bytes(speech({"LibriSpeech/dev/1/2/1-2-3.flac": b"1", name: b"evil"}))
    try:
        fetch.unpack_speech(inside / "x.tar.gz", "dev")
    except FetchError as error:
        assert "outside" in str(error) and not (inside / "dev").exists()
    assert (
        not [file for file in tmp_path.rglob("outside*") if inside not in file.parents]
        and not Path("/tmp/outside-rvqprobe.txt").exists()
    )
    with zipfile.ZipFile(inside / "grids.zip", "w") as packed:
        packed.writestr(name, "evil")
        packed.writestr("../../dev-clean/1/2/1-2-0003.TextGrid", "grid")
    assert fetch.unpack_alignments(inside / "grids.zip", inside / "grids") == ["dev-clean"]
    assert [str(f.relative_to(inside / "grids")) for f in inside.rglob("*.TextGrid")] == [
        "dev-clean/1/2/1-2-0003.TextGrid"
    ]


def test_broken_archives_leave_nothing(tmp_path: Path) -> None:
    whole = archive_of_speech()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetch.unpack_speech(tmp_path / "x.tar.gz", "train-clean-100")
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetch.unpack_alignments(tmp_path / "x.tar.gz", tmp_path)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("dev-clean/1/2/1-2-0003.TextGrid", "grid " * 1000)
    broken = bytearray((tmp_path / "bad.zip").read_bytes())
    broken[70:80] = bytes(10)
    (tmp_path / "bad.zip").write_bytes(broken)
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetch.unpack_alignments(tmp_path / "bad.zip", tmp_path)
    (tmp_path / "bad.zip").unlink()
    (tmp_path / "x.tar.gz").write_bytes(whole)
    with pytest.raises(FetchError, match="holds no LibriSpeech/train-clean-360"):
        fetch.unpack_speech(tmp_path / "x.tar.gz", "train-clean-360")
    with pytest.raises(FetchError, match="holds no <subset>"):
        fetch.unpack_alignments(tmp_path / "x.tar.gz", tmp_path)
    with pytest.raises(FetchError, match="does not exist"):
        fetch.unpack_alignments(tmp_path / "y.zip", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"x.tar.gz", ".fetching"}


def test_a_killed_unpacking_is_begun_anew(tmp_path: Path) -> None:
    left = tmp_path / ".unpacking-killed"
    left.mkdir()
    (tmp_path / "x.tar.gz").write_bytes(archive_of_speech())
    fetch.unpack_speech(tmp_path / "x.tar.gz", "train-clean-100")
    assert not left.exists() and len(list((tmp_path / "train-clean-100").glob("19/198/*.flac"))) == 3


def test_kill_9_in_the_middle_of_a_download(server: Server, tmp_path: Path) -> None:
    server.manner = "stalls"
    item = server.item(tmp_path)
    code = f"from pathlib import Path; from rvqprobe import fetch; fetch.download(fetch.Item('thing', {item.url!r}, {item.digest!r}, Path({str(item.path)!r})))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not (fetch._part(item).exists() and fetch._part(item).stat().st_size):
            time.sleep(0.05)
        process.kill()
    fetch.download(item)
    assert (
        item.path.read_bytes() == CONTENT
        and server.asked[1] == os.path.getsize(item.path) - (len(CONTENT) - server.asked[1]) > 0
    )


def test_alignments_are_found_beside_the_audio_and_under_another_subset(tmp_path: Path) -> None:
    place = Path("train-clean-5/19/198/19-198-0000")
    (tmp_path / "speech" / place.parent).mkdir(parents=True)
    (tmp_path / "speech" / place).with_suffix(".flac").write_bytes(flac(0))
    with pytest.raises(MissingInput, match="no alignments of train-clean-5"):
        corpus.require(tmp_path / "speech", tmp_path / "grids", "train-clean-5")
    homes = [
        tmp_path / "speech" / place,
        tmp_path / "grids" / "train-clean-100" / place.relative_to("train-clean-5"),
        tmp_path / "grids" / place,
    ]
    for home in homes:  # each is preferred to those before it
        write_textgrid(home.with_suffix(".TextGrid"), [(home.parts[-4], 0, 1.0)])
        found, quarantine = corpus.scan(tmp_path / "speech", tmp_path / "grids", "train-clean-5")
        assert quarantine.is_empty()
        assert (tmp_path / "grids" / found["textgrid"][0]).resolve() == home.with_suffix(".TextGrid").resolve()
