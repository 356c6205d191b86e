"""The words of the graded tasks: pure tables."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


NAMES = _words(
    "Anna, Ben, Clara, David, Emma, Frank, Grace, Henry, Iris, Jack, Kate, Leo, Maria, Nick, Olga, Paul, Rosa, Sam, "
    "Tom, Vera, Will, Zoe"
)
THINGS = _words(
    "apples, books, coins, cards, eggs, pens, stones, cups, hats, keys, shells, balls, plums, bags, boats, rings, "
    "cakes, dolls, stamps, nuts, leaves, birds"
)
KINDS: dict[str, tuple[str, ...]] = {
    "animal": _words(
        "dog, cat, horse, cow, sheep, goat, pig, wolf, bear, lion, mouse, duck, goose, frog, rabbit, fox"
    ),
    "fruit": _words(
        "apple, pear, plum, grape, lemon, orange, banana, cherry, peach, melon, berry, fig, mango, lime, date, kiwi"
    ),
    "tool": _words(
        "hammer, saw, drill, axe, knife, spade, rake, screw, nail, brush, file, rope, hook, pump, torch, needle"
    ),
    "garment": _words(
        "coat, hat, shirt, skirt, dress, glove, boot, shoe, sock, belt, scarf, cap, jacket, tie, cloak, vest"
    ),
    "vehicle": _words(
        "car, bus, train, ship, boat, plane, truck, van, tram, bike, cart, sledge, canoe, ferry, taxi, wagon"
    ),
    "furniture": _words(
        "chair, table, bed, desk, shelf, sofa, bench, stool, lamp, mirror, drawer, couch, cradle, chest, cabinet, mat"
    ),
    "drink": _words(
        "water, milk, tea, coffee, juice, wine, beer, cocoa, soda, cider, broth, rum, punch, ale, gin, syrup"
    ),
    "weather": _words(
        "rain, snow, wind, storm, fog, hail, frost, thunder, sun, cloud, mist, ice, heat, breeze, gale, dew"
    ),
}
MOODS: dict[str, tuple[str, ...]] = {
    "happy": _words(
        "glad, merry, cheerful, joyful, pleased, delighted, content, jolly, proud, amused, thrilled"
    ),
    "sad": _words("gloomy, unhappy, tearful, lonely, sorry, miserable, hurt, down, blue, mournful, hopeless"),
    "angry": _words("mad, furious, cross, annoyed, bitter, enraged, upset, irate, fierce, grim, hostile"),
    "afraid": _words(
        "scared, nervous, worried, frightened, anxious, timid, uneasy, alarmed, tense, shy, fearful"
    ),
}
