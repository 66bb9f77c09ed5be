"""Findings: sentences about the hypothesis, worded by code from the metrics.

Every threshold that turns a number into a word stands here by name, and in the sentence that uses it.
"""

from collections.abc import Iterator, Sequence

import polars as pl

from rvqprobe.params import codec_name, is_trained

SHARP = 1.5
"""Layer 1 is "sharply" the best where its score is at least so many times that of layer 2."""
WEAK = 0.3
"""R² under which F0 counts as weakly linear in a layer."""
PRIMARY = {"phoneme": ("macro_f1", "macro-F1"), "speaker": ("macro_f1", "macro-F1"), "pitch": ("r2", "R²")}
STUDIED = ("encodec", "speechtokenizer")
"""The trained codecs that the hypothesis speaks of."""


def profile(metrics: pl.DataFrame, codec: str, task: str) -> list[float]:
    """Return the linear probe's primary metric of a task over the layers; empty where there is none."""
    rows = metrics.filter(codec=codec, task=task, metric=PRIMARY[task][0], probe="linear", input="layer")
    return rows.sort("layer")["value"].to_list()


def chance(metrics: pl.DataFrame, codec: str, task: str) -> float:
    """Return the chance level of a task's primary metric."""
    return metrics.filter(codec=codec, task=task, metric=PRIMARY[task][0])["chance"][0]


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


def summary(metrics: pl.DataFrame) -> Iterator[str]:
    """Yield one sentence a codec and task: where the linear probe scores best, and how it compares with chance."""
    for codec in metrics["codec"].unique(maintain_order=True):
        for task, (_, name) in PRIMARY.items():
            scores = profile(metrics, codec, task)
            if not scores:
                yield f"{codec}, {task}: nothing to score, since no token of the study has such a label in both parts."
                continue
            top, level = best(scores), chance(metrics, codec, task)
            yield (
                f"{codec}, {task}: {name} is highest in layer {top} ({scores[top - 1]:.3f}, chance {level:.3f}) and "
                f"{scores[0]:.3f} in layer 1, {scores[-1]:.3f} in layer {len(scores)}; "
                f"{sum(score > level for score in scores)} of {len(scores)} layers are above chance."
            )


def verdict(metrics: pl.DataFrame) -> pl.DataFrame:
    """Return what the hypothesis predicts of each trained codec, what was measured, and whether they agree.

    Columns ``prediction, codec, measured, agrees`` ("yes", "no" or "not tested", where the study lacks the codec).
    """
    studied = metrics["codec"].unique().to_list()
    rows = []
    for prediction, codec, judge in _predictions():
        task = prediction.split(":")[0]
        scores = profile(metrics, codec, task) if codec in studied else []
        if len(scores) < 2:
            rows.append((prediction, codec, "not in this study", "not tested"))
        else:
            measured, agrees = judge(scores)
            rows.append((prediction, codec, measured, "yes" if agrees else "no"))
    return pl.DataFrame(rows, ["prediction", "codec", "measured", "agrees"], orient="row")


def _predictions() -> Iterator[tuple]:
    sharp = f"phoneme: layer 1 is the best, with at least {SHARP:g} times the macro-F1 of layer 2"
    yield (
        sharp,
        "speechtokenizer",
        lambda s: (
            f"best in layer {best(s)}; layer 1 has {s[0]:.3f}, layer 2 {s[1]:.3f}",
            best(s) == 1 and s[0] >= SHARP * s[1],
        ),
    )
    for codec in STUDIED:
        yield (
            "speaker: the best layer lies beyond the first quarter of the layers",
            codec,
            lambda s: (
                f"best in layer {best(s)} of {len(s)} ({s[best(s) - 1]:.3f}; layer 1 has {s[0]:.3f})",
                best(s) > len(s) / 4,
            ),
        )
    for codec in STUDIED:
        yield (
            f"pitch: R² is under {WEAK:g} in every layer",
            codec,
            lambda s: (
                f"highest R² is {max(s):.3f}, in layer {best(s)}",
                max(s) < WEAK,
            ),
        )


def conclusion(metrics: pl.DataFrame) -> str:
    """Return one sentence: how many of the hypothesis's predictions this study could test, and how they came out."""
    outcome = verdict(metrics)["agrees"].to_list()
    tested = len(outcome) - outcome.count("not tested")
    codecs = ", ".join(metrics["codec"].unique(maintain_order=True))
    if not tested:
        return (
            f"This study holds {codecs} only. The hypothesis speaks of trained EnCodec and SpeechTokenizer, so none of "
            f"its {len(outcome)} predictions is tested here."
        )
    return f"Of the hypothesis's {len(outcome)} predictions {tested} could be tested with {codecs}; {outcome.count('yes')} agree."
