"""Makes the demo corpus again: six synthetic voices read ``sentences.txt``; phone times are the synthesisers' own.

Needs Debian's packages flite, espeak-ng, libespeak-ng1, festival and festvox-kdlpc16k. ``python lib/demo/make.py [FOLDER]``
writes the corpus in LibriSpeech's layout, with TextGrids, into FOLDER (default: beside this file).
"""

import ctypes
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
import soxr
import textgrid

HERE = Path(__file__).parent
RATE = 16_000
SUBSET = "demo"
VOICES = {
    "1": ("flite", "awb", "M"),
    "2": ("flite", "rms", "M"),
    "3": ("festival", "ked_diphone", "M"),
    "4": ("flite", "slt", "F"),
    "5": ("espeak-ng", "en-us+f2", "F"),
    "6": ("espeak-ng", "en-us+belinda", "F"),
}
"""Speaker: synthesiser, voice, sex."""
FESTIVAL_TO_ARPABET = {"ax": "AH", "pau": "sil"}
"""Phones that flite and festival name otherwise; the rest are ARPAbet in small letters."""
ESPEAK_TO_ARPABET = {
    "a": "AE", "aa": "AE", "A:": "AA", "A@": "AA R", "0": "AA", "O": "AO", "O:": "AO", "O2": "AO", "O@": "AO R", "o@": "AO R",
    "i:": "IY", "i": "IY", "I": "IH", "I2": "IH", "I#": "IH", "i@": "IH R", "i@3": "IH R", "u:": "UW", "u": "UW", "U": "UH", "U@": "UH R",
    "V": "AH", "@": "AH", "@2": "AH", "a#": "AH", "@-": "AH", "3:": "ER", "3": "ER", "E": "EH", "e@": "EH R", "eI": "EY",
    "aI": "AY", "aI@": "AY AH", "aI3": "AY ER", "aU": "AW", "oU": "OW", "OI": "OY", "@L": "AH L", "@n": "AH N",
    "p": "P", "b": "B", "t": "T", "t#": "T", "t2": "T", "?": "T", "d": "D", "k": "K", "g": "G", "tS": "CH", "dZ": "JH",
    "f": "F", "v": "V", "T": "TH", "D": "DH", "s": "S", "z": "Z", "S": "SH", "Z": "ZH", "h": "HH", "m": "M", "n": "N",
    "n-": "N", "N": "NG", "l": "L", "L": "L", "r": "R", "r-": "R", "w": "W", "j": "Y", "_": "sil", "_:": "sil", "_|": "sil",
}  # fmt: skip
"""espeak-ng's phones of American English; two ARPAbet phones share the time of one."""

Segment = tuple[str, float, str]
"""ARPAbet phone or sil, its end in seconds, and the word that it belongs to."""


def arpabet(name: str) -> str:
    """Return the ARPAbet name of one of flite's or festival's phones."""
    return FESTIVAL_TO_ARPABET.get(name, name.upper())


def flite(sentence: str, voice: str) -> tuple[np.ndarray, int, list[Segment]]:
    """Return samples, their rate and the segments of ``sentence``, spoken by flite."""
    core = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
    for library in ("usenglish", "cmulex"):
        ctypes.CDLL(f"libflite_{library}.so.1", mode=ctypes.RTLD_GLOBAL)
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{voice}.so.1"), f"register_cmu_us_{voice}")
    for function in ("flite_synth_text", "utt_relation", "relation_head", "item_next", "utt_wave"):
        getattr(core, function).restype = ctypes.c_void_p
    core.flite_ffeature_string.restype, core.flite_ffeature_float.restype = ctypes.c_char_p, ctypes.c_float
    register.restype = ctypes.c_void_p
    core.flite_init()
    utterance = ctypes.c_void_p(core.flite_synth_text(sentence.encode(), ctypes.c_void_p(register(None))))
    item, segments = core.relation_head(ctypes.c_void_p(core.utt_relation(utterance, b"Segment"))), []
    while item:
        name, word = (
            core.flite_ffeature_string(ctypes.c_void_p(item), path).decode()
            for path in (b"name", b"R:SylStructure.parent.parent.name")
        )
        segments.append(
            (arpabet(name), core.flite_ffeature_float(ctypes.c_void_p(item), b"end"), word if word != "0" else "")
        )
        item = core.item_next(ctypes.c_void_p(item))

    class Wave(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_char_p), ("sample_rate", ctypes.c_int), ("num_samples", ctypes.c_int),
            ("num_channels", ctypes.c_int), ("samples", ctypes.POINTER(ctypes.c_short)),
        ]  # fmt: skip

    wave = Wave.from_address(core.utt_wave(utterance))
    samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)) / 32768
    return samples, wave.sample_rate, segments


