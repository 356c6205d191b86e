"""Topic of a sentence: six topics, all in the same frames, so that only the nouns tell them apart."""

from __future__ import annotations

from umaf.tasks.generated.grammar import Grammar, Side, Sizes, each, make, words
from umaf.tasks.generated.lexicon import seen, unseen
from umaf.tasks.task import Task

LABELS = ("sport", "food", "music", "money", "travel", "health")

SEEN = Side(
    {
        **seen("name"),
        "sport": words("goal, team, coach, match, player, race, stadium, trophy, striker, tennis"),
        "food": words("bread, soup, cheese, pasta, recipe, salad, sauce, cake, onion, butter"),
        "music": words("song, guitar, piano, band, melody, drummer, violin, choir, singer, chorus"),
        "money": words("bank, loan, tax, price, budget, salary, debt, market, investor, profit"),
        "travel": words("hotel, flight, train, luggage, passport, beach, tourist, ticket, airport, island"),
        "health": words("doctor, hospital, fever, medicine, nurse, pain, patient, cough, surgery, vitamin"),
    },
    each(
        LABELS,
        "we spent the evening talking about the {x1} and the {x2}",
        "{name} told me a long tale about the {x1} and the {x2}",
        "the paper had a page on the {x1}, the {x2} and the {x3}",
        "they asked {name} about the {x1} after the {x2}",
        "I read that the {x1} and the {x2} were better this year",
        "there was a short report on the {x1} near the {x2}",
        "for {name} the {x1} matters more than the {x2}",
        "without the {x1} there would be no {x2}, says {name}",
    ),
)

UNSEEN = Side(
    {
        **unseen("name"),
        "sport": words(
            "game, football, referee, league, champion, goalkeeper, swimmer, tournament, marathon, runner"
        ),
        "food": words("chicken, rice, pizza, chocolate, potato, sandwich, chef, dessert, pie, breakfast"),
        "music": words("orchestra, concert, tune, trumpet, rhythm, flute, composer, symphony, drum, pianist"),
        "money": words("cash, cost, mortgage, income, fund, insurance, account, wage, savings, payment"),
        "travel": words("journey, trip, plane, suitcase, map, cruise, hostel, visa, holiday, station"),
        "health": words("disease, illness, clinic, headache, pill, dentist, vaccine, virus, flu, wound"),
    },
    each(
        LABELS,
        "{name} knows a lot about the {x1} and the {x2}",
        "my neighbour never stops complaining about the {x1} or the {x2}",
        "this is the {x1} that changed how we see the {x2}",
        "late at night {name} wrote to me about the {x1} and the {x2}",
        "first came the {x1}, then the {x2}, and {name} was happy",
        "every question was about the {x1} and the {x2}",
    ),
)

GRAMMAR = Grammar("topic", "topic", LABELS, SEEN, UNSEEN)


def topic(seed: int = 0, sizes: Sizes = (1000, 200, 400)) -> Task:
    """Make the task: which of six topics is the sentence about?

    Args:
        seed: the same seed gives the same task.
        sizes: how many train, validation and test examples.

    Raises:
        TaskError: more texts were asked for than the grammar can make.

    Example:
        >>> task = topic(sizes=(20, 4, 8))
        >>> len(task.test), task.labels
        (8, ('sport', 'food', 'music', 'money', 'travel', 'health'))
    """
    return make(GRAMMAR, seed, sizes)
