"""Listening: a few held-out utterances decoded from some of a codec's RVQ layers, packed small enough for a report."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from IPython.display import HTML

from rvqprobe import audio, store
from rvqprobe.params import codec_name, is_trained
from rvqprobe.split import EVAL, Split, seeded_order
from rvqprobe.store import Layout
from rvqprobe.tokens import Tokens

if TYPE_CHECKING:
    from rvqprobe.codecs import Codec  # with torch, which a report need not wait for

UTTERANCES = 3
SECONDS = 6.0
"""So much of each utterance is kept, from its beginning."""
ORIGINAL = "original"


def variants(layers: int) -> dict[str, list[int]]:
    """Return what is heard of a codec with so many layers: by name, the layers that are summed."""
    depths = [depth for depth in (1, 2, 4) if depth < layers] + [layers]
    names = {("layer 1" if depth == 1 else f"layers 1–{depth}"): list(range(1, depth + 1)) for depth in depths}
    return names | ({f"layers 2–{layers}": list(range(2, layers + 1))} if layers > 1 else {})


def chosen(split: Split, seed: int) -> list[str]:
    """Return the utterances to be heard: one held-out one each of ``UTTERANCES`` speakers, by ``seed``."""
    held_out = split.utterances.filter(part=EVAL)
    order = seeded_order(held_out["speaker"].unique(), seed)[:UTTERANCES]
    return [min(held_out.filter(speaker=speaker)["utterance"]) for speaker in order]


def make(built: "Codec", table: Tokens, split: Split, layout: Layout, corpus_dir: Path, seed: int) -> int:
    """Decode the chosen utterances that ``table`` holds, each into a file of its own; return how many that are.

    What is there already, from the same codes, is not made again.
    """
    layers = [f"q{layer}" for layer in range(1, len(built.codebooks) + 1)]
    wanted = table.frame().filter(pl.col("utterance").is_in(chosen(split, seed))).collect()
    paths = dict(split.utterances.select("utterance", "path").iter_rows())
    for (utterance,), mine in wanted.group_by("utterance"):
        codes = mine.sort("frame")[: int(SECONDS * built.frame_rate)].select(layers).to_numpy()
        made_from = store.key(
            built.made_from, store.array_digest(built.codebooks), store.array_digest(codes), _recipe()
        )
        path = layout.listening(built.name, str(utterance))
        if path.exists() and pl.read_parquet_metadata(path).get("made_from") == made_from:
            continue
        original = audio.read(corpus_dir / paths[utterance], built.sample_rate).waveform
        sounds = {ORIGINAL: original} | {name: built.decode(codes, of) for name, of in variants(len(layers)).items()}
        samples = min(len(original), round(len(codes) / built.frame_rate * built.sample_rate))
        packed = [audio.mp3(sound[:samples], built.sample_rate) for sound in sounds.values()]
        store.write_table(pl.DataFrame({"heard": list(sounds), "mp3": packed}), path, {"made_from": made_from})
    return wanted["utterance"].n_unique()


def _recipe() -> str:
    return store.code_digest(__file__, audio.__file__)


def players(codecs: Sequence[str], split: Split, layout: Layout, seed: int) -> HTML:
    """Return rows of players, one for each utterance and trained codec (of ``codecs``, as in the parameter)."""
    names, rows = [codec_name(codec) for codec in codecs if is_trained(codec)], []
    if not names:
        return HTML("<p>No codec of this study has trained weights, so there is nothing to listen to.</p>")
    for utterance in chosen(split, seed):
        for codec in names:
            if (path := layout.listening(codec, utterance)).exists():
                rows.append(shelf(f"{utterance}, {codec}", pl.read_parquet(path).iter_rows()))
    if not rows:
        return HTML("<p>Nothing was decoded: none of the chosen utterances has tokens.</p>")
    return HTML("".join(rows))


def shelf(title: str, sounds: Iterable[tuple[str, bytes]]) -> str:
    """Return HTML with a player of each (name, MP3), side by side under a ``title``."""
    cells = "".join(
        f"<figure style='margin:0'><figcaption>{html.escape(name)}</figcaption>{_player(mp3, f'{title}, {name}')}</figure>"
        for name, mp3 in sounds
    )
    row = f"<div style='display:flex;flex-wrap:wrap;gap:.4rem 1rem'>{cells}</div>"
    return f"<section class='listening'><h4>{html.escape(title)}</h4>{row}</section>"


def _player(mp3: bytes, name: str) -> str:
    source = f"data:audio/mpeg;base64,{base64.b64encode(mp3).decode()}"
    style = "width:15rem;max-width:100%;height:2.2rem"
    return f"<audio controls preload='none' style='{style}' aria-label='{html.escape(name)}' src='{source}'></audio>"
