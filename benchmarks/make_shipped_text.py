"""Makes the text and the tokenizer inside the package (`src/tombola/data/text/files`) from their sources.

    python benchmarks/make_shipped_text.py FOLDER_OF_SOURCES [--out FOLDER]

FOLDER_OF_SOURCES has `nltk/{genesis,inaugural,sentence_polarity}.zip`, `tinyshakespeare/input.txt`, `names/names.txt`
and `humaneval/HumanEval.jsonl.gz`; where these come from stands in `files/SOURCES.md`. Every text is cut in its own
order: first what models are pre-trained on, then what tasks train on, last what tasks hold out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import random
import re
import zipfile
from pathlib import Path

OUT = Path(__file__).parent.parent / "src" / "tombola" / "data" / "text" / "files"
PRETRAINING, TRAIN, HELD_OUT = "pretraining", "train", "held_out"
SIZES: dict[str, dict[str, int]] = {
    "english": {PRETRAINING: 160_000},
    "verse": {PRETRAINING: 20_000, TRAIN: 48_000, HELD_OUT: 36_000},
    "speeches": {PRETRAINING: 110_000, TRAIN: 12_000, HELD_OUT: 10_000},
    "names": {PRETRAINING: 12_000, TRAIN: 24_000, HELD_OUT: 18_000},
    "german": {PRETRAINING: 20_000, TRAIN: 52_000, HELD_OUT: 38_000},
    "french": {PRETRAINING: 20_000, TRAIN: 52_000, HELD_OUT: 38_000},
    "swedish": {TRAIN: 52_000, HELD_OUT: 38_000},
    "code": {TRAIN: 60_000, HELD_OUT: 42_000},
    "sentiment": {TRAIN: 49_000, HELD_OUT: 36_000},
}
"""How many characters of each text are taken for what."""
VOCABULARY = 512
BEGIN = "<|endoftext|>"
SHORT, LONG = 15, 95
"""Characters of the review sentences that are taken: an item has 64 tokens."""
PRAISE = """beautiful beautifully best brilliant charming clever compelling delight delightful engaging enjoy enjoyable
entertaining fascinating fun funny gem good great heart hilarious love lovely moving perfect pleasure powerful
refreshing remarkable smart solid strong sweet touching warm well wonderful worth"""
BLAME = """awful bad bland boring can't contrived didn't dull doesn't don't down fails flat isn't lacks lame less
lifeless long mess much neither never no nor not nothing off only predictable pretentious silly slow stupid tedious
thing too wasn't without won't worst"""
"""A sentence is taken that has a word of its own side and none of the other: small models can learn which it is."""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("sources", type=Path)
    asked.add_argument("--out", type=Path, default=OUT)
    given = asked.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for kind, text in whole_texts(given.sources).items():
        for part, piece in cut(text, SIZES[kind]).items():
            made.append(given.out / f"{kind}.{part}.txt")
            made[-1].write_text(piece, encoding="utf-8")
    made.append(given.out / "tokenizer.json")
    train_tokenizer([path for path in made if path.name.endswith(f".{PRETRAINING}.txt")], made[-1])
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(made)}
    (given.out / "checksums.json").write_text(json.dumps(sums, indent=1) + "\n")
    print(f"{sum(path.stat().st_size for path in made):,} bytes in {len(made)} files")


def whole_texts(sources: Path) -> dict[str, str]:
    """Every text by its kind, in its own order, with one line end and no leading blanks."""
    genesis = zipfile.ZipFile(sources / "nltk" / "genesis.zip")
    german = html.unescape(genesis.read("genesis/german.txt").decode("latin-1"))
    swedish = genesis.read("genesis/swedish.txt").replace(b"\xbd", b'"').decode("cp850")
    inaugural = zipfile.ZipFile(sources / "nltk" / "inaugural.zip")
    speeches = [inaugural.read(name).decode("latin-1") for name in sorted(inaugural.namelist()) if "-" in name]
    return {
        "english": flowing(genesis.read("genesis/english-kjv.txt").decode("ascii")),
        "german": flowing(german),
        "french": flowing(genesis.read("genesis/french.txt").decode("latin-1")),
        "swedish": flowing(swedish),
        "speeches": flowing("\n".join(re.sub(r"[^\x00-\x7f]", "", speech) for speech in speeches)),
        "verse": (sources / "tinyshakespeare" / "input.txt").read_text(),
        "names": names((sources / "names" / "names.txt").read_text()),
        "code": programs(sources / "humaneval" / "HumanEval.jsonl.gz"),
        "sentiment": reviews(zipfile.ZipFile(sources / "nltk" / "sentence_polarity.zip")),
    }


def flowing(text: str) -> str:
    """Without markup. A sentence may be broken over lines, of which the lengths mean nothing: they become blanks."""
    without = re.sub(r"<h3>.*?</h3>|<[^<>]*>", "", text, flags=re.S | re.I)
    return re.sub(r"\s+", " ", without).strip()


def names(text: str) -> str:
    """Every name once, in an order drawn once: they come with the most frequent first."""
    every = sorted(set(text.split()))
    random.Random(0).shuffle(every)
    return "\n".join(every) + "\n"


def programs(path: Path) -> str:
    """Every problem's signature and docstring with its solution."""
    rows = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
    return "".join(f"{(row['prompt'] + row['canonical_solution']).strip()}\n\n\n" for row in rows)


def reviews(archive: zipfile.ZipFile) -> str:
    """Sentences of a fitting length that say what they think, `+` or `-` before each, in an order drawn once."""
    found: dict[str, set[str]] = {}
    for sign, name in (("+", "pos"), ("-", "neg")):
        for line in archive.read(f"sentence_polarity/rt-polarity.{name}").decode("latin-1").splitlines():
            found.setdefault(flowing(line), set()).add(sign)
    fitting = sorted(
        f"{min(signs)} {text}"
        for text, signs in found.items()
        if SHORT <= len(text) <= LONG and len(signs) == 1 and text.isascii() and says(text) == min(signs)
    )
    random.Random(0).shuffle(fitting)
    return "\n".join(fitting) + "\n"


def says(text: str) -> str:
    """`+` or `-` by the words of a review, empty where they do not say."""
    words = set(text.split())
    praise, blame = (bool(words & set(of.split())) for of in (PRAISE, BLAME))
    return ("+" if praise else "-") if praise != blame else ""


def cut(text: str, sizes: dict[str, int]) -> dict[str, str]:
    """The parts one after the other, each to the end of a line, or of a word where the text has one line."""
    end, parts, at = "\n" if "\n" in text else " ", {}, 0
    for part, size in sizes.items():
        stop = text.index(end, at + size) + 1 if at + size < len(text) else len(text)
        parts[part] = text[at:stop]
        at = stop
    return parts


def train_tokenizer(texts: list[Path], path: Path) -> None:
    """Byte-level BPE, as GPT-2's (Radford et al. 2019), on what models are pre-trained on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BEGIN], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(text) for text in sorted(texts)], trainer)
    tokenizer.save(str(path), pretty=False)


if __name__ == "__main__":
    main()
