"""The words and word pairs that a text is about, by how much of it they are."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tasks.capabilities.text.stopwords import STOPWORDS
from tasks.capabilities.text.words import LONG, Reading, Word

TOGETHER = {"": "", "s": " ", "n": " ", "sn": " "}


def stopwords_for(words: Counter[str]) -> str | None:
    """The language whose stopwords occur most often; the first listed of equals, None without any."""
    hits = {language: sum(words[word] for word in stopwords) for language, stopwords in STOPWORDS.items()}
    best = max(hits, key=lambda language: hits[language])
    return best if hits[best] else None


def keywords(reading: Reading, *, wanted: int, language: str | None) -> list[dict[str, Any]]:
    """At most `wanted` terms: those that are most of the content words first, equals in the order of the text.

    A content word has 2 to 50 characters, is no stopword and no number; a Han character counts, Hiragana does not. Two
    of them that follow one another at least twice are one term wherever they do. The score is the share of the content
    words that the term makes up.
    """
    ignored = STOPWORDS[language] if language else frozenset()
    content = [_is_content(reading, word, ignored) for word in reading.words]
    terms = Counter(_terms(reading, content))
    words = sum(content)
    first = sorted(terms.items(), key=lambda term: -term[1] * term[0][1])[:wanted]
    return [
        {"keyword": term, "count": count, "score": round(count * width / words, 4)} for (term, width), count in first
    ]


def _is_content(reading: Reading, word: Word, ignored: frozenset[str]) -> bool:
    if reading.kind(word) == "H":
        return True
    return 2 <= len(word.key) <= LONG and word.key not in ignored and "L" in reading.shape[word.start : word.end]


def _terms(reading: Reading, content: list[bool]) -> Iterator[tuple[str, int]]:
    """Each term as often as it occurs, with its number of words. A single Han character is none."""
    pairs = _pairs(reading, content)
    repeated = {pair for pair, count in Counter(pairs).items() if pair and count > 1}
    taken = False
    for word, pair, counts in zip(reading.words, pairs, content, strict=True):
        if taken:
            taken = False
        elif pair in repeated:
            taken = True
            yield pair, 2
        elif counts and reading.kind(word) != "H":
            yield word.key, 1


def _pairs(reading: Reading, content: list[bool]) -> list[str | None]:
    """For each word, the pair it makes with the next one, or None."""
    pairs: list[str | None] = []
    for index, (word, after) in enumerate(pairwise(reading.words)):
        between = TOGETHER.get(reading.gap(word, after)) if content[index] and content[index + 1] else None
        pairs.append(None if between is None or word.key == after.key else word.key + between + after.key)
    return [*pairs, None] if reading.words else []
