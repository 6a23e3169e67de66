"""Which script a letter belongs to, by the first word of its Unicode name."""

import unicodedata
from collections import Counter

OTHER = "Other"
WIDTHS = ("FULLWIDTH ", "HALFWIDTH ")
NAMES = """
    Arabic Armenian Balinese Bengali Bopomofo Cherokee Coptic Cyrillic Devanagari Ethiopic Georgian Glagolitic Gothic
    Greek Gujarati Gurmukhi Hangul Hebrew Hiragana Javanese Kannada Katakana Khmer Lao Latin Limbu Malayalam Mongolian
    Myanmar Nko Ogham Oriya Runic Sinhala Sundanese Syriac Tagalog Tamil Telugu Thaana Thai Tibetan Tifinagh Vai Yi
"""
SCRIPTS = {name.upper(): name for name in NAMES.split()} | {
    "CJK": "Han",
    "IDEOGRAPHIC": "Han",
    "CANADIAN": "Canadian Aboriginal",
    "FEMININE": "Latin",
    "MASCULINE": "Latin",
}


def script_of(letter: str) -> str:
    """The script's English name; `Other` for rarer scripts and for letters of none, such as mathematical ones."""
    name = unicodedata.name(letter, "")
    if name.startswith(WIDTHS):
        name = name[len(WIDTHS[0]) :]
    return SCRIPTS.get(name.partition(" ")[0].partition("-")[0], OTHER)


def count_scripts(text: str) -> Counter[str]:
    """Letters per script, in the order of the text. Marks, digits, punctuation and emoji belong to none."""
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if unicodedata.category(character)[0] == "L":
            letters[script_of(character)] += count
    return letters
