"""What sentiment-aware generation is judged by: openings, plain text, and two judges that took no part."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from umaf.models import open_model
from umaf.readout import label_scores
from umaf.tasks.door import find_data, load_task
from zoo.bank import expert_of

WORDS = 3
OPENED_BY = {
    "train": ("pros_cons", "mr_polarity"),
    "test": ("sentlabel_amazon_cells", "mr_polarity", "sentlabel_imdb"),
}
# None of them is what the source learned from.
READ_BY_JUDGE = ("mr_polarity", "sentlabel_imdb", "movie_reviews_long")
ENCODER, ENCODER_TASK = "minilm", "mr_polarity"
PRAISE = ("positive", "good")


@functools.cache
def openings(split: str, count: int, seed: int) -> tuple[str, ...]:
    """Draw the first words of reviews, as many of each set; their labels are not read."""
    found: list[str] = []
    for name in OPENED_BY[split]:
        begun = (" ".join(example.text.split()[:WORDS]) for example in getattr(load_task(name), split))
        texts = sorted({text for text in begun if len(text.split()) == WORDS} - set(found))
        random.Random(f"{split} {name} {seed}").shuffle(texts)
        found += texts[: -(-count // len(OPENED_BY[split]))]
    return tuple(found[:count])


@functools.cache
def plain_lines() -> tuple[str, ...]:
    """Lines of held-out plain text: articles and stories."""
    data = find_data()
    if data is None:
        raise SystemExit("sentiment: no folder of real data was found; name one in UMAF_DATA.")
    lines: list[str] = []
    for name in ("wikitext2_small", "stories_synthetic"):
        text = (data / "lm" / name / "test.txt").read_text(encoding="utf-8")
        lines += [line.strip()[:300] for line in text.splitlines() if len(line) > 100][:40]
    return tuple(lines)


class Judges:
    """Readers of sentiment of other architectures and texts than the source's; each gives 1 for praise, 0 for blame."""

    def __init__(self) -> None:
        self._linear = _linear()
        self._encoder = open_model(expert_of(ENCODER, load_task(ENCODER_TASK)))

    def words(self, texts: Sequence[str]) -> list[int]:
        """Judge by single words and pairs of words, a linear model."""
        return [int(one) for one in self._linear.predict(list(texts))]

    def encoder(self, texts: Sequence[str]) -> list[int]:
        """Judge by the published sentence encoder; a BERT too, but pretrained by others on other text."""
        scores = label_scores(self._encoder, texts, (), None, truncate=True)
        names = self._encoder.labels
        return [int(names[place] in PRAISE) for place in scores.argmax(-1).tolist()]

    def accuracies(self) -> dict[str, float]:
        """How often each judge is right about real test texts that it never read."""
        found = {}
        for name in ("mr_polarity", "sentlabel_amazon_cells"):
            examples = load_task(name).test[:300]
            texts, right = [e.text for e in examples], [int(e.answer in PRAISE) for e in examples]
            for who, judge in (("words", self.words), ("encoder", self.encoder)):
                found[f"{who} {name}"] = sum(a == b for a, b in zip(judge(texts), right, strict=True)) / len(
                    right
                )
        return found


@functools.cache
def _linear():
    texts, right = [], []
    for name in READ_BY_JUDGE:
        for example in load_task(name).train:
            texts.append(example.text)
            right.append(int(example.answer in PRAISE))
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10, max_iter=1000),
    )
    return model.fit(texts, right)
