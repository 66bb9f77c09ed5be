"""Figures: codecs look the same everywhere, and each figure carries its numbers and words."""

from rvqprobe import look


def test_codecs_keep_their_looks() -> None:
    looks = look.style(["logmel_rvq", "encodec", "mine", "yours"])
    assert looks["encodec"][0] == look.PALETTE["encodec"] and len({colour for colour, _ in looks.values()}) == 4
    assert len({symbol for _, symbol in looks.values()}) == 4


def test_trained_and_untrained_codecs_look_different_but_akin() -> None:
    names = ["encodec", "encodec-untrained", "speechtokenizer", "speechtokenizer-untrained", "logmel_rvq"]
    looks = look.style(names)
    assert len({colour for colour, _ in looks.values()}) == len({symbol for _, symbol in looks.values()}) == 5
    assert look.style(["mine-untrained", "mine"])["mine"][0] == look.SPARE[0]
