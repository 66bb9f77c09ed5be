import numpy as np
import polars as pl

from rvqprobe import findings, measures


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
    sentence = next(iter(findings.summary(other)))
    assert "highest in layer 1 (0.200, 95 % interval 0.190 to 0.210, chance 0.100)" in sentence
    assert "above chance in 1 of 2 layers" in sentence
