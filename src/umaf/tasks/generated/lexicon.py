"""Content words that several kinds share: pure tables, one list for the seen side and one for the unseen.

Actions have the forms base/third person/past/-ing; encounters (what one does to another) have
base/past/participle.
"""

from __future__ import annotations

from umaf.tasks.generated.grammar import words


def _actions(table: str) -> tuple[str, ...]:
    made = []
    for line in table.strip().splitlines():
        verb, things = line.split("|")
        made += ["/".join(f"{form} {thing}" for form in verb.split()) for thing in words(things)]
    return tuple(made)


SEEN: dict[str, tuple[str, ...]] = {
    "name": words(
        "Anna, Ben, Clara, David, Emma, Frank, Grace, Henry, Iris, Jack, Kate, Leo, Maria, Nick, Olga, Paul"
    ),
    "person": words(
        "teacher, doctor, farmer, baker, driver, waiter, girl, uncle, king, nurse, painter, lawyer"
    ),
    "animal": words("dog, cat, horse, goose, pig, wolf, duck, tiger, rabbit, monkey, snake, elephant"),
    "place": words("kitchen, office, garden, station, school, market, library, park, hospital, cellar"),
    "thing": words(
        "book/books, chair/chairs, lamp/lamps, bag/bags, bottle/bottles, coat/coats, phone/phones, key/keys, "
        "table/tables, mirror/mirrors, plate/plates, picture/pictures, ring/rings, stone/stones"
    ),
    "encounter": words(
        "chase/chased/chased, follow/followed/followed, watch/watched/watched, bite/bit/bitten, "
        "scare/scared/scared, push/pushed/pushed, kick/kicked/kicked, attack/attacked/attacked, "
        "wake/woke/woken, help/helped/helped"
    ),
    "action": _actions("""
        wash washes washed washing | the car, the dog, the windows
        paint paints painted painting | the fence, the gate, the door
        cook cooks cooked cooking | the dinner, the soup, the rice
        call calls called calling | the bank, the doctor, the office
        clean cleans cleaned cleaning | the kitchen, the garage, the stairs
        lock locks locked locking | the shed, the house, the shop
        repair repairs repaired repairing | the bike, the roof, the clock
        visit visits visited visiting | the school, the market, the library
        water waters watered watering | the roses, the garden, the plants
        bake bakes baked baking | the bread, the cake, the biscuits
        pack packs packed packing | the bags, the tent, the suitcase
        write writes wrote writing | the report, the speech, the song
        sell sells sold selling | the piano, the boat, the farm
        find finds found finding | the keys, the map, the phone
        feed feeds fed feeding | the horses, the ducks, the cat
    """),
}

UNSEEN: dict[str, tuple[str, ...]] = {
    "name": words(
        "Alice, Bruno, Daisy, Eric, Fiona, George, Helen, Ivan, Julia, Karl, Laura, Martin, Nora, Oscar"
    ),
    "person": words(
        "boy, soldier, singer, sailor, dentist, queen, student, neighbour, gardener, judge, butcher, woman"
    ),
    "animal": words("cow, sheep, goat, bear, fox, lion, mouse, chicken, donkey, parrot, camel, frog"),
    "place": words("hotel, church, museum, factory, airport, village, theatre, tunnel, forest, stable"),
    "thing": words(
        "cup/cups, pen/pens, spoon/spoons, shirt/shirts, radio/radios, basket/baskets, flower/flowers, "
        "blanket/blankets, candle/candles, umbrella/umbrellas, ticket/tickets, toy/toys"
    ),
    "encounter": words(
        "hear/heard/heard, hunt/hunted/hunted, pull/pulled/pulled, hit/hit/hit, rescue/rescued/rescued, "
        "surprise/surprised/surprised, touch/touched/touched, catch/caught/caught, "
        "frighten/frightened/frightened"
    ),
    "action": _actions("""
        iron irons ironed ironing | the shirts, the curtains
        mend mends mended mending | the shoes, the jacket
        fill fills filled filling | the bucket, the glasses
        open opens opened opening | the letter, the parcel, the box
        carry carries carried carrying | the wood, the ladder
        buy buys bought buying | the tickets, the milk, the hat
        draw draws drew drawing | the tree, the castle
        build builds built building | the wall, the tower
        sweep sweeps swept sweeping | the yard, the floor
        post posts posted posting | the card, the invitation
        burn burns burned burning | the leaves, the papers
        order orders ordered ordering | the pizza, the taxi
        check checks checked checking | the oven, the calendar
        hide hides hid hiding | the presents, the money
        boil boils boiled boiling | the eggs, the potatoes
        move moves moved moving | the sofa, the bed
    """),
}


def seen(*names: str) -> dict[str, tuple[str, ...]]:
    """Pick shared lists of the seen side by name."""
    return {name: SEEN[name] for name in names}


def unseen(*names: str) -> dict[str, tuple[str, ...]]:
    """Pick shared lists of the unseen side by name."""
    return {name: UNSEEN[name] for name in names}
