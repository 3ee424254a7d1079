"""Text in the package and tasks made of it: what a language model reads, and what it is to say. No training in here."""

from tombola.data.text.items import Item, TextTask
from tombola.data.text.tokenizer import tiny_tokenizer
from tombola.data.text.user_tasks import read_tasks

__all__ = ["Item", "TextTask", "read_tasks", "tiny_tokenizer"]
