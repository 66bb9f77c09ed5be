"""Information: what counts alone say of codes and labels, without any probe. All in bits."""

import numpy as np
import polars as pl
import scipy.special
import scipy.stats

BITS = np.log(2)
"""Nats in a bit."""


def entropy(counts: np.ndarray) -> np.ndarray:
    """Return the plug-in entropy over the last axis."""
    total = counts.sum(axis=-1)
    return (
        np.log(np.maximum(total, 1)) - scipy.special.xlogy(counts, counts).sum(axis=-1) / np.maximum(total, 1)
    ) / BITS


def mutual(table: np.ndarray, corrected: bool = False) -> np.ndarray:
    """Return the mutual information of code and label for ``table`` (…, K, Y), plug-in or ``corrected``.

    The correction is Miller and Madow's (1955): each entropy is raised by (non-empty cells − 1) / 2N nats. It takes
    tokens as independent; neighbours are not, so that some bias remains where tokens are few.
    """
    cells = table.reshape(*table.shape[:-2], -1)
    parts = (table.sum(axis=-1), 1), (table.sum(axis=-2), 1), (cells, -1)
    information = sum(sign * entropy(counts) for counts, sign in parts)
    if not corrected:
        return information
    more = sum(sign * (np.count_nonzero(counts, axis=-1) - 1) for counts, sign in parts)
    return information + more / (2 * BITS * np.maximum(cells.sum(axis=-1), 1))


def estimates(folds: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Return (value, low, high) of each measure for ``folds`` (K, F, Y) of training tokens.

    ``mi`` and ``mi_corrected`` are mutual information, ``pnmi`` and ``pnmi_corrected`` its share of the label's entropy
    (phone-normalised mutual information of Hsu et al. 2021, when labels are phones). The 95 % interval is a jackknife's that
    leaves out one fold at a time; NaN where fewer than two folds have tokens.
    """
    whole = folds.sum(axis=1)
    folds = folds[:, folds.any(axis=(0, 2))]
    left = np.moveaxis(whole[:, None] - folds, 1, 0)
    found = {}
    for name, corrected in (("mi", False), ("mi_corrected", True)):
        value, others = mutual(whole, corrected), mutual(left, corrected)
        found[name] = _jackknife(value, others)
        uncertain = entropy(whole.sum(axis=0))
        if uncertain > 0:
            shares = others / np.maximum(entropy(left.sum(axis=1)), 1e-12)
            found[name.replace("mi", "pnmi", 1)] = _jackknife(value / uncertain, shares)
    return found


def _jackknife(value: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """Return (value, low, high) from the values ``others`` (F,) with one fold left out."""
    folds = len(others)
    if folds < 2:
        return float(value), np.nan, np.nan
    error = np.sqrt((folds - 1) / folds * np.sum((others - others.mean()) ** 2))
    reach = scipy.stats.t.ppf(0.975, folds - 1) * error
    return float(value), float(value - reach), float(value + reach)


def code_use(use: np.ndarray, codebooks: np.ndarray) -> pl.DataFrame:
    """Return, by layer, the perplexity of the codes' ``use`` (L, K), the codes never used, and each codebook's rank."""
    return pl.DataFrame(
        {
            "layer": range(1, len(use) + 1),
            "codes": [use.shape[1]] * len(use),
            "dead codes": (use == 0).sum(axis=1),
            "perplexity": 2 ** entropy(use),
            "rank": np.linalg.matrix_rank(
                codebooks.astype(np.float64), rtol=np.finfo(np.float32).eps * max(codebooks.shape[1:])
            ),
        }
    )
