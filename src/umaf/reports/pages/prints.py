"""Fingerprints together: where they lie, how alike they are, and what they gather by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from umaf.extraction import Fingerprint
from umaf.extraction.similarity import similarities
from umaf.monitor.clusters import capability_of, silhouettes
from umaf.reports.blocks import Block, Cell, Gallery, Paragraph, Picture, Section, Table, Tile, Tiles
from umaf.reports.figures import fingerprint_map, similarity_heatmap
from umaf.reports.known import Found


@dataclass(frozen=True)
class Models:
    """Fingerprints, or what is known of them where only their similarities are.

    Attributes:
        names: one per model.
        capabilities: one per model.
        architectures: one per model.
        table: cosines, `[model, model]`.
    """

    names: Sequence[str]
    capabilities: Sequence[str]
    architectures: Sequence[str]
    table: np.ndarray


def fingerprints(found: Sequence[Found]) -> list[Section]:
    """Tell of fingerprint files, all of them together.

    Raises:
        FingerprintError: they are of different spaces.
    """
    prints = [Fingerprint.load(one.path) for one in found]
    names = [one.name for one in found]
    if len(prints) == 1:
        return [Section("The fingerprint", [_cards(names, prints)])]
    table = np.asarray(similarities(prints), dtype=np.float64)
    kinds = [one.card.architecture for one in prints]
    models = Models(_apart(names), [capability_of(name) for name in names], kinds, table)
    return [
        Section("What fingerprints say", [*drawings(models)]),
        Section("Whose fingerprints these are", [_cards(models.names, prints)]),
    ]


def drawings(models: Models) -> list[Block]:
    """Draw a map, its neighbours by t-SNE where there are enough, and the similarities; with silhouettes.

    The map needs no vectors: those whose cosines are the table lie the same way, but for a rotation.
    """
    vectors = _vectors(models.table)
    asked = (vectors, models.capabilities, models.architectures)
    pictures = [
        Picture(
            fingerprint_map(*asked),
            caption="Each point is a model. Colour is what it can do, shape its architecture.",
            alt="Map of fingerprints by capability and architecture, by principal components.",
            name="map-pca",
        )
    ]
    if len(models.names) >= 8:
        pictures.append(
            Picture(
                fingerprint_map(*asked, title="Which fingerprints are neighbours", method="tsne"),
                caption="The same by t-SNE: who is near to whom. Distances between groups mean nothing here.",
                alt="Map of fingerprints by capability and architecture, by t-SNE.",
                name="map-tsne",
            )
        )
    pictures.append(
        Picture(
            similarity_heatmap(models.table, models.names),
            caption="Cosine of each with each; the tree above joins those that are alike.",
            alt="Matrix of the similarities of the fingerprints, ordered by their tree.",
            name="similarity",
        )
    )
    blocks: list[Block] = [Gallery(pictures)]
    if len(models.names) >= 3:
        blocks = [*_gathered(vectors, models), *blocks]
    return blocks


def _gathered(vectors: np.ndarray, models: Models) -> list[Block]:
    found = silhouettes(vectors, models.capabilities, models.architectures)
    tiles = [
        Tile(f"Silhouette by {word}", value, "above 0: nearer to its own than to others")
        for word, value in (("capability", found.capability), ("architecture", found.architecture))
        if value is not None
    ]
    blocks: list[Block] = [Tiles(tiles)] if tiles else []
    return [*blocks, Paragraph(f"Alarm: {found.alarm}.")] if found.alarm else blocks


def _vectors(table: np.ndarray) -> np.ndarray:
    """Find vectors whose products are the table: its eigenvectors, by the roots of its eigenvalues."""
    values, directions = np.linalg.eigh((table + table.T) / 2)
    return directions * np.sqrt(np.clip(values, 0.0, None))


def _cards(names: Sequence[str], prints: Sequence[Fingerprint]) -> Table:
    rows: list[list[Cell]] = [
        [
            name,
            one.card.model,
            one.card.base,
            one.card.architecture,
            one.card.parameters,
            "nothing" if one.card.unchanged else f"{one.card.strength:.3g}",
            one.card.probe_count,
        ]
        for name, one in zip(names, prints, strict=True)
    ]
    columns = ["file", "model", "base", "architecture", "parameters", "change", "probes"]
    return Table("Cards", columns, rows)


def _apart(names: Sequence[str]) -> list[str]:
    """Number names that come more than once."""
    return [
        name if list(names).count(name) == 1 else f"{name} {list(names)[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]
