"""SpeechTokenizer, 16 kHz, 50 tokens a second (Zhang et al. 2023, arXiv 2308.16692), through its package's model."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_url
from speechtokenizer import SpeechTokenizer
from speechtokenizer.quantization import ResidualVectorQuantizer

from rvqprobe.codecs import Source
from rvqprobe.codecs.neural import UNTRAINED, Checkpoint, NeuralCodec, finish, fit_untrained, load_weights, seeded
from rvqprobe.store import MissingInput

CHECKPOINT = Checkpoint(
    file="SpeechTokenizer.pt",
    size=481_906_997,
    sha256="d04593b6c9a4b475f91ca481141a6ef5b23e6ac112f347dd2b2717f193c1c728",
    url=hf_hub_url("fnlp/SpeechTokenizer", "SpeechTokenizer.pt", subfolder="speechtokenizer_hubert_avg"),
)
CONFIG = {
    "n_filters": 64, "strides": [8, 5, 4, 2], "dimension": 1024, "semantic_dimension": 768, "bidirectional": True,
    "dilation_base": 2, "residual_kernel_size": 3, "n_residual_layers": 1, "lstm_layers": 2, "activation": "ELU",
    "sample_rate": 16000, "codebook_size": 1024, "n_q": 8,
}  # fmt: skip
"""Of the published checkpoint speechtokenizer_hubert_avg."""


def require(checkpoints_dir: Path, weights: str, config: str | None = None, **_: Any) -> None:
    """Raise MissingInput or CheckpointError where the weights or the config are not there."""
    if weights != UNTRAINED:
        CHECKPOINT.path(weights, checkpoints_dir)
    read_config(checkpoints_dir, config)


def read_config(checkpoints_dir: Path, config: str | None) -> dict[str, Any]:
    """Return the config.json ``config`` under ``checkpoints_dir``, or the published one for None."""
    if config is None:
        return CONFIG
    path = checkpoints_dir / config
    if not path.is_file():
        raise MissingInput(f"no SpeechTokenizer config: looked for {path}; name the config.json of your checkpoint")
    return json.loads(path.read_text(encoding="utf-8"))


def build(source: Source, weights: str, config: str | None = None, codebook_size: int | None = None) -> NeuralCodec:
    """Return the codec with ``weights`` pretrained, untrained, or of a checkpoint under ``checkpoints_dir``.

    ``config`` is the config.json of another architecture, under ``checkpoints_dir`` too; ``codebook_size`` that of the
    untrained control (as in the config unless given).
    """
    architecture = read_config(source.checkpoints_dir, config)
    model: Any = seeded(lambda: SpeechTokenizer(architecture), source.seed)
    rates, layers = (int(model.sample_rate), float(model.sample_rate / model.downsample_rate)), int(model.n_q)
    if weights == UNTRAINED:

        def quantizer(size: int) -> ResidualVectorQuantizer:
            return ResidualVectorQuantizer(dimension=architecture["dimension"], n_q=layers, bins=size)

        size = codebook_size or architecture["codebook_size"]
        made_from = fit_untrained(model, quantizer, rates, layers, size, source)
    else:
        made_from = load_weights(model, CHECKPOINT, weights, source)
    return finish(model, model.encode, layers, rates, made_from, source)
