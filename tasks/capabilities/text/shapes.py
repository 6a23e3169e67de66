"""A text's shape: one ASCII character for each of its own, so that rules about Unicode are short regular expressions.

    L  letter, Katakana included        H  Han     K  Hiragana     N  number
    M  mark, joiner or soft hyphen      s  space                   n  line feed
    .  full stop                        ,  comma                   '  apostrophe     -  hyphen
    !  other end of a sentence          |  end of a sentence that needs no space after it
    )  closing bracket or quote         o  anything else

Which letters and marks there are is what Python's Unicode database says.
"""

import re
import unicodedata

from tasks.capabilities.text.scripts import script_of

SPECIAL = {
    ord(character): kind
    for kind, characters in {
        "n": "\n\u2028\u2029",
        "s": "\u200b",
        "M": "\u00ad\u200c\u200d\u2060",
        ".": ".",
        ",": ",",
        "'": "'\u2019",
        "-": "-\u2010\u2011",
        "!": "!?\u2026\u203d\u0589\u061f\u06d4\u0964\u0965\u1362\u17d4",
        "|": "\u3002\uff01\uff0e\uff1f\uff61",
        ")": '"',
    }.items()
    for character in characters
}
BY_CATEGORY = {"M": "M", "N": "N", "Pe": ")", "Pf": ")"}
BY_SCRIPT = {"Han": "H", "Hiragana": "K"}
TOKEN = re.compile(r"[LM]{1,4}+|N{1,3}+|[^sn]")


class _Kinds(dict[int, str]):
    """What each character of one text is; looked up once."""

    def __missing__(self, code: int) -> str:
        kind = self[code] = _kind(chr(code))
        return kind


def shape_of(text: str) -> str:
    """The text's shape, of the same length."""
    return text.translate(_Kinds(SPECIAL))


def count_tokens(shape: str) -> int:
    """How many tokens it is: up to four letters and marks, up to three digits, or one of anything else but space."""
    return len(TOKEN.findall(shape))


def _kind(character: str) -> str:
    if character.isspace():
        return "s"
    category = unicodedata.category(character)
    if category[0] == "L":
        return BY_SCRIPT.get(script_of(character), "L")
    return BY_CATEGORY.get(category) or BY_CATEGORY.get(category[0]) or "o"
