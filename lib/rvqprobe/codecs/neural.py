"""What neural codecs have in common: checkpoints, untrained controls, encoding and decoding."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import nn
from torch.nn.utils import remove_weight_norm

from rvqprobe import rvq, store
from rvqprobe.codecs import Source, batched
from rvqprobe.progress import bar, track
from rvqprobe.store import MissingInput

PRETRAINED, UNTRAINED = "pretrained", "untrained"
BATCH_SECONDS = 600.0
"""Audio that a GPU encodes at once where nothing else is asked for; on no GPU measured yet."""
LATENTS_A_CODE = 30
"""Training latents a code that an untrained codec's codebooks are fitted to."""


class CheckpointError(ValueError):
    """A checkpoint that is not the one it ought to be; the message says where it lies and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint."""

    file: str
    """Its place under ``checkpoints_dir``."""
    size: int
    """Bytes."""
    sha256: str
    url: str
    """Where it is published."""

    def path(self, weights: str, checkpoints_dir: Path) -> Path:
        """Return the file that ``weights`` means: this checkpoint, or the user's own.

        Raises MissingInput where it is not there, CheckpointError where the published one has another size.
        """
        own = weights != PRETRAINED
        path = checkpoints_dir / (weights if own else self.file)
        if not path.is_file():
            remedy = (
                "name an existing file"
                if own
                else f"it is published at {self.url} ({self.size:,} bytes, sha256 {self.sha256})"
            )
            raise MissingInput(f"no weights: looked for {path}; {remedy}, or choose the codec's untrained control")
        if not own and path.stat().st_size != self.size:
            self._refuse(path, store.file_digest(path))
        return path

    def load(self, weights: str, checkpoints_dir: Path) -> tuple[dict[str, Any], str]:
        """Return the state dict that ``weights`` means, and the file's sha256.

        The published checkpoint's sha256 is checked; a user's own is as it is. Nothing is unpickled but tensors.
        Raises CheckpointError where the sha256 differs or the file is no checkpoint.
        """
        path = self.path(weights, checkpoints_dir)
        digest = store.file_digest(path)
        if weights == PRETRAINED and digest != self.sha256:
            self._refuse(path, digest)
        try:
            return torch.load(path, map_location="cpu", weights_only=True), digest
        except Exception as error:  # the unpickler, zipfile and torch each have errors of their own
            raise CheckpointError(
                f"{path} (sha256 {digest}) is no checkpoint that torch can load safely: {error}"
            ) from error

    def _refuse(self, path: Path, digest: str) -> None:
        raise CheckpointError(
            f"{path} is not the published checkpoint: it has {path.stat().st_size:,} bytes and sha256 {digest}, expected "
            f"are {self.size:,} bytes and sha256 {self.sha256}. Remove it and get it again from {self.url}"
        )


