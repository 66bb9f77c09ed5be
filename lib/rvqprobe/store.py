"""Where everything lies on disk, how it is written (whole or not at all) and what it was made from."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


class MissingInput(FileNotFoundError):
    """Something that an earlier step or the user has to provide; the message says what, where and how."""


@dataclass(frozen=True)
class Layout:
    """The files of one study, ``results_dir/<study>/…``; the only place that knows their names."""

    results_dir: Path
    study: str

    @property
    def folder(self) -> Path:
        return self.results_dir / self.study

    @property
    def split(self) -> Path:
        """The utterance table with its parts (01_split)."""
        return self.folder / "split.parquet"

    @property
    def split_json(self) -> Path:
        """The split, its label classes and what it was made from, readable; written last (01_split)."""
        return self.folder / "split.json"

    @property
    def lock(self) -> Path:
        """Held while the split is made."""
        return self.folder / ".lock"

    @property
    def phones(self) -> Path:
        """The phone intervals of all utterances (01_split)."""
        return self.folder / "phones.parquet"

    @property
    def quarantine(self) -> Path:
        """Files of the corpus that could not be used, or not wholly (01_split)."""
        return self.folder / "quarantine.parquet"

    @property
    def metrics(self) -> Path:
        """The metrics of all codecs (04_report)."""
        return self.folder / "metrics.parquet"

    def tokens(self, codec: str) -> Path:
        """The folder of a codec's token table (02_encode)."""
        return self.folder / "tokens" / codec

    def listening(self, codec: str, utterance: str) -> Path:
        """An utterance as it sounds from some of a codec's layers (02_encode)."""
        return self.folder / "listening" / codec / f"{utterance}.parquet"

    def probes(self, codec: str) -> Path:
        """The folder of a codec's probes (03_probe)."""
        return self.folder / "probes" / codec

    def probe(self, codec: str, layer: int, task: str) -> Path:
        """One fitted probe; ``layer`` counts from 1."""
        return self.probes(codec) / f"probe_{codec}_layer{layer}_{task}.npz"

    def codec_metrics(self, codec: str) -> Path:
        """One codec's metrics; written last (03_probe)."""
        return self.probes(codec) / "metrics.parquet"

    def recalls(self, codec: str) -> Path:
        """Recall of each phone and broad class by layer (03_probe)."""
        return self.probes(codec) / "recalls.parquet"

    def confusion(self, codec: str) -> Path:
        """Held-out tokens by task, layer, true and predicted class (03_probe)."""
        return self.probes(codec) / "confusion.parquet"

    def cluster_sums(self, codec: str) -> Path:
        """What the linear probes said of the held-out tokens, summed by cluster (03_probe)."""
        return self.probes(codec) / "clusters.npz"

    def require(self, path: Path, notebook: str) -> Path:
        """Return ``path``, or raise MissingInput naming the ``notebook`` that makes it."""
        if not path.exists():
            raise MissingInput(f"{path} is missing: run the notebook {notebook} of the study {self.study!r} first")
        return path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``: whoever asks for it next waits. A process that dies gives it back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_table(table: pl.DataFrame, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a table as Parquet, with ``metadata`` in its footer."""
    with atomic(path) as temporary:
        table.write_parquet(temporary, metadata=metadata)


def write_json(content: Any, path: Path) -> None:
    """Write ``content`` as JSON for people to read."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_arrays(path: Path, compressed: bool = False, **arrays: np.ndarray) -> None:
    """Write arrays as npz; object arrays, which would need a pickle, raise ValueError."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read an npz without unpickling anything."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key(*parts: Any) -> str:
    """Return the sha256 of anything that JSON can hold: the key of a cache made from ``parts``."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def reuse_or_make(path: Path, made_from: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays in ``path`` if they carry the key ``made_from``; otherwise ``make`` and save them."""
    if path.exists():
        arrays = read_arrays(path)
        if str(arrays.pop("made_from", "")) == made_from:
            return arrays
    arrays = make()
    write_arrays(path, made_from=np.array(made_from), **arrays)
    return arrays


def code_digest(*files: str | Path) -> str:
    """Return a key of the content of source files: part of the key of what they make."""
    return key(sorted({file_digest(Path(file)) for file in files}))


def array_digest(array: np.ndarray) -> str:
    """Return the sha256 of an array's type, shape and content."""
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