def festival(sentence: str, voice: str) -> tuple[np.ndarray, int, list[Segment]]:
    """Return samples, their rate and the segments of ``sentence``, spoken by festival."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "say.scm"
        script.write_text(
            f'(voice_{voice}) (set! utt (Utterance Text "{sentence}")) (utt.synth utt)'
            f'(utt.save.wave utt "{folder}/say.wav" (quote riff))'
            '(mapcar (lambda (s) (format t "%s %f %s\\n" (item.name s) (item.feat s "end")'
            ' (item.feat s "R:SylStructure.parent.parent.name"))) (utt.relation.items utt (quote Segment)))'
        )
        said = subprocess.run(["festival", "-b", script], capture_output=True, text=True, check=True).stdout
        samples, rate = soundfile.read(f"{folder}/say.wav")
    fields = (line.split() for line in said.splitlines())
    return samples, rate, [(arpabet(name), float(end), word if word != "0" else "") for name, end, word in fields]


def espeak(sentence: str, voice: str) -> tuple[np.ndarray, int, list[Segment]]:
    """Return samples, their rate and the segments of ``sentence``, spoken by espeak-ng."""
    library = ctypes.CDLL("libespeak-ng.so.1")

    class Identity(ctypes.Union):
        _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]

    class Event(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
            ("audio_position", ctypes.c_int), ("sample", ctypes.c_int), ("user_data", ctypes.c_void_p), ("id", Identity),
        ]  # fmt: skip

    samples: list[int] = []
    events: list[tuple[int, str]] = []
    word = [""]

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))
    def take(wave, count, event) -> int:  # type: ignore[no-untyped-def]
        samples.extend(wave[:count] if count > 0 else [])
        for index in range(10**6):
            if event[index].type == 0:
                return 0
            if event[index].type == 1:
                begin = event[index].text_position - 1
                word[0] = sentence[begin : begin + event[index].length]
            if event[index].type == 7:
                events.append((event[index].sample, event[index].id.string.decode(), word[0]))
        return 0

    rate = library.espeak_Initialize(2, 0, None, 1)  # synchronous, with phoneme events
    library.espeak_SetSynthCallback(take)
    library.espeak_SetVoiceByName(voice.encode())
    library.espeak_SetParameter(1, 140, 0)  # words a minute
    text = sentence.encode()
    library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None)
    segments: list[Segment] = []
    starts = [start / rate for start, *_ in events] + [len(samples) / rate]
    for (_, name, spoken), begin, end in zip(events, starts, starts[1:], strict=False):
        if name == ";":  # the glide of a vowel before another belongs to it
            segments[-1] = (segments[-1][0], end, segments[-1][2])
            continue
        names = ESPEAK_TO_ARPABET[name].split()
        for share, phone in enumerate(names, 1):
            segments.append((phone, begin + (end - begin) * share / len(names), "" if phone == "sil" else spoken))
    if starts[0] > 0:
        segments.insert(0, ("sil", starts[0], ""))
    return np.array(samples) / 32768, rate, segments


SYNTHESISERS = {"flite": flite, "festival": festival, "espeak-ng": espeak}


def tier(name: str, marks: list[tuple[str, float]], end: float) -> textgrid.IntervalTier:
    """Return a tier of (label, end) marks that lie behind one another."""
    made, begin = textgrid.IntervalTier(name, 0, end), 0.0
    for number, (label, stop) in enumerate(marks, 1):
        stop = end if number == len(marks) else min(round(stop, 4), end)
        if stop > begin:
            made.add(begin, stop, label)
            begin = stop
    return made


def speak(speaker: str, sentence: str) -> tuple[np.ndarray, textgrid.TextGrid]:
    """Return an utterance: samples at 16 kHz, and its TextGrid with the tiers words and phones."""
    synthesiser, voice, _ = VOICES[speaker]
    ctypes.CDLL(None).srand(1)  # flite's noise comes from the C library's random numbers
    samples, rate, segments = SYNTHESISERS[synthesiser](sentence, voice)
    samples = soxr.resample(samples, rate, RATE) if rate != RATE else samples
    end = len(samples) / RATE
    grid = textgrid.TextGrid(maxTime=end)
    words = [(word.upper(), list(group)[-1][1]) for word, group in groupby(segments, key=lambda s: s[2])]
    grid.append(tier("words", words, end))
    grid.append(tier("phones", [(phone, stop) for phone, stop, _ in segments], end))
    return samples, grid


def apart(speaker: str, sentence: str) -> tuple[np.ndarray, textgrid.TextGrid]:
    """Return what ``speak`` does, from a process of its own: the synthesisers remember what they said before."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(speak, (speaker, sentence))


def utterances() -> Iterator[tuple[str, str, str, str]]:
    """Yield (speaker, chapter, utterance, sentence); a speaker reads every sixth sentence, in two chapters."""
    sentences = (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    for index, speaker in enumerate(VOICES):
        mine = sentences[index :: len(VOICES)]
        for number, sentence in enumerate(mine):
            chapter = f"{speaker}0{1 + 2 * number // len(mine)}"
            yield speaker, chapter, f"{speaker}-{chapter}-{number:04d}", sentence


def main(folder: Path) -> None:
    """Write the whole corpus into ``folder``."""
    for speaker, chapter, name, sentence in utterances():
        place = Path(SUBSET) / speaker / chapter
        for top in ("LibriSpeech", "alignments"):
            (folder / top / place).mkdir(parents=True, exist_ok=True)
        samples, grid = apart(speaker, sentence)
        soundfile.write(folder / "LibriSpeech" / place / f"{name}.flac", samples, RATE, subtype="PCM_16")
        grid.write(str(folder / "alignments" / place / f"{name}.TextGrid"))
    lines = [
        f"{speaker} | {sex} | {SUBSET} | {voice} ({synthesiser})"
        for speaker, (synthesiser, voice, sex) in VOICES.items()
    ]
    (folder / "LibriSpeech" / "SPEAKERS.TXT").write_text("\n".join([";ID | SEX | SUBSET | NAME", *lines]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
