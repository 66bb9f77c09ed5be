"""Codecs: what one has to offer, and how one is built from its file in ``params/codecs/``.

A codec is one module with a function ``build(source, **settings)`` that returns a ``Codec``, and one params file that
names the module and gives the settings.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml

from rvqprobe import store
from rvqprobe.params import ROOT, ParameterError, nearest


class Codec(Protocol):
    """A neural or classical codec whose codes are a residual vector quantisation."""

    sample_rate: int
    """Of the audio that it encodes, Hz."""
    frame_rate: float
    """Tokens a second."""
    codebooks: np.ndarray
    """(L, K, D) float32: the embedding of code k in layer l is ``codebooks[l, k]``."""

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the codes (T, L) uint16 of each waveform (samples,) float32; token t covers the t-th hop."""
        ...


@dataclass(frozen=True)
class Source:
    """What a codec may be built from."""

    training_speech: Callable[[int], Iterator[np.ndarray]]
    """Called with a sample rate (Hz): waveforms of some training utterances, the same ones in the same order."""
    training_digest: str
    """Key of those utterances' audio."""
    checkpoints_dir: Path
    """Where weights lie."""
    device: str
    """Where to run: cpu, cuda or mps."""
    seed: int
    """For everything random."""
    cache: Path
    """A file for what is fitted; see ``fitted``."""

    def fitted(self, made_from: Any, fit: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the arrays that ``fit`` yields from the training speech, kept in ``cache``.

        They are fitted anew where the speech, the seed or ``made_from`` (what else shapes them) is not the same.
        """
        return store.reuse_or_make(self.cache, store.key(self.training_digest, self.seed, made_from), fit)


def settings(codec: str) -> dict[str, Any]:
    """Return the content of ``params/codecs/<codec>.yaml`` (or of the file ``codec``), with its module and settings.

    Raises ParameterError where there is no such file, or where the module's ``build`` does not know a setting.
    """
    file = Path(codec) if codec.endswith(".yaml") else ROOT / "params" / "codecs" / f"{codec}.yaml"
    if not file.is_file():
        known = sorted(f.stem for f in file.parent.glob("*.yaml"))
        raise ParameterError(f"no codec {codec!r} ({file} does not exist): {nearest(codec, known)}")
    content = yaml.safe_load(file.read_text())
    if not isinstance(content, dict) or "module" not in content:
        raise ParameterError(f"{file} does not name the codec's module")
    known = list(inspect.signature(_module(content).build).parameters)[1:]
    for setting in content:
        if setting not in ("module", *known):
            raise ParameterError(f"{file}: the codec knows no setting {setting!r}: {nearest(setting, known)}")
    return content


def name(codec: str) -> str:
    """Return the name of a codec that is given by its name or by its params file."""
    return Path(codec).stem if codec.endswith(".yaml") else codec


def build(codec: str, source: Source) -> Codec:
    """Return the codec of the params file ``codec``."""
    content = settings(codec)
    return _module(content).build(source, **{k: v for k, v in content.items() if k != "module"})


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


def fingerprint(codec: str, built: Codec) -> str:
    """Return a key of everything that shapes the codes: settings, codebooks and the code of the module."""
    module = Path(inspect.getfile(_module(settings(codec))))
    return store.key(settings(codec), store.file_digest(module), store.array_digest(built.codebooks))


def _module(content: dict[str, Any]) -> Any:
    return importlib.import_module(content["module"])
