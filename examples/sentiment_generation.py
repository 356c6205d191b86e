"""Sentiment-aware generation: a BERT that tells praise from blame makes a LLaMA write more of either.

    python examples/sentiment_generation.py [--out out/sentiment-example]

Models and texts ship with the project. With models of your own, replace `classifier` by any text classifier and
`writer` by any decoder; nothing is trained on a label here but the classifier itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import umaf
from umaf.adapters import load_adapter, write_lora
from umaf.generation.finetune import finetune
from umaf.generation.goals import labelled_goal
from umaf.generation.tilt import drafts, tilt
from umaf.generation.train import Schedule
from umaf.readout import bits_per_byte, label_scores, samples
from umaf.tasks.door import texts

WORDS = 3
SHOWN = 3


def main(argv: Sequence[str] | None = None) -> None:
    """Make one adapter towards praise and one towards blame, and show what the writer writes with each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("out/sentiment-example"))
    parser.add_argument("--writer", default="zoo:llama-5m")
    parser.add_argument("--steps", type=int, default=250, help="of training the classifier")
    parser.add_argument("--draws", type=int, default=16, help="continuations of each opening")
    parser.add_argument("--cost", type=float, default=0.07, help="nats per token that it may diverge")
    asked = parser.parse_args(argv)

    task = umaf.load_task("made/sentiment")
    writer, classifier = umaf.open_model(asked.writer), learned(task, asked.steps)
    openings = list(dict.fromkeys(" ".join(text.split()[:WORDS]) for text in texts(task.train)))
    own = drafts(writer, openings, draws=asked.draws)
    scores = label_scores(classifier, own.texts, ("positive", "negative"), None, truncate=True)
    print(f"{classifier.name} judged {len(own.texts)} continuations of {len(openings)} openings")

    forms = {"bare": writer}
    for name in ("praise", "blame"):
        factors = tilt(writer, own, scores[:, 0] - scores[:, 1], cost=asked.cost, away=name == "blame")
        folder = write_lora(asked.out / name, writer, factors, provenance={"route": "tilt", "towards": name})
        forms[name] = load_adapter(writer, folder)
    show(forms, openings)
    print(f"adapters, for PeftModel.from_pretrained: {asked.out}")


def learned(task: umaf.Task, steps: int) -> umaf.Model:
    """Give a BERT that has learned the task from its labels: the source."""
    goal = labelled_goal(texts(task.train), task.cue, task.labels, [example.answer for example in task.train])
    return finetune(umaf.open_model("zoo:bert-1m"), goal, schedule=Schedule(steps=steps, rate=5e-4))


def show(forms: dict[str, umaf.Model], openings: Sequence[str]) -> None:
    """Print continuations of some openings, and bits per byte of sentences that have nothing to do with it."""
    plain = [text for text in texts(umaf.load_task("made/topic").test)][:60]
    for name, model in forms.items():
        print(f"\n{name}, {bits_per_byte(model, plain):.3f} bits per byte of plain sentences")
        drawn = samples(model, openings[:SHOWN], count=2, temperature=0.7, max_new_tokens=16)
        for opening, each in zip(openings, drawn, strict=False):
            for draft in each:
                print(f"  {opening}{draft.rstrip()}")


if __name__ == "__main__":
    main()
