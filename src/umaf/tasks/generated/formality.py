"""Formality: the same errand said to an official or to a friend, sometimes in one frame for both."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, labelled, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("formal", "casual")

SEEN = Side(
    {
        **seen("name"),
        "do": words(
            "obtain the documents/get the papers, assist the guests/help out the folks, "
            "commence the meeting/kick off the chat, purchase a vehicle/buy some wheels, "
            "inform the manager/tip off the boss, consume the meal/scoff the grub, "
            "depart from the building/clear out of here, repair the device/fix the gadget, "
            "reside with the family/crash with the gang, dispose of the garments/dump the clothes"
        ),
        "when": words("today, tomorrow, on Monday, next week, before noon, after lunch"),
    },
    labelled(
        "formal",
        "I am writing to ask that you {do.0} {when}",
        "we would be grateful if you could {do.0} {when}",
        "please be advised that {name} shall {do.0} {when}",
        "it is necessary to {do.0} {when} without delay",
        "we regret that {name} cannot {do.0} {when}",
        "{name} has to {do.0} {when}",
        "{name} and {name2} will {do.0} {when}",
        "it was {name} who wanted to {do.0} {when}",
    )
    + labelled(
        "casual",
        "hey {name}, can you {do.1} {when} or what",
        "gotta {do.1} {when}, see you later, {name}",
        "I'm gonna {do.1} real quick {when}",
        "wanna {do.1} with me {when}, mate",
        "don't forget to {do.1} {when}, okay {name}",
        "{name} has to {do.1} {when}",
        "{name} and {name2} will {do.1} {when}",
        "it was {name} who wanted to {do.1} {when}",
    ),
)

UNSEEN = Side(
    {
        **unseen("name"),
        "do": words(
            "examine the proposal/eyeball the plan, terminate the contract/ditch the deal, "
            "accompany the children/tag along with the kids, attend the celebration/hit the party, "
            "transmit the funds/send over the cash, conclude the discussion/wrap up the talk, "
            "retain the position/hang on to the job, demonstrate the method/show off the trick"
        ),
        "when": words("this evening, in March, tonight, on Friday, this year"),
    },
    labelled(
        "formal",
        "kindly {do.0} at your earliest convenience {when}",
        "the committee wishes to {do.0} {when}",
        "one ought to {do.0} in due course, as {name} has stated",
        "should you wish to {do.0} {when}, do not hesitate to contact {name}",
        "{name} is ready to {do.0} {when}",
        "perhaps {name} could {do.0} {when}",
    )
    + labelled(
        "casual",
        "yeah, let's just {do.1} {when}",
        "guys, we totally need to {do.1} {when}",
        "c'mon {name}, {do.1} already",
        "I'd kinda like to {do.1} {when}, you know",
        "{name} is ready to {do.1} {when}",
        "perhaps {name} could {do.1} {when}",
    ),
)

GRAMMAR = Grammar("formality", "style", LABELS, SEEN, UNSEEN)


def formality(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: is the sentence formal or casual?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = formality(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('formal', 'casual'))
    """
    return make(GRAMMAR, seed, sizes)
