"""Clusters: what probes say of the held-out tokens, summed by cluster; whatever is scored or resampled comes from these sums."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from rvqprobe import store
from rvqprobe.counts import semitones
from rvqprobe.information import BITS
from rvqprobe.phones import BROAD_CLASSES, broad_class
from rvqprobe.probes import CONTROL, LINEAR, SEMITONES, UNBALANCED, Probe
from rvqprobe.solvers import Logistic
from rvqprobe.split import CLUSTER, EVAL, Split, held_out_clusters
from rvqprobe.store import Layout
from rvqprobe.tokens import Batch, Tokens, batches

Sums = dict[str, np.ndarray]
"""Sums of one probe over the tokens of each of S clusters, each (S, …).

Classes: ``truth``, ``said`` and ``hits`` (S, Y) tokens of each class, said to be of it, and both. Control: ``n`` tokens,
``right`` of them right. Unbalanced: ``surprise``, −log₂ probability of the tokens whose class training has. Linear
speaker probe: ``utterances`` and, of them, ``named`` rightly by the summed log probabilities. Linear phoneme probe:
``broad`` and ``broad_hits`` (S, broad classes). F0: ``n``, ``y``, ``yy``, ``squared`` and ``absolute`` errors,
and the absolute ones of a ``constant`` guess.
"""
BROAD = list(BROAD_CLASSES)


def collect(tokens: Tokens, split: Split, probes: Sequence[Probe]) -> list[Sums]:
    """Return the sums of each probe over the held-out tokens, a million at a time."""
    clusters = {by: held_out_clusters(split, by) for by in set(CLUSTER.values())}
    broad = np.array([BROAD.index(broad_class(name)) for name in split.classes["phoneme"]], np.int64)
    adders = [_adder(probe, tokens.codebooks[probe.layer - 1], split, broad) for probe in probes]
    sums: list[Sums] = [{} for _ in probes]
    for batch in batches(tokens, split, "score", [EVAL]):
        lagged = {}
        for lag in {probe.lag for probe in probes}:
            phoneme, hz = batch.lagged(lag)
            lagged[lag] = replace(batch, phoneme=phoneme, hz=hz)
        for probe, add, mine in zip(probes, adders, sums, strict=True):
            names, number = clusters[CLUSTER[probe.task]]
            for key, values in add(lagged[probe.lag], number[batch.utterance], len(names)).items():
                mine[key] = mine[key] + values if key in mine else values
    return sums


Adder = Callable[[Batch, np.ndarray, int], Sums]


def _adder(probe: Probe, codebook: np.ndarray, split: Split, broad: np.ndarray) -> Adder:
    """Return the function that sums a batch, given each token's cluster and the number of clusters."""
    layer = probe.layer - 1
    if probe.task == "pitch":
        return lambda batch, cluster, clusters: _errors(probe, batch.hz, batch.codes[:, layer], cluster, clusters)
    classes = len(split.classes[probe.task])
    proba = _log_proba(probe, codebook, classes)

    def add(batch: Batch, cluster: np.ndarray, clusters: int) -> Sums:
        label: np.ndarray = getattr(batch, probe.task)
        there = label >= 0
        label, cluster, code = label[there], cluster[there], batch.codes[there, layer]
        said = probe.said[code]
        if probe.truth is not None:
            right = np.bincount(cluster, said == probe.truth[code], clusters)
            return {"n": np.bincount(cluster, minlength=clusters), "right": right}
        sums = _outcomes(label, said, cluster, clusters, classes, ("truth", "said", "hits"))
        if probe.kind == UNBALANCED:
            surprise = -proba[code, label] / BITS
            known = np.isfinite(surprise)
            sums["surprise"] = np.bincount(cluster[known], surprise[known], clusters)
        if probe.kind == LINEAR and probe.task == "phoneme":
            sums |= _outcomes(broad[label], broad[said], cluster, clusters, len(BROAD), ("broad", "", "broad_hits"))
        if probe.kind == LINEAR and probe.task == "speaker":
            of_code = np.bincount(cluster * np.int64(len(codebook)) + code, minlength=clusters * len(codebook))
            tokens = of_code.reshape(clusters, -1)
            named = (tokens @ np.where(np.isneginf(proba), -1e9, proba)).argmax(axis=1)
            truth = np.full(clusters, -1)
            truth[cluster] = label
            sums["utterances"], sums["named"] = (truth >= 0).astype(np.int64), (named == truth).astype(np.int64)
        return sums

    return add


def _log_proba(probe: Probe, codebook: np.ndarray, classes: int) -> np.ndarray:
    """Return (K, Y) log probabilities in nats; −∞ where training had no token of the class, or the probe has none."""
    proba = np.full((len(codebook), classes), -np.inf)
    if isinstance(probe.fitted, Logistic):
        proba[:, probe.fitted.present] = probe.fitted.log_proba(codebook)
    return proba


def _outcomes(
    label: np.ndarray, said: np.ndarray, cluster: np.ndarray, clusters: int, classes: int, names: tuple[str, str, str]
) -> Sums:
    """Return tokens of each class, said to be of it, and both, (clusters, classes) each, under ``names``; "" is left out."""
    first = cluster * np.int64(classes)
    right = label == said
    flat = dict(zip(names, (first + label, first + said, (first + label)[right]), strict=True))
    shape = (clusters, classes)
    return {
        name: np.bincount(f, minlength=clusters * classes).astype(np.int32).reshape(shape)
        for name, f in flat.items()
        if name
    }


def _errors(probe: Probe, hz: np.ndarray, codes: np.ndarray, cluster: np.ndarray, clusters: int) -> Sums:
    voiced = ~np.isnan(hz)
    code, cluster = codes[voiced], cluster[voiced]
    y = hz[voiced] if probe.kind != SEMITONES else semitones(hz[voiced])
    if probe.kind == CONTROL and probe.truth is not None:
        y = probe.truth[code]
    error = y - probe.said[code]
    values = {"y": y, "yy": y**2, "squared": error**2, "absolute": np.abs(error)}
    values["constant"] = np.abs(y - probe.constant)
    sums = {name: np.bincount(cluster, value, clusters) for name, value in values.items()}
    return {"n": np.bincount(cluster, minlength=clusters), **sums}


def save(probes: Sequence[Probe], sums: Sequence[Sums], codec: str, layout: Layout) -> None:
    """Write the sums of the linear probes, from which codecs are compared."""
    arrays = {
        f"{probe.task}/{probe.layer}/{name}": values
        for probe, mine in zip(probes, sums, strict=True)
        if probe.kind == LINEAR
        for name, values in mine.items()
    }
    store.write_arrays(layout.cluster_sums(codec), compressed=True, **arrays)


def load(layout: Layout, codec: str) -> dict[tuple[str, int], Sums]:
    """Return the saved sums of a codec's linear probes by task and layer."""
    path = layout.require(layout.cluster_sums(codec), f"03_probe (codec {codec}, evaluate true)")
    found: dict[tuple[str, int], Sums] = {}
    for key, values in store.read_arrays(path).items():
        task, layer, name = key.split("/")
        found.setdefault((task, int(layer)), {})[name] = values
    return found
