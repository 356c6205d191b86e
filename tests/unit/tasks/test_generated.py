"""Generated tasks: the two sides never meet, labels are even, the seed decides, and functions are right."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from umaf.errors import TaskError
from umaf.registry import Registry
from umaf.tasks.generated import FUNCTIONS, GENERATED, KINDS
from umaf.tasks.generated.grammar import FUNCTION_WORDS, SLOT, Grammar, Side, make, mirrored
from umaf.tasks.generated.sentences import grammar, sentences
from umaf.tasks.task import Task, prompt

SIZES = (300, 60, 120)
BUILDERS = Registry("task", "umaf.tasks", GENERATED)


def build(name: str, seed: int = 0, sizes: tuple[int, int, int] = SIZES) -> Task:
    return BUILDERS.get(name)(seed, sizes)  # type: ignore[operator]


def tokens(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9']+", text.lower()))


def content(side: Side) -> set[str]:
    return {
        word for fillers in side.words.values() for filler in fillers for word in tokens(filler)
    } - FUNCTION_WORDS


def frames(side: Side) -> set[str]:
    return {SLOT.sub("_", text) for _, text in side.templates}


def test_enough_kinds_and_functions():
    assert len(KINDS) >= 10
    assert len(FUNCTIONS) >= 6
    assert set(GENERATED) == {f"made/{name}" for name in KINDS + FUNCTIONS}


@pytest.mark.parametrize("name", GENERATED)
def test_templates_of_the_test_are_unseen(name):
    made = grammar(name)
    assert frames(made.seen) & frames(made.unseen) == set()


@pytest.mark.parametrize("name", GENERATED)
def test_content_words_of_the_test_are_unseen(name):
    made = grammar(name)
    assert content(made.seen) & content(made.unseen) == set()


@pytest.mark.parametrize("name", GENERATED)
def test_no_content_word_of_one_side_is_in_any_text_of_the_other(name):
    """Stronger than disjoint lists: the fixed words of the templates give no content word away either."""
    made = grammar(name)
    for mine, other in ((made.seen, made.unseen), (made.unseen, made.seen)):
        fixed = set().union(*(tokens(SLOT.sub(" ", text)) for _, text in other.templates))
        assert content(mine) & fixed == set()


@pytest.mark.parametrize("name", GENERATED)
def test_texts_are_distinct_short_and_never_shared(name):
    task = build(name)
    splits = [[e.text.lower() for e in split] for split in (task.train, task.validation, task.test)]
    assert [len(split) for split in splits] == list(SIZES)
    every = [text for split in splits for text in split]
    assert len(set(every)) == len(every)
    assert all(4 <= len(text.split()) <= 30 for text in every)
    assert not any("{" in text or "}" in text or "  " in text for text in every)


@pytest.mark.parametrize("name", [f"made/{kind}" for kind in KINDS])
def test_labels_are_even_single_words(name):
    task = build(name)
    assert task.kind == "classification"
    assert all(re.fullmatch("[a-z]+", label) for label in task.labels)
    for split in (task.train, task.validation, task.test):
        counts = [sum(e.answer == label for e in split) for label in task.labels]
        assert sum(counts) == len(split)
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("name", [f"made/{kind}" for kind in FUNCTIONS])
def test_functions_answer_with_one_word(name):
    task = build(name)
    assert (task.kind, task.labels) == ("function", ())
    assert all(re.fullmatch(r"[A-Za-z0-9]+", e.answer) for e in task.train + task.test)


@pytest.mark.parametrize("name", GENERATED)
def test_the_seed_decides_everything(name):
    assert build(name, 3) == build(name, 3)
    assert build(name, 3).train != build(name, 4).train


@pytest.mark.parametrize("name", GENERATED)
def test_there_is_headroom(name):
    assert len(build(name, sizes=(2500, 200, 600)).train) == 2500


def test_functions_that_can_be_computed_are_right():
    assert all(e.text.split()[-1] == e.answer for e in build("made/last_word").test)
    assert all(e.text.split()[0] == e.answer for e in build("made/first_word").test)
    for e in build("made/larger").test:
        assert e.answer == str(max(map(int, re.findall(r"\d+", e.text))))
    for name in ("made/colour", "made/creature", "made/after"):
        assert all(e.answer in e.text.replace(",", "").split() for e in build(name).test)


def test_comparison_answers_follow_from_the_text():
    """Work the answer out again from the words, without the grammar."""
    made = grammar("made/comparison")
    for side, examples in (
        (made.seen, build("made/comparison").train),
        (made.unseen, build("made/comparison").test),
    ):
        more = {pair.split("/")[0]: pair for pair in side.words["pair"]}
        for e in examples:
            facts = re.findall(r"([A-Z]\w+) is (\w+) than ([A-Z]\w+)", e.text)
            named = list(dict.fromkeys(name for one, _, two in facts for name in (one, two)))
            over = [(one, two) if word in more else (two, one) for one, word, two in facts]
            top, bottom = (
                {a for a, _ in over} - {b for _, b in over},
                {b for _, b in over} - {a for a, _ in over},
            )
            asked_top = any(pair.split("/")[1] in e.text.split() for pair in side.words["pair"])
            (one,) = top if asked_top else bottom
            assert e.answer == made.labels[named.index(one)]


def test_agency_has_the_same_words_in_both_labels():
    made = grammar("made/agency")
    for side in (made.seen, made.unseen):
        bags = {
            label: sorted(sorted(text.replace(",", "").split()) for a, text in side.templates if a == label)
            for label in made.labels
        }
        assert bags["person"] == bags["animal"]


def test_mirrored_keeps_copies_and_forms():
    made = mirrored(("up", "down"), {"good": "bad"}, "{good2.1} then {what}")
    assert made == (("up", "{good2.1} then {what}"), ("down", "{bad2.1} then {what}"))


def test_a_is_an_before_a_vowel():
    side = Side({"x": ("apple",)}, (("{x}", "here is a {x} now"),))
    tiny = Grammar("tiny", "cue", (), side, side)
    assert make(tiny, 0, (1, 0, 0)).train[0].text == "here is an apple now"


def test_too_many_texts_and_negative_sizes_are_refused():
    side = Side({"x": ("pear",)}, (("{x}", "here is a {x} now"),))
    tiny = Grammar("tiny", "cue", (), side, side)
    with pytest.raises(
        TaskError, match=r"made/tiny was asked for 5 different texts, .* made only 1; ask for fewer"
    ):
        make(tiny, 0, (5, 0, 0))
    with pytest.raises(TaskError, match="sizes must be 0 or more"):
        make(tiny, 0, (-1, 0, 0))
    with pytest.raises(TaskError, match="'made/nothing' was asked for"):
        grammar("made/nothing")


def test_sentences_are_plain_text_of_the_seen_sides():
    text = sentences(0, 400)
    assert text == sentences(0, 400) != sentences(1, 400)
    assert all(line[0] == line[0].upper() and line.endswith(".") for line in text)
    known = {line[:-1].lower() for line in sentences(0, 3000)}
    for name in GENERATED:
        assert not known & {e.text.lower() for e in build(name).test}


def test_prompt_ends_where_the_answer_begins():
    assert prompt("topic", "a goal") == "a goal\ntopic:"


def test_generated_tasks_need_no_torch():
    code = (
        "import sys; from umaf.tasks.generated.sentiment import sentiment; sentiment(0, (8, 2, 2)); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
