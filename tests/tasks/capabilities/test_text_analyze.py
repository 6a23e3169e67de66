"""`text.analyze` as a whole: a golden example, and what holds for any text."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.capabilities.spoken import Listener, bound, run

ENGLISH = """\
Counterfoil runs metered tasks. A task is quoted before it starts, and it is charged once. Dr. Smith paid 3.50 credits \
for a task, e.g. a long one!

"Is a refund possible?" she asked. A refund moves the charged credits back to the balance. Metered tasks that fail are \
free.
"""
LONGEST = 500_000
ANY_TEXT = st.one_of(
    st.text(min_size=1, max_size=300),
    st.text("aA1 .,!?'\"-\n\r\u0301\u200d\u3002東あ🙂ش", min_size=1, max_size=300),
).filter(lambda text: "\x00" not in text)


def test_an_english_text():
    result = run("text.analyze", text=ENGLISH, keywords=4)

    assert result.output == {
        "counts": {
            "characters": 274,
            "words": 51,
            "unique_words": 37,
            "sentences": 6,
            "paragraphs": 2,
            "lines": 3,
        },
        "averages": {"word_length": 4.1, "sentence_length": 8.5},
        "reading_time_seconds": 13,
        "readability": {"flesch_reading_ease": 92.04, "flesch_kincaid_grade": 2.53, "syllables": 64},
        "scripts": [{"script": "Latin", "letters": 205, "share": 1.0}],
        "dominant_script": "Latin",
        "stopwords": "en",
        "keywords": [
            {"keyword": "metered tasks", "count": 2, "score": 0.1481},
            {"keyword": "task", "count": 2, "score": 0.0741},
            {"keyword": "charged", "count": 2, "score": 0.0741},
            {"keyword": "credits", "count": 2, "score": 0.0741},
        ],
    }
    assert result.usage == {"characters": 274, "input_tokens": 87}


def test_a_text_of_two_scripts():
    output = run("text.analyze", text="Hello мир").output

    assert output["scripts"] == [
        {"script": "Latin", "letters": 5, "share": 0.625},
        {"script": "Cyrillic", "letters": 3, "share": 0.375},
    ]
    assert output["dominant_script"] == "Latin"


def test_a_text_without_letters():
    output = run("text.analyze", text="👩\u200d👧 — 🙂!").output

    assert output == {
        "counts": {"characters": 8, "words": 0, "unique_words": 0, "sentences": 0, "paragraphs": 1, "lines": 1},
        "averages": {"word_length": None, "sentence_length": None},
        "reading_time_seconds": 0,
        "readability": None,
        "scripts": [],
        "dominant_script": None,
        "stopwords": None,
        "keywords": [],
    }


@pytest.mark.parametrize(
    ("text", "readable"),
    [("word " * 19, False), ("word " * 20, True), ("слово " * 20, False), ("word " * 20 + "слово", True)],
)
def test_readability_takes_twenty_words_in_latin_letters(text, readable):
    assert (run("text.analyze", text=text).output["readability"] is not None) == readable


def test_as_many_keywords_as_are_wanted_and_ten_by_default():
    text = " ".join(f"word{chr(97 + n)}" for n in range(20))

    assert len(run("text.analyze", text=text).output["keywords"]) == 10
    assert len(run("text.analyze", text=text, keywords=15).output["keywords"]) == 15
    assert run("text.analyze", text=text, keywords=0).output["keywords"] == []


def test_han_is_read_by_the_character():
    assert run("text.analyze", text="字" * 500).output["reading_time_seconds"] == 60


def test_white_space_counts_as_characters_and_not_as_tokens():
    assert run("text.analyze", text="  \n ").usage == {"characters": 4, "input_tokens": 0}


def test_the_stages_are_reported():
    listener = Listener()

    run("text.analyze", listener, text="word")

    assert listener.stages == [(0, "reading"), (40, "measuring"), (70, "keywords")]


@given(text=ANY_TEXT, wanted=st.integers(0, 50))
@settings(max_examples=300, deadline=None)
def test_any_text_is_analyzed_and_its_figures_agree(text, wanted):
    result = run("text.analyze", text=text, keywords=wanted)
    output, counts = result.output, result.output["counts"]

    assert result.usage == bound("text.analyze", text=text)
    assert output == run("text.analyze", text=text, keywords=wanted).output
    assert json.loads(json.dumps(output, allow_nan=False)) == output
    assert counts["characters"] == len(text)
    assert counts["unique_words"] <= counts["words"] <= counts["characters"]
    assert (counts["sentences"] == 0) == (counts["words"] == 0)
    assert counts["sentences"] <= counts["words"]
    assert counts["paragraphs"] <= counts["lines"]
    assert result.usage["input_tokens"] <= len(text)
    assert result.usage["input_tokens"] >= counts["words"] / 2
    assert len(output["keywords"]) <= wanted
    assert sum(found["score"] for found in output["keywords"]) <= 1.01
    assert sum(script["share"] for script in output["scripts"]) == pytest.approx(
        1 if any(map(str.isalpha, text)) else 0, abs=0.01
    )


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        ".!?",
        "a\u0315\u0300",
        "a-",
        "A. ",
        "a.'",
        "Σ'",
        "1.",
        "字",
        "\n",
        "\n a",
        "ab ",
        "👩\u200d👧",
        "é-",
        ". ''' ",
    ],
)
def test_a_hostile_text_takes_linear_time(pattern):
    _, briefly = timed(of(pattern, LONGEST // 40))
    result, long = timed(of(pattern, LONGEST // 4))

    assert long < 40 * briefly + 1
    assert result.usage["characters"] == LONGEST // 4
    assert len(json.dumps(result.output)) < 10_000


def of(pattern, length):
    return (pattern * length)[:length]


def timed(text):
    """The result, and the processor's seconds."""
    started = time.process_time()
    result = run("text.analyze", text=text, keywords=50)
    return result, time.process_time() - started


def test_all_of_unicode_takes_about_as_long_as_english():
    text = "".join(chr(code) for code in range(1, LONGEST) if not 0xD800 <= code < 0xE000)

    _, usual = timed(of(ENGLISH, len(text)))
    result, took = timed(text)

    assert took < 20 * usual
    assert {"Latin", "Han", "Arabic", "Thai", "Other"} <= {script["script"] for script in result.output["scripts"]}
