"""Flesch reading ease and Flesch-Kincaid grade: made for English, comparable within any one Latin language."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from tasks.capabilities.text.words import LONG

LEAST_WORDS = 20
LEAST_LATIN = 0.9
VOWELS = re.compile(r"[aeiouy]+")
# A final e, es or ed after a consonant; not in -ble or -tle, not in -ted or -ded, not in -ses, -ches and the like.
SILENT = re.compile(r"(?<=[^aeiouy])(?<![^aeiouyl]l)(?:e|(?<![td])ed|(?<![sxzcg])(?<!ch)(?<!sh)es)$")


def readability(words: Mapping[str, int], *, sentences: int, scripts: Counter[str]) -> dict[str, float] | None:
    """Both scores and the syllables they count; None below 20 words, or when under 90 % of the letters are Latin."""
    total = sum(words.values())
    if total < LEAST_WORDS or scripts["Latin"] < LEAST_LATIN * scripts.total():
        return None
    spoken = sum(syllables(word) * count for word, count in words.items())
    return {
        "flesch_reading_ease": round(206.835 - 1.015 * total / sentences - 84.6 * spoken / total, 2),
        "flesch_kincaid_grade": round(0.39 * total / sentences + 11.8 * spoken / total - 15.59, 2),
        "syllables": spoken,
    }


def syllables(word: str) -> int:
    """Groups of the vowels a e i o u y, less one for a silent ending; at least one for each part of a compound."""
    return sum(max(1, len(VOWELS.findall(part)) - bool(SILENT.search(part))) for part in _plain(word).split("-"))


def _plain(word: str) -> str:
    """The word without diacritics."""
    if word.isascii() or len(word) > LONG:
        return word
    return "".join(letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter))
