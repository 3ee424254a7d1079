"""Links of README and docs: files and headings inside the repository are there; outside ones are only looked at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Targets of a page's links and pictures; code is none of its text."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    return LINK.findall(text)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def wrong(page: Path, link: str) -> str | None:
    """What is wrong with a link on a page."""
    if re.match(r"[a-z]+:", link):
        parts = urlsplit(link)
        fine = parts.scheme == "https" and re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc)
        return None if fine else f"{link} is no address that begins with https://"
    target, _, anchor = link.partition("#")
    file = (page.parent / target).resolve() if target else page
    if not file.exists() or not file.is_relative_to(ROOT):
        return f"{link}: there is no such file"
    if page.is_relative_to(DOCS) and not file.is_relative_to(DOCS):
        return f"{link} leads out of docs/, where the site has no page"
    return f"{link}: no heading is called so" if anchor and anchor not in anchors(file) else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [problem for link in links(page) if (problem := wrong(page, link))] == []


def test_what_leads_nowhere_is_found() -> None:
    page = DOCS / "lottery.md"
    for link in (
        "nowhere.md",
        "#nothing",
        "guide/keras.md#nothing",
        "../README.md",
        "http://a.org",
        "https://a",
        "mailto:a",
    ):
        assert wrong(page, link), link
    for link in ("guide/keras.md", "#the-verdict", "https://arxiv.org/abs/1803.03635", "images/lottery-digits.png"):
        assert not wrong(page, link), link


def test_the_site_has_every_page_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(_pages(site["nav"])) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def _pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in _pages(part)]
