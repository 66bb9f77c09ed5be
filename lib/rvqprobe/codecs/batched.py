"""Batches that are exact: the forward pass of a SEANet encoder over utterances of any lengths, each as if it were alone.

Zero-padding a batch would change its codes: the packages' convolutions reflect-pad each utterance at its own ends, by an
amount that depends on its length, and SpeechTokenizer's LSTM runs backwards from its end. Here each utterance's ends are
reflected in place and the LSTM runs on packed sequences; what lies beyond an utterance's end is never read. The modules
are the packages' own (``encodec.modules`` and ``speechtokenizer.modules``), and so are their weights.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def plan(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return batches of indices into ``lengths`` (samples), each of at most ``most`` padded samples (but one utterance).

    Utterances of like length go together, the longest first, so that a batch that fits means that the later ones do.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= most:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def encode(model: Any, waveforms: Sequence[np.ndarray], layers: int, device: str) -> list[np.ndarray]:
    """Return the codes (T, ``layers``) that ``model`` gives each waveform (samples,) alone, from one pass over all.

    Where the device has not enough memory, the batch is halved and tried again; an utterance that does not fit alone
    raises ``torch.OutOfMemoryError``.
    """
    try:
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        batch = torch.zeros(len(waveforms), 1, int(lengths.max()))
        for row, waveform in zip(batch, waveforms, strict=True):
            row[0, : len(waveform)] = torch.from_numpy(waveform)
        with torch.inference_mode():
            latents, frames = forward(model.encoder, batch.to(device), lengths)
            codes = model.quantizer.vq.encode(latents, n_q=layers).cpu().numpy()
        return [codes[:, item, :count].T for item, count in enumerate(frames.tolist())]
    except torch.OutOfMemoryError:
        if len(waveforms) == 1:
            raise
    torch.cuda.empty_cache()  # outside the handler, whose traceback would hold the batch
    middle = (len(waveforms) + 1) // 2
    return encode(model, waveforms[:middle], layers, device) + encode(model, waveforms[middle:], layers, device)


def forward(module: nn.Module, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what ``module`` makes of ``x`` (B, C, T), of which item b has ``lengths[b]`` steps (on the CPU), and its lengths.

    Beyond an item's length the result holds nothing of meaning.
    """
    match type(module).__name__:
        case "SEANetEncoder":
            return forward(module.model, x, lengths)
        case "Sequential":
            for part in module.children():
                x, lengths = forward(part, x, lengths)
            return x, lengths
        case "SEANetResnetBlock":
            inner, lengths = forward(module.block, x, lengths)
            return forward(module.shortcut, x, lengths)[0] + inner, lengths
        case "SConv1d":
            return _convolve(module, x, lengths)
        case "SLSTM":
            return _recur(module, x, lengths), lengths
    return module(x), lengths  # step by step: activations and affine maps


def _convolve(module: Any, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Do as ``SConv1d.forward`` does, item by item: pad each at its own ends, then convolve all at once."""
    conv = module.conv.conv
    kernel, stride, dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
    total = (kernel - 1) * dilation - (stride - 1)
    frames = (lengths - kernel + total + stride - 1).div(stride, rounding_mode="floor") + 1
    extra = (frames - 1) * stride + kernel - total - lengths
    right = (0 if module.causal else total // 2) + extra
    left = total if module.causal else total - total // 2
    padded = _reflect(x, lengths, left, right) if left or int(right.max()) else x
    steps = (lengths + left + right - (kernel - 1) * dilation - 1) // stride + 1
    return module.conv(padded), steps


def _reflect(x: torch.Tensor, lengths: torch.Tensor, left: int, right: torch.Tensor) -> torch.Tensor:
    """Reflect each item of ``x`` (B, C, T) at its ends: ``left`` steps before and ``right[b]`` after.

    An item that is too short for its reflection is taken to be followed by zeros, as in the packages' ``pad1d``.
    """
    most = int(right.max())
    mirrored = torch.maximum(lengths, torch.maximum(right, torch.tensor(left)) + 1)[:, None]
    before = torch.arange(left, 0, -1).expand(len(x), -1)
    after = lengths[:, None] + torch.arange(most)
    source = torch.cat([before, torch.where(after < mirrored, after, 2 * (mirrored - 1) - after)], dim=1)
    target = torch.cat([torch.arange(left).expand(len(x), -1), left + after], dim=1)
    there = ((source < lengths[:, None]) & (source >= 0)).to(x.device)[:, None]
    source = source.clamp(0, x.shape[2] - 1).to(x.device)[:, None].expand(-1, x.shape[1], -1)
    target = target.to(x.device)[:, None].expand(-1, x.shape[1], -1)
    return pad(x, (left, most)).scatter_(2, target, x.gather(2, source) * there)


def _recur(module: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Do as ``SLSTM.forward`` does, on packed sequences."""
    steps = x.permute(2, 0, 1)
    packed = pack_padded_sequence(steps, lengths, enforce_sorted=False)
    y, _ = pad_packed_sequence(module.lstm(packed)[0], total_length=len(steps))
    if getattr(module, "bidirectional", False):
        steps = steps.repeat(1, 1, 2)
    return (y + steps if module.skip else y).permute(1, 2, 0)