@dataclass(frozen=True)
class NeuralCodec:
    """A neural codec behind the protocol ``codecs.Codec``, its model being the package's own class."""

    name: str
    sample_rate: int
    frame_rate: float
    codebooks: np.ndarray
    made_from: str
    device: str
    model: nn.Module
    encode_one: Callable[[torch.Tensor], torch.Tensor]
    """The package's own call: from (1, 1, samples) to codes (L, 1, T)."""
    batch_seconds: float
    """Audio, padding included, that is encoded at once; 0: an utterance at a time."""

    @property
    def plan(self) -> str:
        """Device and batches."""
        return f"{self.device}, {self.batch_seconds:g} s at once"

    def encode(self, waveforms: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the codes (T, L) uint16 of each waveform (samples,) float32."""
        if not self.batch_seconds:
            yield from self.encode_alone(waveforms)
            return
        codes: dict[int, np.ndarray] = {}
        for batch in batched.plan([len(w) for w in waveforms], int(self.batch_seconds * self.sample_rate)):
            found = batched.encode(self.model, [waveforms[i] for i in batch], len(self.codebooks), self.device)
            codes.update(zip(batch, found, strict=True))
        for number in range(len(waveforms)):
            yield codes[number].astype(np.uint16)

    def encode_alone(self, waveforms: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the codes (T, L) uint16 of each waveform (samples,) float32 by the package's own call."""
        for codes in each_waveform(self.encode_one, waveforms, self.device):
            yield codes[:, 0].T.astype(np.uint16)

    def decode(self, codes: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        """Return the audio (samples,) float32 of ``codes`` (T, L) from a set of ``layers``, counted from 1."""
        latents = torch.from_numpy(rvq.decode(codes, self.codebooks, layers)).to(self.device)
        with torch.inference_mode():
            return self.model.decoder(latents.T[None])[0, 0].cpu().numpy()


class Affine(nn.Module):
    """x · scale + shift, channel by channel; x is (batch, channels, time)."""

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map x."""
        return x * self.scale + self.shift[:, None]


def load_weights(model: nn.Module, checkpoint: Checkpoint, weights: str, source: Source) -> str:
    """Load ``weights`` into ``model``, strictly, and return the file's sha256; CheckpointError where they don't fit."""
    state, digest = checkpoint.load(weights, source.checkpoints_dir)
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        path = checkpoint.path(weights, source.checkpoints_dir)
        raise CheckpointError(f"{path} (sha256 {digest}) is a checkpoint of another architecture: {error}") from error
    return digest


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a model with random weights that depend on the seed alone."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # exact float32 from here on
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated")  # the packages' affair
        torch.manual_seed(seed)
        return make().eval()


def fit_untrained(
    model: Any,
    quantizer: Callable[[int], nn.Module],
    rates: tuple[int, float],
    layers: int,
    codebook_size: int,
    source: Source,
) -> str:
    """Give a ``model`` of random weights a quantiser fitted to training speech; return the key of weights and fit.

    The encoder's output is centred and scaled to unit variance by an affine map, which becomes part of the encoder
    (its inverse, of the decoder), and the codebooks of ``quantizer(size)`` are k-means centres of what comes out.
    Random encoders put out a large constant and a tiny spread, in which float32 distances would cancel.
    """
    weights = store.key({name: store.array_digest(value.numpy()) for name, value in model.state_dict().items()})

    size = rvq.affordable(codebook_size, int(source.training_seconds * rates[1]))

    def fit() -> dict[str, np.ndarray]:
        latents = _training_latents(model, rates, min(rvq.MOST_LATENTS, LATENTS_A_CODE * size), source)
        mean = latents.mean(axis=0)
        spread = np.asarray(np.sqrt(np.mean((latents - mean) ** 2)))
        books = rvq.fit((latents - mean) / spread, layers, size, source.seed)
        return {
            "mean": mean,
            "spread": spread,
            "codebooks": np.stack(list(track(books, layers, "k-means", "codebook"))),
        }

    fitted = source.fitted([weights, rates, layers, size, store.code_digest(__file__, rvq.__file__)], fit)
    mean, spread = torch.from_numpy(fitted["mean"]), torch.from_numpy(fitted["spread"])
    model.encoder = nn.Sequential(model.encoder, Affine(1 / spread, -mean / spread))
    model.decoder = nn.Sequential(Affine(spread, mean), model.decoder)
    model.quantizer = quantizer(size)
    for layer, codebook in zip(model.quantizer.vq.layers, fitted["codebooks"], strict=True):
        layer._codebook.embed.data.copy_(torch.from_numpy(codebook))
    return store.key(weights, {name: store.array_digest(value) for name, value in fitted.items()})


def each_waveform(
    function: Callable[[torch.Tensor], torch.Tensor], waveforms: Iterable[np.ndarray], device: str
) -> Iterator[np.ndarray]:
    """Yield ``function`` of each waveform (samples,), given as (1, 1, samples), one utterance at a time.

    On a CPU one thread a core takes an utterance each, which is faster than all cores on one utterance (measured on two
    cores: 2.1 times for EnCodec, 1.4 for SpeechTokenizer), and makes the result independent of the number of cores.
    """

    def run(waveform: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return function(torch.from_numpy(waveform).to(device)[None, None]).cpu().numpy()

    if device != "cpu":
        yield from map(run, waveforms)
        return
    with ThreadPoolExecutor(joblib.cpu_count(), initializer=lambda: torch.set_num_threads(1)) as pool:
        yield from pool.map(run, waveforms)


def _training_latents(model: Any, rates: tuple[int, float], most: int, source: Source) -> np.ndarray:
    """Return the encoder's output (N, D) on training speech, up to ``most`` of it."""
    model.to(source.device)
    speech = source.training_speech(rates[0])
    latents: list[np.ndarray] = []
    with bar(most, "training latents", "latent") as progress:
        while sum(map(len, latents)) < most and (group := list(islice(speech, 8 * joblib.cpu_count()))):
            for output in each_waveform(model.encoder, group, source.device):
                latents.append(output[0].T[: most - sum(map(len, latents))])
                progress.update(len(latents[-1]))
    return np.concatenate(latents)


def finish(
    model: Any, encode_one: Callable[[torch.Tensor], torch.Tensor], layers: int, rates: tuple[int, float], made_from: str,
    source: Source,
) -> NeuralCodec:  # fmt: skip
    """Return the codec of a complete ``model``: on its device, in exact float32, with the first ``layers`` codebooks."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)  # the same weights, computed once and not for each utterance
    model.eval().to(source.device)
    books = torch.stack([layer.codebook for layer in model.quantizer.vq.layers[:layers]]).cpu().numpy()
    batch_seconds = source.batch_seconds or (0.0 if source.device == "cpu" else BATCH_SECONDS)
    return NeuralCodec(source.name, *rates, books, made_from, source.device, model, encode_one, batch_seconds)
