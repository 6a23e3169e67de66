"""Words, sentences and paragraphs of a text, by its shape."""

import re
import unicodedata
from itertools import pairwise
from typing import NamedTuple

from tasks.capabilities.text.shapes import shape_of

# One Han or Hiragana character, or letters and digits with an apostrophe or hyphen between them, or 3.14 and 1,000.
WORD = re.compile(r"[HK]M*+|[LN][LNM]*+(?:(?:['-](?=[LN])|(?<=N)[.,](?=N))[LN][LNM]*+)*+")
BLANK_LINE = re.compile(r"ns*+n")
STOP = re.compile(r"[.!][)']*+[sn]")
ABBREVIATIONS = frozenset(["dr", "fig", "jr", "mr", "mrs", "ms", "prof", "sr", "st", "vs"])
# Longer words are neither keywords nor brought into a normal form, which takes quadratic time over many marks.
LONG = 50
ONE_SPELLING = str.maketrans({"\u2019": "'", "\u2010": "-", "\u2011": "-"})


class Word(NamedTuple):
    """A word: where it stands, and how it is compared."""

    start: int
    end: int
    key: str


class Reading:
    """A text with its shape and its words; each pass over it is linear."""

    def __init__(self, text: str) -> None:
        self.text, self.shape = text, shape_of(text)
        spans = (match.span() for match in WORD.finditer(self.shape))
        self.words = [Word(start, end, _key(text[start:end])) for start, end in spans]

    def kind(self, word: Word) -> str:
        """What the word's first character is."""
        return self.shape[word.start]

    def gap(self, before: Word, after: Word) -> str:
        """The shape of what stands between two words."""
        return self.shape[before.end : after.start]

    def sentences(self) -> int:
        """How many sentences have a word in them."""
        ends = sum(self._sentence_ends(before, after) for before, after in pairwise(self.words))
        return ends + bool(self.words)

    def paragraphs(self) -> int:
        """How many blocks of lines there are between blank lines."""
        written = [not line.isspace() and line != "" for line in self.text.splitlines()]
        return sum(here and not above for above, here in pairwise([False, *written]))

    def _sentence_ends(self, before: Word, after: Word) -> bool:
        gap = self.gap(before, after)
        if "|" in gap or BLANK_LINE.search(gap):
            return True
        if not STOP.search(gap) or self.text[after.start].islower():
            return False
        abbreviated = before.key in ABBREVIATIONS or (len(before.key) == 1 and before.key.isalpha())
        return "!" in gap or not abbreviated


def _key(word: str) -> str:
    """A word as it is compared: in lower case and one spelling."""
    if not word.isascii():
        word = word.translate(ONE_SPELLING)
        if len(word) <= LONG:
            word = unicodedata.normalize("NFC", word)
    return word.lower()
