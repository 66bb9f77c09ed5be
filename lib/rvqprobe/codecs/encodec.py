"""EnCodec, 24 kHz, 75 tokens a second (Défossez et al. 2022, arXiv 2210.13438), through its package's model."""

from pathlib import Path
from typing import Any

import torch
from encodec import EncodecModel
from encodec.model import ROOT_URL
from encodec.quantization import ResidualVectorQuantizer

from rvqprobe.codecs import Source
from rvqprobe.codecs.neural import UNTRAINED, Checkpoint, NeuralCodec, finish, fit_untrained, load_weights, seeded

CHECKPOINT = Checkpoint(
    file="encodec_24khz-d7cc33bc.th",
    size=93_171_529,
    sha256="d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf",
    url=ROOT_URL + "encodec_24khz-d7cc33bc.th",
)
LAYERS = 8
"""At 6 kbps: of the model's 32 codebooks the first 8, 10 bits and 75 tokens a second each."""


def require(checkpoints_dir: Path, weights: str, **_: Any) -> None:
    """Raise MissingInput or CheckpointError where the weights are not there."""
    if weights != UNTRAINED:
        CHECKPOINT.path(weights, checkpoints_dir)


def build(source: Source, weights: str, codebook_size: int = 1024) -> NeuralCodec:
    """Return the codec with ``weights`` pretrained, untrained, or of a checkpoint under ``checkpoints_dir``.

    ``codebook_size`` is that of the untrained control; trained codebooks have their own.
    """
    model: Any = seeded(lambda: EncodecModel.encodec_model_24khz(pretrained=False), source.seed)
    rates = (int(model.sample_rate), float(model.frame_rate))
    if weights == UNTRAINED:

        def quantizer(size: int) -> ResidualVectorQuantizer:
            return ResidualVectorQuantizer(model.encoder[0].dimension, LAYERS, size)

        made_from = fit_untrained(model, quantizer, rates, LAYERS, codebook_size, source)
    else:
        made_from = load_weights(model, CHECKPOINT, weights, source)
        model.set_target_bandwidth(6.0)

    def encode_one(waveform: torch.Tensor) -> torch.Tensor:
        ((codes, _),) = model.encode(waveform)
        return codes.transpose(0, 1)

    return finish(model, encode_one, LAYERS, rates, made_from, source)
