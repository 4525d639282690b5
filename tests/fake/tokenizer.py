"""How the fake counts tokens: by length, or with a real vocabulary."""

from __future__ import annotations

from typing import Callable

Count = Callable[[str], int]

CHARS, BPE = "chars", "bpe"


def by_length(text: str) -> int:
    """One token per four characters, rounded up."""
    return (len(text) + 3) // 4


def tokenizer(name: str) -> Count:
    """The tokenizer of that name. ``bpe`` is OpenAI's o200k_base.

    Raises ``ImportError`` if the package that has the vocabulary is missing.
    """
    if name != BPE:
        return by_length
    # Imported late: only this needs a package outside the standard library,
    # and it is a large one.
    from rs_bpe.bpe import openai

    encoding = openai.o200k_base()
    # A lone surrogate cannot be handed to it; on the wire it is a ``?`` too.
    return lambda text: encoding.count(text.encode("utf-8", "replace").decode())
