"""Question, statement or command with no mark at the end: word order tells ("can you", "you can")."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("question", "statement", "command")

SEEN = Side(
    seen("name", "person", "action"),
    labelled(
        "question",
        "do you {action.0} in the morning",
        "did {name} {action.0} yesterday",
        "can you {action.0} for me",
        "why does the {person} {action.0}",
        "who is the one that {action.2} last night",
        "will {name} {action.0} tomorrow",
        "are you {action.3} with {name}",
    )
    + labelled(
        "statement",
        "you do {action.0} in the morning",
        "{name} did {action.0} yesterday",
        "you can {action.0} for me",
        "that is why the {person} does {action.0}",
        "{name} is the one who {action.2} last night",
        "{name} will {action.0} tomorrow",
        "you are {action.3} with {name}",
    )
    + labelled(
        "command",
        "{action.0} in the morning",
        "do {action.0} for me, {name}",
        "{action.0} before the {person} does",
        "never {action.0} without {name}",
        "don't {action.0} yet, {name}",
        "let {name} {action.0} tomorrow",
        "{action.0} with {name} for the {person}",
    ),
)

UNSEEN = Side(
    unseen("name", "person", "action"),
    labelled(
        "question",
        "should the {person} {action.0} tonight",
        "when will you {action.0} again, {name}",
        "is {name} {action.3} at home",
        "would you {action.0} with us",
        "what did {name} say when the {person} {action.2}",
    )
    + labelled(
        "statement",
        "the {person} should {action.0} tonight",
        "you will {action.0} again when {name} comes",
        "{name} is {action.3} at home",
        "you would {action.0} with us",
        "that is what {name} did when the {person} {action.2}",
    )
    + labelled(
        "command",
        "{action.0} with us tonight",
        "go and {action.0} at home",
        "please {action.0} again, {name}",
        "always {action.0} when the {person} is away",
        "{action.0} when {name} is here, not when the {person} is",
    ),
)

GRAMMAR = Grammar("question", "form", LABELS, SEEN, UNSEEN)


def question(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: is it a question, a statement or a command?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = question(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('question', 'statement', 'command'))
    """
    return make(GRAMMAR, seed, sizes)
