"""Codecs: what one has to offer, and how one is built from its file in ``params/codecs/``.

A codec is one module with a function ``build(source, **settings)`` that returns a ``Codec`` (and, where it needs files, a
function ``require(checkpoints_dir, **settings)`` that raises if they are missing), and one params file that names the
module and gives the settings.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml

from rvqprobe import rvq, store
from rvqprobe.params import ParameterError, codec_file, nearest


class Codec(Protocol):
    """A neural or classical codec whose codes are a residual vector quantisation."""

    name: str
    """That of its params file."""
    sample_rate: int
    """Of the audio that it encodes, Hz."""
    frame_rate: float
    """Tokens a second."""
    codebooks: np.ndarray
    """(L, K, D) float32: the embedding of code k in layer l is ``codebooks[l, k]``."""

    made_from: str
    """Key of what shapes the codes beside settings and codebooks: the sha256 of weights, say."""

    plan: str
    """Where and how it runs: a frame that lies between two codes may fall to another one on another device or in another
    batch."""

    def encode(self, waveforms: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
        """Return the codes (T, L) uint16 of each waveform (samples,) float32; token t covers the t-th hop."""
        ...

    def encode_alone(self, waveforms: Sequence[np.ndarray]) -> Iterable[np.ndarray]:
        """Return the same, an utterance at a time, by the simplest way there is: what ``encode`` is checked against."""
        ...

    def decode(self, codes: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        """Return the audio (samples,) float32 of codes (T, L) from any set of ``layers``, counted from 1."""
        ...


@dataclass(frozen=True)
class Source:
    """What a codec may be built from."""

    name: str
    """Of the codec."""
    training_speech: Callable[[int], Iterator[np.ndarray]]
    """Called with a sample rate (Hz): waveforms of some training utterances, the same ones in the same order."""
    training_seconds: float
    """How much speech that is."""
    training_digest: str
    """Key of those utterances' audio."""
    checkpoints_dir: Path
    """Where weights lie."""
    device: str
    """Where to run: cpu, cuda or mps."""
    batch_seconds: float
    """Audio, padding included, to encode at once; 0 leaves it to the codec."""
    seed: int
    """For everything random."""
    cache: Path
    """A file for what is fitted; see ``fitted``."""

    def fitted(self, made_from: Any, fit: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays that ``fit`` yields from the training speech, kept in ``cache``.

        They are fitted anew where the speech, the seed or ``made_from`` (what else shapes them) is not the same.
        """
        with store.alone(self.cache.with_suffix(".lock")):  # parts that begin together fit once
            return store.reuse_or_make(self.cache, store.key(self.training_digest, self.seed, made_from), fit)


def settings(codec: str) -> dict[str, Any]:
    """Return the content of ``params/codecs/<codec>.yaml`` (or of the file ``codec``), with its module and settings.

    Raises ParameterError where there is no such file, or where the module's ``build`` does not know a setting.
    """
    file = codec_file(codec)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "module" not in content:
        raise ParameterError(f"{file} does not name the codec's module")
    known = list(inspect.signature(_module(content).build).parameters)[1:]
    for setting in content:
        if setting not in ("module", *known):
            raise ParameterError(f"{file}: the codec knows no setting {setting!r}: {nearest(setting, known)}")
    return content


def build(codec: str, source: Source) -> Codec:
    """Return the codec of the params file ``codec``."""
    content = settings(codec)
    return _module(content).build(source, **_arguments(content))


def device(wanted: str) -> str:
    """Return the device to run on: ``wanted``, or for "auto" the best that is there.

    Raises ParameterError where the wanted one is missing.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    if not there[wanted]:
        raise ParameterError(f"parameter device = {wanted!r}: torch {torch.__version__} finds no such device here")
    return wanted


def require(codec: str, checkpoints_dir: Path) -> None:
    """Raise MissingInput, or what else the codec's module finds amiss, where its weights are not there."""
    content = settings(codec)
    if hasattr(_module(content), "require"):
        _module(content).require(checkpoints_dir, **_arguments(content))


def checkpoint(codec: str) -> Any:
    """Return the published checkpoint (``neural.Checkpoint``) that a codec needs, None where it needs none."""
    content = settings(codec)
    return getattr(_module(content), "CHECKPOINT", None) if content.get("weights") == "pretrained" else None


def fingerprint(codec: str, built: Codec) -> str:
    """Return a key of everything that shapes the codes: settings, weights, codebooks, plan, code and packages."""
    content = settings(codec)
    code = store.code_digest(*Path(__file__).parent.glob("*.py"), rvq.__file__, inspect.getfile(_module(content)))
    packages = [version(name) for name in ("torch", "torchaudio", "encodec", "speechtokenizer")]
    return store.key(content, built.made_from, built.plan, store.array_digest(built.codebooks), code, packages)


def _module(content: dict[str, Any]) -> Any:
    return importlib.import_module(content["module"])


def _arguments(content: dict[str, Any]) -> dict[str, Any]:
    return {setting: value for setting, value in content.items() if setting != "module"}
