"""`text.analyze`: counts, scripts, readability and keywords of a text; offline, and the same for the same text.

The output, floats rounded to two places, shares and scores to four:

    counts       characters (code points), words, unique_words, sentences, paragraphs, lines
    averages     word_length (characters), sentence_length (words); null without words
    reading_time_seconds   at 238 words, or 500 Han and Hiragana characters, a minute; rounded up
    readability  flesch_reading_ease, flesch_kincaid_grade, syllables; null below 20 words, and when under 90 % of the
                 letters are Latin. A syllable is a group of the vowels a e i o u y, less a silent ending.
    scripts      [{script, letters, share}], most letters first; dominant_script: the first of them, or null
    stopwords    the language whose stopwords were left out of the keywords: en de fr es it pt nl, or null
    keywords     [{keyword, count, score}], best first; `keywords.py` beside says how

A word is letters and digits, with apostrophes and hyphens inside; each Han or Hiragana character is one. A sentence has
a word, and ends with a blank line, an East Asian full stop, or a full stop, question or exclamation mark before white
space, unless the next word begins in lower case or the last one is an initial or a title.

The meters: `characters` counts code points. `input_tokens` counts, in runs from the left, up to four letters (marks
among them), up to three digits, and one for each Han or Hiragana character and any other character that is no white
space. Both are exact before the work, so a quote is what will be charged.
"""

import math
from collections import Counter
from typing import Any

from tasks.capabilities import Context, Result, Usage, capability
from tasks.capabilities.inputs import Input, Integer, Text
from tasks.capabilities.text.keywords import keywords, stopwords_for
from tasks.capabilities.text.readability import readability
from tasks.capabilities.text.scripts import count_scripts
from tasks.capabilities.text.shapes import count_tokens, shape_of
from tasks.capabilities.text.words import Reading

MAX_TEXT = 500_000
WORDS_A_MINUTE = 238
CHARACTERS_A_MINUTE = 500


class TextAnalyzeInput(Input):
    text = Text(max_length=MAX_TEXT)
    keywords = Integer(min_value=0, max_value=50, default=10, help_text="How many, at most.")


@capability("text.analyze", meters=["characters", "input_tokens"])
class TextAnalyze:
    input = TextAnalyzeInput
    example = {
        "text": "A counterfoil is the half that the issuer keeps. It proves that they match.",
        "keywords": 5,
    }

    def bound(self, input: dict[str, Any]) -> Usage:
        return _usage(shape_of(input["text"]))

    def run(self, input: dict[str, Any], context: Context) -> Result:
        context.progress(0, "reading")
        reading = Reading(input["text"])
        words = Counter(word.key for word in reading.words)
        language = stopwords_for(words)
        context.progress(40, "measuring")
        measured = _measures(reading, words)
        context.progress(70, "keywords")
        found = keywords(reading, wanted=input["keywords"], language=language)
        return Result({**measured, "stopwords": language, "keywords": found}, _usage(reading.shape))


def _usage(shape: str) -> Usage:
    return {"characters": len(shape), "input_tokens": count_tokens(shape)}


def _measures(reading: Reading, words: Counter[str]) -> dict[str, Any]:
    sentences, scripts = reading.sentences(), count_scripts(reading.text)
    return {
        "counts": {
            "characters": len(reading.text),
            "words": len(reading.words),
            "unique_words": len(words),
            "sentences": sentences,
            "paragraphs": reading.paragraphs(),
            "lines": len(reading.text.splitlines()),
        },
        "averages": {
            "word_length": _mean(sum(word.end - word.start for word in reading.words), len(reading.words)),
            "sentence_length": _mean(len(reading.words), sentences),
        },
        "reading_time_seconds": _reading_time(reading),
        "readability": readability(words, sentences=sentences, scripts=scripts),
        "scripts": [
            {"script": script, "letters": letters, "share": round(letters / scripts.total(), 4)}
            for script, letters in scripts.most_common()
        ],
        "dominant_script": next((script for script, _ in scripts.most_common(1)), None),
    }


def _mean(total: int, count: int) -> float | None:
    return round(total / count, 2) if count else None


def _reading_time(reading: Reading) -> int:
    single = sum(reading.kind(word) in "HK" for word in reading.words)
    return math.ceil(60 * ((len(reading.words) - single) / WORDS_A_MINUTE + single / CHARACTERS_A_MINUTE))
