"""Findings: sentences about the hypothesis, worded by code from the metrics.

Every threshold that turns a number into a word stands here by name, and in the sentence that uses it.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl

from rvqprobe.measures import NAMES, PRIMARY, Profiles
from rvqprobe.params import codec_name, is_trained

SHARP = 1.5
"""Layer 1 is "sharply" the best where its score is at least so many times that of layer 2."""
WEAK = 0.3
"""R² under which F0 counts as weakly linear in a layer."""
STUDIED = ("encodec", "speechtokenizer")
"""The trained codecs that the hypothesis speaks of."""


def profile(metrics: pl.DataFrame, codec: str, task: str) -> list[float]:
    """Return the linear probe's primary metric of a task over the layers; empty where there is none."""
    return _column(metrics, codec, task, PRIMARY[task], "linear")


def _column(metrics: pl.DataFrame, codec: str, task: str, metric: str, probe: str, input: str = "layer") -> list[float]:
    rows = metrics.filter(codec=codec, task=task, metric=metric, probe=probe, input=input, lag_ms=0)
    return rows.sort("layer")["value"].to_list()


def chance(metrics: pl.DataFrame, codec: str, task: str) -> float:
    """Return the chance level of a task's primary metric."""
    return metrics.filter(codec=codec, task=task, metric=PRIMARY[task], probe="linear")["chance"][0]


def best(scores: list[float]) -> int:
    """Return the layer, from 1, of the highest score."""
    return 1 + max(range(len(scores)), key=scores.__getitem__)


def caution(codecs: Sequence[str]) -> str:
    """Return the first lines of a report on ``codecs`` (as in the parameter): controls only, or nothing to say."""
    if any(map(is_trained, codecs)):
        return ""
    names = ", ".join(map(codec_name, codecs))
    return (
        f"**These are controls.** None of the codecs of this report ({names}) has trained weights, so no conclusion about "
        "the trained EnCodec or SpeechTokenizer follows from it. The real study is `./run_all.sh train-clean-100`; it needs "
        "LibriSpeech, its alignments and the codecs' weights, and says what is missing."
    )


ASKED = {"phoneme": "the phoneme", "speaker": "the speaker", "pitch": "F0"}
"""What of a token each task asks for, as sentences call it."""


def answer(metrics: pl.DataFrame) -> Iterator[str]:
    """Yield one sentence a task: in which layer of each codec a linear probe reads it best, and how far above chance."""
    codecs = metrics["codec"].unique(maintain_order=True)
    for task, metric in PRIMARY.items():
        found = [(codec, scores) for codec in codecs if (scores := profile(metrics, codec, task))]
        if not found:
            yield f"Nothing can be said of {ASKED[task]}: no token of the study has such a label in both parts."
            continue
        said = [
            f"layer {best(scores)} of {codec} ({max(scores):.3f}; {_above(metrics, codec, task)} of its {len(scores)} layers "
            "are above chance)"
            for codec, scores in found
        ]
        places = ", ".join(said[:-1]) + " and " * (len(said) > 1) + said[-1]
        level = chance(metrics, found[0][0], task)
        yield f"A linear probe reads {ASKED[task]} from a single token best in {places}, by {NAMES[metric]}, of which chance has {level:.3f}."


def _above(metrics: pl.DataFrame, codec: str, task: str) -> int:
    """Return in how many layers the interval of a task's primary metric lies above chance."""
    return _linear(metrics, codec, task).filter(pl.col("low") > pl.col("chance")).height


def _linear(metrics: pl.DataFrame, codec: str, task: str) -> pl.DataFrame:
    return metrics.filter(codec=codec, task=task, metric=PRIMARY[task], probe="linear", input="layer", lag_ms=0)


def summary(metrics: pl.DataFrame, task: str) -> Iterator[str]:
    """Yield one sentence a codec: where the linear probe scores best, and how it compares with chance."""
    name = NAMES[PRIMARY[task]]
    for codec in metrics["codec"].unique(maintain_order=True):
        scores = profile(metrics, codec, task)
        if not scores:
            yield f"{codec}: nothing to score, since no token of the study has such a label in both parts."
            continue
        top, level = best(scores), chance(metrics, codec, task)
        low, high = _linear(metrics, codec, task).filter(layer=top).select("low", "high").row(0)
        interval = f"95 % interval {low:.3f} to {high:.3f}, " if low is not None else ""
        yield (
            f"{codec}: {name} is highest in layer {top} ({scores[top - 1]:.3f}, {interval}chance {level:.3f}) and "
            f"{scores[0]:.3f} in layer 1, {scores[-1]:.3f} in layer {len(scores)}; the interval lies above chance in "
            f"{_above(metrics, codec, task)} of {len(scores)} layers."
        )


def capacity(metrics: pl.DataFrame, dimensions: dict[str, int]) -> Iterator[str]:
    """Yield a sentence a codec: where lookup and linear probes differ most, and how far the linear one can memorise; ``dimensions`` are its codebooks'."""
    for codec in metrics["codec"].unique(maintain_order=True):
        gaps = []
        for task, metric in PRIMARY.items():
            pairs = zip(*(_column(metrics, codec, task, metric, probe) for probe in ("lookup", "linear")), strict=True)
            gaps += [(lookup - linear, task, metric, layer) for layer, (lookup, linear) in enumerate(pairs, 1)]
        if not gaps:
            continue
        gap, task, metric, layer = max(gaps, key=lambda g: abs(g[0]))
        side = "above" if gap > 0 else "below"
        use = metrics.filter(codec=codec, probe="control", metric="accuracy", task="phoneme")["value"]
        memory = (
            f"{use.mean():.0%} of labels drawn at random for each code"
            if len(use)
            else "labels that were not asked for"
        )
        yield (
            f"{codec}: the lookup probe differs most from the linear one for {task} in layer {layer}, where it lies {abs(gap):.3f} "
            f"({NAMES[metric]}) {side} it; in its {dimensions[codec]} dimensions the linear probe names {memory}."
        )


