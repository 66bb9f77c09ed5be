"""The cluster bootstrap of held-out data: whole speakers or utterances are drawn anew, the fitted probes stay."""

import numpy as np

DRAWS = 1000
LEVEL = 0.95


def weights(clusters: int, seed: int) -> np.ndarray:
    """Return how often each cluster is in each draw, (1 + DRAWS, ``clusters``) float64; row 0 is the data itself.

    They depend on nothing else, so that whatever has the same clusters shares its draws.
    """
    drawn = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), DRAWS)
    return np.vstack([np.ones(clusters), drawn])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return (value, low, high) of a statistic (1 + DRAWS,): itself and the 95 % percentile interval of its draws."""
    low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values[0]), float(low), float(high)


def disagree(values: np.ndarray) -> float:
    """Return the share of draws of ``values`` (1 + DRAWS,) that do not have its sign."""
    return float(np.mean(np.sign(values[1:]) != np.sign(values[0])))
