"""Write src/umaf/tasks/splits.json: which capabilities, classes and texts may train and which are held out.

    python -m zoo.split

It reads names only (labels.json and file names), draws with one fixed seed, and is run before anything is
trained. Whole families are held out: no sentiment set trains anything while mr_polarity is held out.
"""

from __future__ import annotations

import argparse
import json
from itertools import chain
from pathlib import Path

import numpy as np

from umaf import seeds
from umaf.tasks import door, words

SEED = 20
DERIVED = {"train": {"clinc150": 192, "banking77": 96}, "validation": {"clinc150": 24, "banking77": 8}}
TARGET = Path(__file__).resolve().parents[1] / "src/umaf/tasks/splits.json"

CLASSIFICATION = {
    "train": ["goemotions28", "goemotions_ekman7", "mnli", "boolq_nopassage", "strategyqa_yesno"],
    "validation": ["snli", "qnli"],
    "heldout": [
        "snips7", "pros_cons", "mr_polarity", "movie_reviews_long", "sentlabel_amazon_cells", "sentlabel_imdb",
    ],
    # Their classes are split below; the whole sets would carry held-out classes.
    "by_class": ["banking77", "clinc150"],
    # Its texts are those of clinc150, whose classes are split.
    "left_out": ["clinc10_domain"],
}  # fmt: skip

FUNCTIONS_HELDOUT = [
    "fv/capitalize_first_letter", "fv/lowercase_first_letter", "ii/first_word_letter", "ii/orthography_starts_with",
    "fv/singular-plural", "ii/singular_to_plural", "fv/choose_last_of_3", "fv/choose_last_of_5",
    "fv/color_v_animal_3", "fv/color_v_animal_5", "fv/verb_v_adjective_3", "fv/verb_v_adjective_5",
    "fv/alphabetically_last_3", "fv/alphabetically_last_5", "ii/sentiment",
]  # fmt: skip
FUNCTIONS_VALIDATION = [
    "fv/english-spanish",
    "ii/translation_en-es",
    "fv/object_v_concept_3",
    "fv/country-currency",
]

CLINC_DOMAINS = {
    "travel": [
        "plug_type", "book_hotel", "carry_on", "flight_status", "travel_suggestion", "car_rental", "lost_luggage",
        "travel_notification", "book_flight", "travel_alert", "international_visa", "exchange_rate", "vaccines",
        "translate", "timezone",
    ],
    "food": [
        "cancel_reservation", "meal_suggestion", "how_busy", "accept_reservations", "calories", "food_last",
        "restaurant_reservation", "recipe", "restaurant_suggestion", "confirm_reservation",
        "ingredient_substitution", "ingredients_list", "restaurant_reviews", "nutrition_info", "cook_time",
    ],
    "car": [
        "gas", "tire_pressure", "traffic", "mpg", "oil_change_how", "uber", "schedule_maintenance",
        "current_location", "tire_change", "directions", "jump_start", "oil_change_when", "distance", "gas_type",
        "last_maintenance",
    ],
}  # fmt: skip
CLINC_VALIDATION = [
    "spelling", "text", "measurement_conversion", "date", "make_call", "share_location", "flip_coin", "weather",
    "find_phone", "roll_dice", "alarm", "time", "timer", "calculator", "definition",
]  # fmt: skip
BANKING_HELDOUT = {
    "card": ["card_arrival", "card_linking", "card_not_working", "card_swallowed", "card_about_to_expire"],
    "transfer": [
        "cancel_transfer",
        "failed_transfer",
        "pending_transfer",
        "transfer_timing",
        "declined_transfer",
    ],
    "money": ["top_up_failed", "top_up_limits", "top_up_reverted", "pending_top_up", "automatic_top_up"],
}
BANKING_VALIDATION = ["exchange_charge", "exchange_rate", "exchange_via_app", "change_pin", "pin_blocked",
                      "age_limit", "country_support", "visa_or_mastercard"]  # fmt: skip

REQUESTS = {
    "order": ["book_hotel", "book_flight", "car_rental", "restaurant_reservation", "cancel_reservation", "uber",
              "schedule_maintenance", "travel_notification"],
    "question": ["plug_type", "timezone", "calories", "ingredients_list", "cook_time", "mpg", "traffic", "distance"],
}  # fmt: skip


def regrouped() -> list[dict]:
    """The held-out tasks cut from held-out classes."""
    cuts = [
        ("clinc150/domains", "clinc150", "domain", CLINC_DOMAINS),
        ("clinc150/requests", "clinc150", "kind", REQUESTS),
        ("banking77/matters", "banking77", "matter", BANKING_HELDOUT),
    ]
    return [
        {"name": name, "split": "heldout", "set": source, "cue": cue, "groups": groups}
        for name, source, cue, groups in cuts
    ]


def derived(split: str, source: str, classes: list[str], count: int) -> list[dict]:
    """Draw cheap tasks: half tell three to six classes apart, half are yes/no groupings of three against three."""
    tasks = []
    for number in range(count):
        draw = np.random.default_rng(seeds.derive(SEED, "derived", split, source, number))
        size = 6 if number % 2 else int(draw.integers(3, 7))
        chosen = [classes[i] for i in draw.choice(len(classes), size=size, replace=False)]
        if number % 2:
            groups, cue = {"yes": chosen[:3], "no": chosen[3:]}, "match"
        else:
            groups, cue = {words.spoken(source, label): [label] for label in chosen}, "intent"
        name = f"derived/{source}/{split}-{number:03d}"
        tasks.append({"name": name, "split": split, "set": source, "cue": cue, "groups": groups})
    return tasks


def build(data: Path) -> dict:
    """Make the whole split from the names in a data folder."""
    classes = {}
    for source, validation, heldout in (
        ("clinc150", CLINC_VALIDATION, list(chain(*CLINC_DOMAINS.values()))),
        ("banking77", BANKING_VALIDATION, list(chain(*BANKING_HELDOUT.values()))),
    ):
        labels = json.loads((data / "text" / source / "labels.json").read_text())
        train = [label for label in labels if label not in validation and label not in heldout]
        classes[source] = {"train": train, "validation": validation, "heldout": heldout}
    functions = sorted(
        f"{initials}/{path.stem}"
        for initials, name in (("fv", "function_vectors"), ("ii", "instruction_induction"))
        for path in (data / "icl" / name).glob("*.jsonl")
    )
    other = set(FUNCTIONS_HELDOUT) | set(FUNCTIONS_VALIDATION)
    tasks = regrouped()
    for split, counts in DERIVED.items():
        for source, count in counts.items():
            tasks += derived(split, source, classes[source][split], count)
    return {
        "seed": SEED,
        "classification": CLASSIFICATION,
        "functions": {
            "train": [name for name in functions if name not in other],
            "validation": FUNCTIONS_VALIDATION,
            "heldout": FUNCTIONS_HELDOUT,
        },
        "classes": classes,
        "cuts": tasks,
    }


def main() -> None:
    """Write the split file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of real data")
    found = door.find_data(parser.parse_args().data)
    if found is None:
        raise SystemExit("zoo.split: no folder of real data was found; name one with --data.")
    TARGET.write_text(json.dumps(build(found), indent=1) + "\n")
    print(f"wrote {TARGET.name}")


if __name__ == "__main__":
    main()
