"""Intent of a request to an assistant, with distractors: "forget the song and text my boss" is a message."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, each, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("music", "weather", "travel", "food", "alarm", "message")

SEEN = Side(
    {
        **seen("name"),
        "music": words(
            "play some jazz, play my favourite song, put on the new album, start the piano playlist"
        ),
        "weather": words(
            "check if it will rain, tell me how cold it is, see if snow is coming, look at the weather "
            "forecast"
        ),
        "travel": words("book a flight, find a train, reserve a hotel, get two bus passes"),
        "food": words(
            "order some noodles, find a lunch place, get a soup recipe, reserve a table for dinner"
        ),
        "alarm": words("wake me at six, set an alarm for nine, start a timer for lunch, remind me at noon"),
        "message": words("text my boss, send a note, write an email, call my mother"),
        "noise": words("song, rain, flight, soup, alarm, email, snow, train, album, forecast"),
        "when": words("today, tomorrow, this week, next Monday, tonight"),
    },
    each(
        LABELS,
        "please {x} {when}",
        "hey, {x} right now",
        "I want you to {x} {when}",
        "can you {x} for {name}",
        "forget the {noise} and {x}",
        "{x}, never mind the {noise}",
        "{name} asked about the {noise}, but you should {x} {when}",
        "{x} for {name} once the {noise} is done",
    ),
)

UNSEEN = Side(
    {
        **unseen("name"),
        "music": words("turn up the radio, stream a rock concert, choose a happy tune, repeat that melody"),
        "weather": words(
            "learn how windy it feels, show the temperature, say how sunny it gets, warn of any storm"
        ),
        "travel": words("rent a car, arrange a taxi, plan my journey, compare plane fares"),
        "food": words("suggest a dish, bring me fried chicken, deliver three burgers, choose a pizza"),
        "alarm": words(
            "ring the bell at seven, count down thirty seconds, beep at midnight, stop the clock buzzer"
        ),
        "message": words("phone the dentist, reply to my uncle, mail a letter, dial the plumber"),
        "noise": words("storm, tune, plane, pizza, letter, clock, taxi, radio, phone, dish"),
        "when": words("later, in the morning, on Friday, in March"),
    },
    each(
        LABELS,
        "would you {x} {when}",
        "don't bother with the {noise}, just {x}",
        "{name} and I need you to {x} {when}",
        "my only wish is that you {x}",
        "not the {noise} again, {x} instead",
        "while {name} is busy with the {noise}, {x}",
    ),
)

GRAMMAR = Grammar("intent", "intent", LABELS, SEEN, UNSEEN)


def intent(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: what does the speaker want done?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = intent(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('music', 'weather', 'travel', 'food', 'alarm', 'message'))
    """
    return make(GRAMMAR, seed, sizes)
