"""Fetching what a study needs and this machine lacks: speech, alignments and weights, whole and checked or not at all."""

import os
import re
import shutil
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pooch
import requests
from torchaudio.datasets import librispeech

from rvqprobe import codecs, corpus, params
from rvqprobe.progress import bar
from rvqprobe.store import alone

STALLED = 30.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 5
"""Times in a row that a connection may break without a byte more than before."""
PAUSE = 2.0
"""Seconds before the first new attempt; each further one waits twice as long."""
BUSY = (429, 500, 502, 503, 504)
"""Statuses of a server that may do better later."""
UNPACKED = 1.1
"""Times its archive's size that a corpus of FLAC files may take when it is unpacked."""
MB = 1e6
CHUNK = 1 << 16
"""Bytes read at once; what a broken connection has sent of one more is lost."""
SPEECH = {
    url.rsplit("/", 1)[1].removesuffix(".tar.gz"): (url, digest) for url, digest in librispeech._CHECKSUMS.items()
} | {
    "train-clean-5": (
        "http://www.openslr.org/resources/31/train-clean-5.tar.gz",
        "md5:5df7d4e78065366204ca6845bb08f490",
    )
}
"""By subset: its archive's address, and its sha256 (as torchaudio has it) or MD5 (as OpenSLR publishes it)."""
TEXTGRID = re.compile(r"(?:^|/)([a-z]+-[a-z]+-?\d*)/(\d+)/(\d+)/(\2-\3-\d+\.TextGrid)$")
"""A TextGrid's place in an archive, under whatever folder: subset, speaker, chapter, file."""


class FetchError(RuntimeError):
    """Something that could not be fetched or unpacked; the message says why and what to do."""


@dataclass(frozen=True)
class Item:
    """One file to download."""

    what: str
    url: str
    digest: str
    """As pooch has it: a sha256, or ``md5:…``."""
    path: Path
    """Where it will lie; an archive until it is unpacked."""
    subset: str | None = None
    """Of an archive of speech: the folder that it becomes, beside it."""


def items(study: Mapping[str, Any]) -> list[Item]:
    """Return what ``study`` needs and lacks, the alignments aside, which nobody may download for the user.

    Raises FetchError for a subset of which no address is known.
    """
    found, corpus_dir, subset = [], params.path(study["corpus_dir"]), study["subset"]
    if not corpus.has_speech(corpus_dir, subset):
        if (corpus_dir / subset).exists():
            raise FetchError(f"{corpus_dir / subset} is there, but without speech: move it away, and fetch again")
        if subset not in SPEECH:
            raise FetchError(f"no address is known of the speech of {subset}; known are {', '.join(SPEECH)}")
        url, digest = SPEECH[subset]
        found.append(Item(f"speech of {subset}", url, digest, corpus_dir / f"{subset}.tar.gz", subset))
    for codec in study["codecs"]:
        if (checkpoint := codecs.checkpoint(codec)) is not None:
            path = params.path(study["checkpoints_dir"]) / checkpoint.file
            if not (path.is_file() and path.stat().st_size == checkpoint.size):
                found.append(Item(f"weights of {codec}", checkpoint.url, checkpoint.sha256, path))
    return found


def fetch(study: Mapping[str, Any], alignments: Path | None) -> None:
    """Download and unpack what ``study`` lacks, and take in the TextGrids of the archive ``alignments``.

    Raises FetchError where that fails, MissingInput where something is still missing.
    """
    if alignments is not None:
        _require_archive(alignments)
    wanted = items(study)
    for item in wanted:
        with alone(item.path.parent / ".fetching"):
            _clear(item.path.parent)
    sizes = {item.path: _size(item) for item in wanted}
    _make_room(wanted, sizes)
    for item in wanted:
        with alone(item.path.parent / ".fetching"):
            if item.subset is not None and corpus.has_speech(item.path.parent, item.subset):
                continue  # another run was quicker
            download(item, sizes[item.path])
            if item.subset is not None:
                unpack_speech(item.path, item.subset)
                item.path.unlink()
        print(f"{item.what}: in {item.path.parent}")
    corpus_dir, grids, subset = params.path(study["corpus_dir"]), params.path(study["alignments_dir"]), study["subset"]
    if alignments is not None:
        print(f"TextGrids of {', '.join(unpack_alignments(alignments, grids))}: in {grids}")
    corpus.require(corpus_dir, grids, subset)
    print("All that the study needs is there.")


def _size(item: Item) -> int:
    """Return the size in bytes that the server says, 0 where it says none; FetchError where there is no such file."""
    try:
        answer = requests.head(item.url, allow_redirects=True, timeout=STALLED, headers={"Accept-Encoding": "identity"})
    except requests.RequestException:
        return 0  # the download will tell
    if answer.status_code in (403, 404, 410):
        raise FetchError(f"{item.url} answers {answer.status_code}: the {item.what} is not there any more")
    return int(answer.headers.get("Content-Length", 0)) if answer.ok else 0


def _make_room(wanted: list[Item], sizes: Mapping[Path, int]) -> None:
    """Say how much disk the downloads take; FetchError where there is less."""
    if not wanted:
        return
    disks: dict[int, tuple[Path, float]] = {}
    load = 0.0
    for item in wanted:
        folder = next(parent for parent in item.path.parents if parent.exists())
        have = sum(file.stat().st_size for file in (_part(item), item.path) if file.exists())
        rest = max(0, sizes[item.path] - have)
        disk = folder.stat().st_dev
        first, need = disks.get(disk, (folder, 0.0))
        disks[disk] = (first, need + rest + (UNPACKED * sizes[item.path] if item.subset else 0))
        load += rest
    print(f"{', '.join(item.what for item in wanted)}: {load / 1e9:.2f} GB to download.")
    for folder, need in disks.values():
        free = shutil.disk_usage(folder).free
        print(f"{need / 1e9:.2f} GB of disk are needed in {folder}, {free / 1e9:.2f} GB are free.")
        if need > free:
            raise FetchError(
                f"too little disk: {need / 1e9:.2f} GB are needed in {folder}, {free / 1e9:.2f} GB are free"
            )