def equal_dimension(metrics: pl.DataFrame, dimensions: dict[str, int], components: int) -> Iterator[str]:
    """Yield a sentence a codec: how far its scores move when the probe sees ``components`` dimensions."""
    for codec, dimension in dimensions.items():
        moves = []
        for task, metric in PRIMARY.items():
            own, leading = (_column(metrics, codec, task, metric, "linear", i) for i in ("layer", "components"))
            moves += [(abs(b - a), f"{task}, layer {n}") for n, (a, b) in enumerate(zip(own, leading, strict=True), 1)]
        if moves:
            move, where = max(moves)
            why = "these are all it has" if dimension <= components else f"of its {dimension}"
            yield f"{codec}: on {min(components, dimension)} dimensions ({why}) no score moves by more than {move:.4f} ({where})."


def compared(table: pl.DataFrame) -> Iterator[str]:
    """Yield a sentence a task and pair of codecs of ``measures.compare``: in how many layers the interval leaves out 0."""
    if table.is_empty():
        yield "This study has one codec, so there is nothing to compare."
    for (task, codec, other), rows in table.group_by("task", "codec", "minus", maintain_order=True):
        above, below = rows.filter(pl.col("low") > 0).height, rows.filter(pl.col("high") < 0).height
        yield (
            f"{task}, {NAMES[PRIMARY[str(task)]]}: {codec} lies above {other} in {above} of {rows.height} layers, below in "
            f"{below}."
        )


def trained(profiles: Profiles, codecs: Sequence[str]) -> Profiles:
    """Return the profiles of those ``codecs`` (as in the parameter) that have trained weights: what the hypothesis is about."""
    names = {codec_name(codec) for codec in codecs if is_trained(codec)}
    return {(codec, task): drawn for (codec, task), drawn in profiles.items() if codec in names}


def verdict(profiles: Profiles) -> pl.DataFrame:
    """Return what the hypothesis predicts of each trained codec, what was measured, and whether they agree.

    Columns ``prediction, codec, measured, agrees`` ("yes", "no" or "not tested", where the study lacks the codec) and
    ``in draws``, the share of bootstrap draws that agree with the prediction.
    """
    rows: list[tuple] = []
    for prediction, codec, judge in _predictions():
        drawn = profiles.get((codec, prediction.split(":")[0]))
        if drawn is None or drawn.shape[1] < 2:
            rows.append((prediction, codec, "not in this study with trained weights", "not tested", None))
        else:
            measured, agrees = judge(drawn)
            rows.append((prediction, codec, measured, "yes" if agrees[0] else "no", float(agrees[1:].mean())))
    names = ["prediction", "codec", "measured", "agrees"]
    return pl.DataFrame(rows, dict.fromkeys(names, pl.String) | {"in draws": pl.Float64}, orient="row")


Judged = tuple[str, np.ndarray]


def _sharp(drawn: np.ndarray) -> Judged:
    scores = drawn[0].tolist()
    sharp = (drawn.argmax(axis=1) == 0) & (drawn[:, 0] >= SHARP * drawn[:, 1]) & (drawn[:, 0] > 0)
    return f"best in layer {best(scores)}; layer 1 has {scores[0]:.3f}, layer 2 {scores[1]:.3f}", sharp


def _beyond_first_quarter(drawn: np.ndarray) -> Judged:
    scores, top = drawn[0].tolist(), best(drawn[0].tolist())
    said = f"best in layer {top} of {len(scores)} ({scores[top - 1]:.3f}; layer 1 has {scores[0]:.3f})"
    return said, drawn.argmax(axis=1) + 1 > drawn.shape[1] / 4


def _weak(drawn: np.ndarray) -> Judged:
    scores = drawn[0].tolist()
    return f"highest R² is {max(scores):.3f}, in layer {best(scores)}", drawn.max(axis=1) < WEAK


def _predictions() -> Iterator[tuple[str, str, Callable[[np.ndarray], Judged]]]:
    sharp = f"phoneme: layer 1 is the best, with at least {SHARP:g} times the macro-F1 of layer 2"
    yield sharp, "speechtokenizer", _sharp
    for codec in STUDIED:
        yield "speaker: the best layer lies beyond the first quarter of the layers", codec, _beyond_first_quarter
    for codec in STUDIED:
        yield f"pitch: R² is under {WEAK:g} in every layer", codec, _weak


def conclusion(profiles: Profiles) -> str:
    """Return one sentence: how many of the hypothesis's predictions this study could test, and how they came out."""
    outcome = verdict(profiles)["agrees"].to_list()
    tested = len(outcome) - outcome.count("not tested")
    codecs = ", ".join(dict.fromkeys(codec for codec, _ in profiles))
    if not tested:
        return (
            "The hypothesis speaks of trained EnCodec and SpeechTokenizer. This study has neither, so none of its "
            f"{len(outcome)} predictions is tested here."
        )
    return f"Of the hypothesis's {len(outcome)} predictions {tested} could be tested with {codecs}; {outcome.count('yes')} agree."
