"""What pyproject.toml cannot say: a package index shows the README, but no pictures and pages of this repository."""

import re
from pathlib import Path

from setuptools import setup


def for_an_index(readme: str) -> str:
    """The README without its pictures and their captions, and with links into the repository as plain words."""
    without = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n\n(?:\*[^*]+\*\n\n)?", "", readme, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]+)\]\((?!https?://|#)[^)]*\)", r"\1", without)


setup(
    long_description=for_an_index((Path(__file__).parent / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
