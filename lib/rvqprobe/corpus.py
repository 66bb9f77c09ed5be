"""The corpus: which utterances there are, and what of it can't be used."""

import os
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
    if not has_speech(corpus_dir, subset):
        raise MissingInput(
            f"no speech of {subset}: looked for {corpus_dir / subset}/<speaker>/<chapter>/<utterance>.flac. Get it with "
            "./run_all.sh fetch STUDY, or name another folder with -p corpus_dir FOLDER"
        )
    if not any(_grids(file, corpus_dir, alignments_dir, subset) for file in (corpus_dir / subset).glob("*/*/*.flac")):
        raise MissingInput(
            f"no alignments of {subset}: looked for {alignments_dir}/<subset>/<speaker>/<chapter>/<utterance>.TextGrid, and "
            "beside the audio. Download the LibriSpeech alignments (GitHub repository CorentinJ/librispeech-alignments, 594 MB) "
            "and take them in with ./run_all.sh fetch STUDY --alignments ARCHIVE, or name another folder with -p "
            "alignments_dir FOLDER"
        )


def has_speech(corpus_dir: Path, subset: str) -> bool:
    """Return whether there is any FLAC file of ``subset``."""
    return next((corpus_dir / subset).glob("*/*/*.flac"), None) is not None


def _grids(file: Path, corpus_dir: Path, alignments_dir: Path, subset: str) -> list[Path]:
    """Return the TextGrids of an audio file: of its subset, of another one that holds it too, or beside the audio."""
    place = file.relative_to(corpus_dir / subset).with_suffix(".TextGrid")
    folders = sorted(alignments_dir.glob("*/"), key=lambda folder: (folder.name != subset, folder.name))
    return [grid for grid in (*(folder / place for folder in folders), file.with_suffix(".TextGrid")) if grid.is_file()]


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
        grids = _grids(file, corpus_dir, alignments_dir, subset)
        if not grids:
            quarantine.append((file.stem, path, "no TextGrid", NO_PHONES))
        found = (os.path.relpath(grids[0], alignments_dir), file_digest(grids[0])) if grids else (None, None)
        rows.append((file.stem, speaker, chapter, path, header.duration, header.samplerate, *found))
    utterances = pl.DataFrame(rows, schema=UTTERANCES, orient="row").sort("utterance")
    return utterances, pl.DataFrame(quarantine, schema=QUARANTINE, orient="row")
