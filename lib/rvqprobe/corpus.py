"""The corpus: which utterances there are, and what of it can't be used."""

import re
from pathlib import Path

import polars as pl
import soundfile

from rvqprobe.progress import track
from rvqprobe.store import MissingInput, file_digest

UTTERANCES = {
    "utterance": pl.String,
    "speaker": pl.String,
    "chapter": pl.String,
    "path": pl.String,
    "seconds": pl.Float64,
    "sample_rate": pl.Int64,
    "textgrid": pl.String,
    "textgrid_sha256": pl.String,
}
QUARANTINE = {"utterance": pl.String, "path": pl.String, "reason": pl.String, "effect": pl.String}
LEFT_OUT = "left out"
NO_PHONES = "used without phoneme labels"
FEWER_PHONES = "used without the labels of these phones"


class TooManyDefects(RuntimeError):
    """More utterances have a defect than the study allows; the message says which ones and what to do."""


def tolerate(quarantine: pl.DataFrame, utterances: int, most: float) -> None:
    """Raise TooManyDefects where more than the share ``most`` of ``utterances`` is in ``quarantine``."""
    defective = quarantine["utterance"].n_unique()
    if defective > most * utterances:
        reasons = quarantine["reason"].str.replace(r":.*", "").value_counts(sort=True).rows()
        told = "; ".join(f"{count} × {reason}" for reason, count in reasons[:5])
        example = quarantine["path"][0]
        raise TooManyDefects(
            f"{defective} of {utterances} utterances have a defect ({told}; for one, {example}), and max_quarantined is "
            f"{most:g}. Mend them, or allow more with -p max_quarantined {min(1.0, defective / max(1, utterances) + 0.01):.2f}"
        )


def require(corpus_dir: Path, alignments_dir: Path, subset: str) -> None:
    """Raise MissingInput, saying how to get it, where the audio or the alignments of ``subset`` are not there."""
    audio, grids = corpus_dir / subset, alignments_dir / subset
    if next(audio.glob("*/*/*.flac"), None) is None:
        raise MissingInput(
            f"no speech of {subset}: looked for {audio}/<speaker>/<chapter>/<utterance>.flac. Download "
            f"{subset}.tar.gz of LibriSpeech (OpenSLR resource 12), unpack it so that {audio} exists, or name another "
            "folder with -p corpus_dir FOLDER"
        )
    if next(grids.glob("*/*/*.TextGrid"), None) is None:
        raise MissingInput(
            f"no alignments of {subset}: looked for {grids}/<speaker>/<chapter>/<utterance>.TextGrid. Download the "
            "LibriSpeech alignments (GitHub repository CorentinJ/librispeech-alignments, 594 MB), unpack them so that "
            f"{grids} exists, or name another folder with -p alignments_dir FOLDER"
        )


def scan(corpus_dir: Path, alignments_dir: Path, subset: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the utterance table, sorted by utterance, and the quarantine table of ``corpus_dir/<subset>``.

    One row an utterance: its name, speaker and chapter (from the path), audio path under ``corpus_dir``, seconds and
    sample rate (from the FLAC header), TextGrid path under ``alignments_dir`` and its sha256 (null where there is
    none). Raises MissingInput where there is no speech or no alignment at all.
    """
    require(corpus_dir, alignments_dir, subset)
    files = sorted((corpus_dir / subset).glob("*/*/*.flac"))
    rows, quarantine = [], []
    for file in track(files, len(files), "scan", "utterance"):
        path = str(file.relative_to(corpus_dir))
        speaker, chapter = file.parts[-3:-1]
        reason = None
        if not re.fullmatch(rf"{re.escape(speaker)}-{re.escape(chapter)}-\w+", file.stem):
            reason = f"the name does not begin with {speaker}-{chapter}-, its speaker's and chapter's folders"
        else:
            try:
                header = soundfile.info(file)
                reason = None if header.frames else "no sample in the file"
            except soundfile.LibsndfileError as error:
                reason = f"not readable as audio: {error.error_string}"
        if reason:
            quarantine.append((file.stem, path, reason, LEFT_OUT))
            continue
        grid = alignments_dir / subset / speaker / chapter / f"{file.stem}.TextGrid"
        present = grid.is_file()
        if not present:
            quarantine.append((file.stem, path, "no TextGrid", NO_PHONES))
        found = (str(grid.relative_to(alignments_dir)), file_digest(grid)) if present else (None, None)
        rows.append((file.stem, speaker, chapter, path, header.duration, header.samplerate, *found))
    utterances = pl.DataFrame(rows, schema=UTTERANCES, orient="row").sort("utterance")
    return utterances, pl.DataFrame(quarantine, schema=QUARANTINE, orient="row")
