"""How texts are read, rule by rule."""
# ruff: noqa: RUF001 - letters that look like others are the point

from collections import Counter

import pytest

from tasks.capabilities.text.keywords import keywords, stopwords_for
from tasks.capabilities.text.readability import syllables
from tasks.capabilities.text.scripts import count_scripts
from tasks.capabilities.text.shapes import count_tokens, shape_of
from tasks.capabilities.text.words import Reading


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("One two", ["one", "two"]),
        ("don’t DON'T", ["don't", "don't"]),
        ("well-known rock 'n' roll -", ["well-known", "rock", "n", "roll"]),
        ("3.14 1,000 v2 4th 1. a.b", ["3.14", "1,000", "v2", "4th", "1", "a", "b"]),
        ("snake_case a@b.cd", ["snake", "case", "a", "b", "cd"]),
        ("e\u0301t\u00e9", ["\u00e9t\u00e9"]),
        ("नमस्ते", ["नमस्ते"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("co\u00adoperate", ["co\u00adoperate"]),
        ("任务 ok", ["任", "务", "ok"]),
        ("です", ["で", "す"]),
        ("カタログ", ["カタログ"]),
        ("한국어 말", ["한국어", "말"]),
        ("🙂 👩\u200d👧 🇪🇺 — … !?", []),
        (" \n\t", []),
    ],
)
def test_words(text, words):
    assert [word.key for word in Reading(text).words] == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("no end", 1),
        ("One. Two! Three? Four… Five", 5),
        ("Wait... he said. Really?!", 2),
        ('"Is it?" she asked. (It is.) Yes.', 3),
        ("Dr. Smith met J. R. Jones, e.g. at 3.50 Euro.", 1),
        ("Call me! Now", 2),
        ("A heading\n\nA text", 2),
        ("A heading\r\n \r\nA text", 2),
        ("one\nline", 1),
        ("我来。他走！为什么？", 3),
        ("नमस्ते। ठीक", 2),
        ("مرحبا؟ نعم", 2),
        ("... !!! ???", 0),
        ("🙂. 🙂.", 0),
    ],
)
def test_sentences(text, sentences):
    assert Reading(text).sentences() == sentences


@pytest.mark.parametrize(
    ("text", "paragraphs"),
    [("a", 1), ("a\nb", 1), ("a\n\nb", 2), ("\n\na\n \t\nb\n\n", 2), ("a\r\n\r\nb", 2), (" \n\n ", 0)],
)
def test_paragraphs(text, paragraphs):
    assert Reading(text).paragraphs() == paragraphs


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        (" \n\t\u3000", 0),
        ("a", 1),
        ("four", 1),
        ("fiver", 2),
        ("twelve chars", 4),
        ("1234567", 3),
        ("v12", 2),
        ("3.14", 3),
        ("wow!?", 3),
        ("e\u0301te\u0301", 2),
        ("任务です", 4),
        ("カタログ", 1),
        ("🙂🙂", 2),
    ],
)
def test_tokens(text, tokens):
    assert count_tokens(shape_of(text)) == tokens


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("Straße", {"Latin": 6}),
        ("ＡＢｃ", {"Latin": 3}),
        ("Ελλάδα", {"Greek": 6}),
        ("Привет", {"Cyrillic": 6}),
        ("שָׁלוֹם", {"Hebrew": 4}),
        ("مرحبا", {"Arabic": 5}),
        ("नमस्ते", {"Devanagari": 4}),
        ("ไทย", {"Thai": 3}),
        ("한국", {"Hangul": 2}),
        ("日本々", {"Han": 3}),
        ("ひらカター", {"Hiragana": 2, "Katakana": 3}),
        ("ｶﾀﾛｸﾞ", {"Katakana": 5}),
        ("ᐃᓄᒃ", {"Canadian Aboriginal": 3}),
        ("𝒜𐤀", {"Other": 2}),
        ("ab я 12 🙂 !", {"Latin": 2, "Cyrillic": 1}),
        ("123 🙂", {}),
    ],
)
def test_scripts(text, scripts):
    assert count_scripts(text) == Counter(scripts)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "the smile smiles wished called cheese rhythm café tsk 42 me e"),
        (2, "table tables wishes wanted metered credits balance reading idea"),
        (3, "possible area's-end banana"),
        (4, "state-of-the-art"),
    ],
)
def test_syllables(count, words):
    assert {word: syllables(word) for word in words.split()} == dict.fromkeys(words.split(), count)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("beta alpha gamma", ["beta", "alpha", "gamma"]),
        ("beta alpha gamma alpha", ["alpha", "beta", "gamma"]),
        ("The rate card is new. A rate card has prices.", ["rate card", "new", "prices"]),
        ("rate, card. rate\ncard", ["rate", "card"]),
        ("knock knock knock", ["knock"]),
        ("Résumé re\u0301sume\u0301", ["résumé"]),
        ("a I 42 3.14 x", []),
        ("w" * 50 + " " + "x" * 51, ["w" * 50]),
        ("东京大。东京", ["东京"]),
        ("これはクラウドです", ["クラウド"]),
        ("Der Wert und der Preis", ["wert", "preis"]),
    ],
)
def test_keywords(text, terms):
    reading = Reading(text)
    language = stopwords_for(Counter(word.key for word in reading.words))

    assert [found["keyword"] for found in keywords(reading, wanted=50, language=language)] == terms


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the cat and the dog", "en"),
        ("der Hund und die Katze", "de"),
        ("le chien et le chat", "fr"),
        ("el perro y los gatos", "es"),
        ("il cane e gli gatti", "it"),
        ("os cães e não gatos", "pt"),
        ("de hond en het kat", "nl"),
        ("кот и пёс", None),
        ("42", None),
    ],
)
def test_stopwords_are_of_the_language_that_has_most_of_them(text, language):
    assert stopwords_for(Counter(word.key for word in Reading(text).words)) == language
