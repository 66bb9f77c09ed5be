from pathlib import Path

import numpy as np
import polars as pl

from rvqprobe import findings, measures, params


def metrics(**profiles: list[float]) -> pl.DataFrame:
    rows = [
        (
            codec,
            task,
            layer,
            "layer",
            "linear",
            0.0,
            measures.PRIMARY[task],
            value,
            value - 0.01,
            value + 0.01,
            0.1,
            1,
            1,
        )
        for name, profile in profiles.items()
        for codec, task in [name.split("__")]
        for layer, value in enumerate(profile, 1)
    ]
    return pl.DataFrame(rows, measures.METRICS, orient="row")


def drawn(**profiles: list[float]) -> measures.Profiles:
    """Profiles whose draws are nine times the value itself, and once its reverse."""
    return {tuple(name.split("__")): np.array([profile] * 10 + [profile[::-1]]) for name, profile in profiles.items()}


def test_findings_follow_the_numbers() -> None:
    as_predicted = drawn(
        speechtokenizer__phoneme=[0.6, 0.2, 0.2, 0.1], speechtokenizer__speaker=[0.1, 0.3, 0.2, 0.2],
        speechtokenizer__pitch=[0.1, 0.1, 0.0, 0.0], encodec__speaker=[0.1, 0.1, 0.3, 0.1], encodec__pitch=[0.0, 0.1, 0.2, 0.0],
    )  # fmt: skip
    table = findings.verdict(as_predicted)
    assert table["agrees"].to_list() == ["yes"] * 5
    assert table["in draws"].to_list() == [0.9, 1.0, 1.0, 1.0, 1.0]  # reversed, layer 1 is not the best
    opposite = drawn(
        speechtokenizer__phoneme=[0.2, 0.6, 0.2, 0.1], speechtokenizer__speaker=[0.3, 0.1, 0.2, 0.2],
        speechtokenizer__pitch=[0.9, 0.1, 0.0, 0.0], encodec__speaker=[0.3, 0.1, 0.1, 0.1], encodec__pitch=[0.0, 0.7, 0.2, 0.0],
    )  # fmt: skip
    assert findings.verdict(opposite)["agrees"].to_list() == ["no"] * 5
    other = metrics(logmel_rvq__phoneme=[0.2, 0.05])
    nothing = drawn(logmel_rvq__phoneme=[0.2, 0.05])
    assert findings.verdict(nothing)["agrees"].to_list() == ["not tested"] * 5
    assert "none of its 5 predictions is tested" in findings.conclusion(nothing)
    assert "5 could be tested" in findings.conclusion(opposite) and "0 agree" in findings.conclusion(opposite)
    (sentence,) = findings.summary(other, "phoneme")
    assert "highest in layer 1 (0.200, 95 % interval 0.190 to 0.210, chance 0.100)" in sentence
    assert "above chance in 1 of 2 layers" in sentence


def test_the_hypothesis_is_about_trained_weights(tmp_path: Path) -> None:
    (tmp_path / "encodec.yaml").write_text("module: rvqprobe.codecs.encodec\nweights: untrained\n")
    (tmp_path / "speechtokenizer.yaml").write_text("module: rvqprobe.codecs.speechtokenizer\nweights: mine.pt\n")
    both = drawn(encodec__pitch=[0.1, 0.1], speechtokenizer__pitch=[0.1, 0.1])
    named = findings.trained(both, [str(tmp_path / "encodec.yaml"), str(tmp_path / "speechtokenizer.yaml")])
    assert list(named) == [("speechtokenizer", "pitch")]
    nothing = drawn(speechtokenizer__phoneme=[0.0, 0.0])
    assert findings.verdict(nothing)["agrees"][0] == "no"  # zero is no 1.5 times of zero


def test_the_answer_is_a_sentence_a_task() -> None:
    both = metrics(mine__phoneme=[0.2, 0.1], yours__phoneme=[0.105, 0.3], mine__speaker=[0.4, 0.5])
    phoneme, speaker, pitch = findings.answer(both)
    assert phoneme == (
        "A linear probe reads the phoneme from a single token best in layer 1 of mine (0.200; 1 of its 2 layers are above "
        "chance) and layer 2 of yours (0.300; 1 of its 2 layers are above chance), by macro-F1, of which chance has 0.100."
    )
    assert (
        "the speaker from a single token best in layer 2 of mine (0.500; 2 of its 2" in speaker
        and "yours" not in speaker
    )
    assert pitch.startswith("Nothing can be said of F0")


def test_only_reports_without_trained_codecs_begin_with_a_caution() -> None:
    assert (
        params.is_trained("encodec")
        and not params.is_trained("encodec-untrained")
        and not params.is_trained("logmel_rvq")
    )
    assert "encodec-untrained, logmel_rvq" in findings.caution(["encodec-untrained", "logmel_rvq"])
    assert findings.caution(["encodec", "encodec-untrained"]) == ""
