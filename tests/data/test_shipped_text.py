"""The text in the package: whole, small, and cut so that nothing held out is ever read before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tombola.data.home import data_home
from tombola.data.text import shipped_text, tiny_tokenizer
from tombola.data.text.shipped_text import FOLDER, PRETRAINING, text_of
from tombola.errors import DataError


def test_all_of_it_is_small_and_as_it_was_made() -> None:
    sums = json.loads((FOLDER / "checksums.json").read_text())
    made = {path.name for path in FOLDER.iterdir()} - {"SOURCES.md", "checksums.json"}
    assert made == set(sums)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 1_000_000
    for name in sums:
        assert shipped_text.shipped_bytes(name)


def test_a_damaged_text_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("german.train.txt", "checksums.json"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    monkeypatch.setattr(shipped_text, "FOLDER", tmp_path)
    assert shipped_text.shipped_bytes("german.train.txt")
    file = tmp_path / "german.train.txt"
    file.write_bytes(file.read_bytes().replace(b"Gott", b"Baal", 1))
    with pytest.raises(DataError, match=r"german.train.txt: is damaged, its checksum"):
        shipped_text.shipped_bytes("german.train.txt")


def test_every_text_says_where_it_is_from() -> None:
    said = (FOLDER / "SOURCES.md").read_text()
    kinds = {path.name.partition(".")[0] for path in FOLDER.glob("*.txt")}
    assert all(f"`{kind}.*`" in said for kind in kinds)
    assert "Bo Pang and Lillian Lee" in said
    assert "CC BY 4.0" in said
    assert "Copyright (c) OpenAI" in said


@pytest.mark.parametrize("kind", [kind for kind in PRETRAINING if kind not in ("english", "names")])
def test_parts_of_a_text_share_no_sentence(kind: str) -> None:
    """Of a length that does not come twice by chance."""
    before = text_of(kind, "pretraining")
    for part in ("train", "held_out"):
        text = text_of(kind, part)
        assert not [at for at in range(0, len(text) - 200, 200) if text[at : at + 200] in before]
        before += text


def test_no_name_is_in_two_parts() -> None:
    parts = [set(text_of("names", part).split()) for part in ("pretraining", "train", "held_out")]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


def test_the_probe_and_what_is_not_public_domain_are_no_part_of_pretraining() -> None:
    there = {path.name.partition(".")[0] for path in FOLDER.glob("*.pretraining.txt")}
    assert there == set(PRETRAINING)
    assert not there & {"swedish", "code", "sentiment"}


def test_the_tokenizer_says_every_text_again() -> None:
    pytest.importorskip("transformers")
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == 512
    for text in ("In the beginning", "Grüße, ça va?\n\n\tif x:", " leading", "日本 \x00"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert tokenizer.bos_token_id not in ids


@pytest.mark.skipif(not (data_home() / "text" / "nltk").exists(), reason="the sources are not here")
def test_it_is_made_from_its_sources(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    script = Path(__file__).parents[2] / "benchmarks" / "make_shipped_text.py"
    command = [sys.executable, str(script), str(data_home() / "text"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "checksums.json").read_text() == (FOLDER / "checksums.json").read_text()
