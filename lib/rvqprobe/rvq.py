"""Residual vector quantisation: fitting codebooks by k-means, latents to codes, codes to latents."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

FEWEST_LATENTS = 100
"""Training latents there have to be for each code; with less speech there are fewer codes, not emptier ones."""
MOST_LATENTS = 200_000
"""Training latents beyond which more do not help."""


def affordable(codebook_size: int, latents: int) -> int:
    """Return how many codes a layer may have: a power of two, ``FEWEST_LATENTS`` times which there are ``latents``.

    ``codebook_size`` itself where there is enough speech for it.
    """
    room = max(1, latents // FEWEST_LATENTS)
    return codebook_size if codebook_size <= room else 2 ** (room.bit_length() - 1)


def fit(latents: np.ndarray, layers: int, codebook_size: int, seed: int) -> Iterator[np.ndarray]:
    """Yield one codebook after another, (K, D) float32, each fitted by k-means to what the ones before leave over.

    ``latents`` is (N, D), K is ``codebook_size``. The result depends on the seed and the latents, not on the number of
    threads.
    """
    residual = latents.astype(np.float32)
    for layer in range(layers):
        kmeans = MiniBatchKMeans(
            codebook_size,
            init="random",
            n_init=1,
            max_iter=10,
            batch_size=16384,
            max_no_improvement=None,
            random_state=seed + layer,
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # fewer distinct residuals than codes: spare codes repeat
            codebook = kmeans.fit(residual).cluster_centers_.astype(np.float32)
        yield codebook
        residual = residual - codebook[kmeans.predict(residual)]


def encode(latents: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    """Return the codes (T, L) int64 of ``latents`` (T, D): per layer the row nearest to what is left over.

    ``codebooks`` is (L, K, D); of equally near rows the first is taken.
    """
    residual, codes = latents, []
    for codebook in codebooks:
        distance = codebook.square().sum(1) - 2 * residual @ codebook.T
        codes.append(distance.argmin(dim=1))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, dim=1)


def decode(codes: np.ndarray, codebooks: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Return the latents (T, D) of ``codes`` (T, L): the sum of the codebooks' rows over ``layers``, counted from 1."""
    rows = [codebooks[layer - 1][codes[:, layer - 1]] for layer in layers]
    return np.sum(rows, axis=0, dtype=np.float32) if rows else np.zeros((len(codes), codebooks.shape[2]), np.float32)


def first_differing(codes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the first layer, from 1, in which ``codes`` and ``others`` (T, L) differ; 0 where they are equal; (T,)."""
    differs = codes != others
    return np.where(differs.any(axis=1), differs.argmax(axis=1) + 1, 0)


def margins(latents: np.ndarray, codebooks: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return how clearly each of ``codes`` (T, L) is the nearest to what the layers before it left of ``latents`` (T, D).

    It is the difference of the squared distances to the two nearest codes of ``codebooks`` (L, K, D), in units of the
    squared norms of what is left and of the code; float64 (T, L). What float32 tells apart is about 1e-6.
    """
    left, found = latents.astype(np.float64), []
    for book, chosen in zip(codebooks.astype(np.float64), codes.T, strict=True):
        norms = np.sum(left**2, axis=1), np.sum(book**2, axis=1)
        distances = np.sort(norms[0][:, None] - 2 * left @ book.T + norms[1], axis=1)
        found.append((distances[:, 1] - distances[:, 0]) / (norms[0] + norms[1][chosen]))
        left = left - book[chosen]
    return np.stack(found, axis=1)