def _part(item: Item) -> Path:
    """Return where an unfinished download waits; one of other content never goes on from it."""
    return item.path.with_name(f".{item.path.name}-{item.digest[-8:]}.part")


def download(item: Item, size: int = 0) -> None:
    """Download an item to its path, going on where an earlier attempt broke off; it is there whole and checked, or not.

    Raises FetchError where the server refuses, keeps breaking off, or sends other bytes.
    """
    try:
        pooch.retrieve(
            item.url, item.digest, fname=item.path.name, path=item.path.parent,
            downloader=lambda url, file, _: _stream(item, Path(file), size),
        )  # fmt: skip
    except ValueError as error:  # pooch's, for a digest that differs
        raise FetchError(
            f"{item.url} sent other bytes than those of {item.digest}; they are removed: try again later"
        ) from error


def _stream(item: Item, file: Path, size: int) -> None:
    part, breaks, reached = _part(item), 0, -1
    with bar(size / MB, item.what, "MB") as progress:
        while True:
            try:
                _receive(item, part, progress)
                os.replace(part, file)
                return
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                now = part.stat().st_size if part.exists() else 0
                breaks, reached = (0 if now > reached else breaks + 1), max(now, reached)
                if breaks >= ATTEMPTS:
                    raise FetchError(
                        f"{item.url} broke off {breaks} times at {reached:,} bytes ({error}); what is there is kept: run the same "
                        "command again later"
                    ) from error
                time.sleep(PAUSE * 2**breaks)


def _receive(item: Item, part: Path, progress: Any) -> None:
    """Append to ``part`` what the server sends from there on; a requests exception where it breaks off."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(item.url, headers=headers, stream=True, timeout=STALLED) as answer:
        if answer.status_code == 416:  # nothing behind what is there: the digest will tell whether that is all
            return
        if answer.status_code in BUSY:
            raise requests.ConnectionError(f"status {answer.status_code}")
        if not answer.ok:
            raise FetchError(
                f"{item.url} answers {answer.status_code} {answer.reason}: the {item.what} cannot be had there"
            )
        begin = have if answer.status_code == 206 else 0
        progress.total = (begin + int(answer.headers.get("Content-Length", 0))) / MB
        progress.n = begin / MB
        with part.open("ab" if begin else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                progress.update(len(chunk) / MB)


def unpack_speech(archive: Path, subset: str) -> None:
    """Unpack an archive of LibriSpeech so that the folder ``subset`` beside it is there whole, or not at all.

    Raises FetchError where the archive is broken, lacks the subset, or would write outside its folder.
    """
    with (
        _workshop(archive.parent) as folder,
        archive.open("rb") as raw,
        bar(archive.stat().st_size / MB, "unpack", "MB") as progress,
    ):
        try:
            with tarfile.open(fileobj=raw) as tar:
                for member in tar:
                    tar.extract(member, folder, filter="data")
                    progress.update(raw.tell() / MB - progress.n)
        except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
            raise FetchError(f"{archive} cannot be unpacked: {error}") from error
        if not (folder / "LibriSpeech" / subset).is_dir():
            raise FetchError(f"{archive} holds no LibriSpeech/{subset}")
        for text in (folder / "LibriSpeech").glob("*.TXT"):
            text.replace(archive.parent / text.name)
        (folder / "LibriSpeech" / subset).replace(archive.parent / subset)


def unpack_alignments(archive: Path, alignments_dir: Path) -> list[str]:
    """Unpack the TextGrids of a zip or tar archive into ``alignments_dir/<subset>/…``; return the subsets.

    Nothing else of the archive is read, whatever its names say. A subset that is there already stays as it is. Raises
    FetchError where the archive is missing or broken, or holds no TextGrid in folders of subset, speaker and chapter.
    """
    _require_archive(archive)
    with (
        alone(alignments_dir / ".fetching"),
        _workshop(alignments_dir) as folder,
        bar(0, "TextGrids", "file") as progress,
    ):
        try:
            for name, content in _members(archive):
                if found := TEXTGRID.search(name):
                    place = folder.joinpath(*found.groups())
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content.read())
                    progress.update()
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
            raise FetchError(f"{archive} cannot be unpacked: {error}") from error
        subsets = sorted(place.name for place in folder.iterdir())
        if not subsets:
            raise FetchError(f"{archive} holds no <subset>/<speaker>/<chapter>/<utterance>.TextGrid")
        for subset in subsets:
            if not (alignments_dir / subset).exists():
                (folder / subset).replace(alignments_dir / subset)
        return subsets


def _require_archive(archive: Path) -> None:
    if not archive.is_file():
        raise FetchError(f"{archive} does not exist: download the alignments first, and name the archive that you got")


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each file of an archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if not name.endswith("/"):
                    with packed.open(name) as content:
                        yield name, content
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and (file := tar.extractfile(member)) is not None:
                    yield member.name, file


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """Yield an empty folder in ``folder`` that is gone afterwards; those that a killed run left are removed first."""
    _clear(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as name:
        yield Path(name)


def _clear(folder: Path) -> None:
    """Remove what a killed run was unpacking in ``folder``; whoever calls this holds its lock, so that none is at it now."""
    for left in folder.glob(".unpacking-*"):
        shutil.rmtree(left)
