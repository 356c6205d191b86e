"""The figures and the report of a quickstart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from umaf.quickstart.found import Outcome
from umaf.quickstart.scores import ADAPTED, LEVELS, Cell, mean_recovery, mean_score
from umaf.quickstart.writing import Written
from umaf.reports.blocks import (
    Command,
    Gallery,
    Paragraph,
    Picture,
    Provenance,
    Sample,
    Samples,
    Section,
    Table,
    Tile,
    Tiles,
)
from umaf.reports.figures import fingerprint_map, recovery_bars, similarity_heatmap
from umaf.reports.html import write_report
from umaf.reports.save import save_figure

FORMS = ("bare", *ADAPTED, "oracle")
EASY, HARD = LEVELS
FILES = {
    "adapter/": "the LoRA in PEFT's format, where it comes from (umaf.json), and the fused fingerprint",
    "record.json": "settings, versions, machine and every number of this page",
    "figures/": "the drawings of this page as PNG and SVG",
}


def write_page(folder: Path, outcome: Outcome) -> Path:
    """Write the figures and the report into a folder."""
    pictures = draw(outcome)
    for name, picture in pictures.items():
        save_figure(picture.figure, folder / "figures", name)
    return write_report(
        folder / "report.html",
        title="Two capabilities, three architectures, one adapter",
        lead=_lead(outcome),
        sections=[
            _short(outcome),
            _arrived(outcome, pictures),
            _written(outcome),
            _fingerprints(outcome, pictures),
            _again(outcome),
        ],
    )


def draw(outcome: Outcome) -> dict[str, Picture]:
    """Draw the four figures, by the names of their files."""
    compared = outcome.compared
    recoveries = {
        f"recovery-{level.replace(' ', '-')}": Picture(
            _bars(outcome.cells, level),
            caption=_BARS[level],
            alt=f"Bars of accuracy on {level}, by capability: bare target, each route, oracle and source.",
        )
        for level in LEVELS
    }
    return recoveries | {
        "fingerprint-map": Picture(
            fingerprint_map(
                [one.vector.flatten().tolist() for one in compared.fingerprints],
                compared.capabilities,
                compared.architectures,
            ),
            caption="Each point is what a model learned, 512 numbers flattened to two. Colour is the capability, shape "
            "the architecture. Expect sharing an architecture to count about as much as sharing a capability: the "
            "closed-form extractor matches capabilities across architectures only weakly.",
            alt="Map of fingerprints by capability and architecture.",
        ),
        "similarity": Picture(
            similarity_heatmap(compared.table, compared.names),
            caption="Cosine of each fingerprint with each. All of them read the same texts.",
            alt="Matrix of similarities of the fingerprints.",
        ),
    }


_BARS = {
    EASY: "Sentences nobody trained on, made of the training texts' words and patterns.",
    HARD: "Patterns and words that are nowhere in training. The sources themselves lose much here.",
}


def _bars(cells: Sequence[Cell], level: str) -> Figure:
    mine = [cell for cell in cells if cell.level == level]
    return recovery_bars(
        {cell.capability: {name: cell.scores[name] for name in (*FORMS, "source")} for cell in mine},
        title=level.capitalize(),
        chance={cell.capability: cell.chance for cell in mine},
    )


def _lead(outcome: Outcome) -> str:
    names = outcome.compared.names
    return (
        f"{names[0].partition(' ·')[0]} learned to tell {_topics(outcome)[0]}, {names[1].partition(' ·')[0]} to tell "
        f"{_topics(outcome)[1]}. Both capabilities were moved, without labels, into one LoRA for "
        f"{outcome.compared.architectures[-1]}, a third architecture with another tokenizer."
    )


def _topics(outcome: Outcome) -> list[str]:
    known = {"question": "questions from statements and commands", "tense": "past, present and future"}
    return [known.get(one.short, one.short) for one in outcome.plan.moved]


def _short(outcome: Outcome) -> Section:
    tiles = [
        Tile(f"Recovery by {route}", mean_recovery(outcome.cells, route, EASY), "new sentences")
        for route in ADAPTED
    ]
    right = {name: mean_score(outcome.cells, name, HARD) for name in ("bare", outcome.route, "oracle")}
    note = f"{HARD}; bare {right['bare']:.2f}, oracle {right['oracle']:.2f}"
    tiles.append(Tile(f"Right answers by {outcome.route}", right[outcome.route], note))
    tiles.append(Tile("Time", f"{outcome.seconds:.0f} s", "training of the sources included"))
    text = (
        "Recovery is the share of what labels would have given that arrived without them: 0 is the bare target, 1 an "
        "oracle, the same target with a LoRA trained on the labels. The route solve takes no gradient steps; distill "
        f"takes {outcome.plan.distill_steps}, also towards answers in words and towards the target's own plain "
        "writing; generate reads the probes once, with a generator that was trained for this target on other "
        f"capabilities. The adapter kept is that of {outcome.route}, chosen on the new sentences alone."
    )
    return Section("In short", [Tiles(tiles), Paragraph(text)])


def _arrived(outcome: Outcome, pictures: dict[str, Picture]) -> Section:
    names = [name for name in pictures if name.startswith("recovery")]
    rows = [
        [f"{cell.capability}, {cell.level}", *(cell.recovery[route] for route in ADAPTED)]
        for cell in outcome.cells
    ]
    bits = [[name, outcome.bits[name]] for name in FORMS]
    return Section(
        "How much arrived",
        [
            Gallery([pictures[name] for name in names]),
            Table(
                "Recovery, with 95 % intervals over texts",
                ["capability", *ADAPTED],
                rows,
                note="Above 1 the adapter answers more of these texts rightly than the oracle, which labels taught.",
            ),
            Table(
                "Bits per byte of plain sentences; lower is better",
                ["target", "bits per byte"],
                bits,
                note="What an adapter costs the target's ordinary writing. solve and generate want odds among label "
                "words alone; distill also makes the target write them.",
            ),
        ],
        lead=f"One adapter holds both capabilities. {outcome.plan.tests} texts at most per bar.",
    )


def _written(outcome: Outcome) -> Section:
    def samples(rows: Sequence[Written]) -> Samples:
        empty = "(nothing)"
        return Samples(
            [Sample(one.prompt, one.before or empty, one.after or empty, one.note) for one in rows]
        )

    return Section(
        "What the target writes",
        [
            samples(outcome.answers),
            Paragraph("And two openings that ask for nothing, drawn with the same random numbers:"),
            samples(outcome.prose),
        ],
        lead="Texts of the harder kind, the first of each answer, not picked; with the adapter of distill. The target "
        "has a million parameters: its prose is no better than that.",
    )


def _fingerprints(outcome: Outcome, pictures: dict[str, Picture]) -> Section:
    return Section(
        "What fingerprints say",
        [Gallery([pictures["fingerprint-map"], pictures["similarity"]])],
        lead="A fingerprint is the change that learning made, told by a fixed set of anchor texts.",
    )


def _again(outcome: Outcome) -> Section:
    command = f"umaf quickstart --seed {outcome.plan.seed}"
    # A page is passed on, and tells nobody how a disk is laid out.
    place = outcome.out.name if outcome.out.is_absolute() else outcome.out.as_posix()
    load = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'target = AutoModelForCausalLM.from_pretrained("zoo/models/{outcome.plan.target.removeprefix("zoo:")}")\n'
        f'model = PeftModel.from_pretrained(target, "{place}/adapter")'
    )
    return Section(
        "Again, and further",
        [
            Command(command, "Makes this page again."),
            Command(load, "Loads the adapter without umaf; give the paths as seen from where you are."),
            Provenance(outcome.record, FILES),
        ],
    )
