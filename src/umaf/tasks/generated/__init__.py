"""The project's own tasks, made by grammar from a seed: short English texts, nothing to download.

Train and validation use one set of templates and content words, test another; no word that fills a slot and
no template is on both sides, so that a score on the test means generalisation.
"""

from __future__ import annotations

KINDS = (
    "sentiment", "topic", "intent", "formality", "tense", "quantity",
    "ordering", "politeness", "agency", "certainty", "question", "comparison",
)  # fmt: skip
FUNCTIONS = ("last_word", "first_word", "plural", "past", "opposite", "larger", "after", "colour", "creature")

# The name of each task -> the function that makes it, imported only when it is wanted.
GENERATED: dict[str, str] = {
    f"made/{name}": f"umaf.tasks.generated.{name}:{name}" for name in KINDS + FUNCTIONS
}
