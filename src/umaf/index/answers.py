"""The knowledge vector: which probes a model answers alike, whatever its vocabulary or its labels.

A model's answers to the probes are a table `[probe, word]` of probabilities. Its columns mean something else in every
model, but which rows are alike does not: the centred Gram matrix of the rows' square roots (so that inner products are
Bhattacharyya's) has one entry for each pair of probes. The cosine of two such matrices is the linear CKA of the two
models' answers. The matrix is folded into 1024 numbers by a fixed feature hashing, which keeps that
cosine to about 0.03.

A query of texts becomes a vector of the same space: each probe is given the labels of the query's texts that it
resembles, as if a model had answered it. So a query and a model that is only known by its outputs are compared in the
same way as two models.

Source: the idea of aligning a query's vector with the models' is Know2Vec's (arXiv 2412.16251), here without training;
relations of answers: Kriegeskorte et al., Representational similarity analysis, 2008; CKA: Kornblith et al., ICML 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from umaf.errors import NumericalError
from umaf.models import Model
from umaf.readout import Encoded, encode
from umaf.readout.scores import answer_position, pooled
from umaf.seeds import derive

SKETCH = 1024


def knowledge(answers: Float[Tensor, "probe word"]) -> Float[Tensor, " sketch"]:
    """Reduce a model's answers to the vector that models are compared by.

    Args:
        answers: probabilities, at least 0; rows need not add up to one.

    Returns:
        `[1024]` float32 of length 1; 0 where every probe is answered in the same way.

    Raises:
        NumericalError: negative numbers, NaN or infinity.

    Example:
        >>> first = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
        >>> float(knowledge(first) @ knowledge(first.flip(1)))  # other columns, the same knowledge
        1.0
    """
    if not torch.isfinite(answers).all() or bool((answers < 0).any()):
        raise NumericalError(
            "answers are probabilities of 0 or more, and some are negative, NaN or infinite; give a softmax."
        )
    rows = answers.double().sqrt()
    rows = rows - rows.mean(0)
    return sketch(rows @ rows.T)


def sketch(relation: Float[Tensor, "probe probe"]) -> Float[Tensor, " sketch"]:
    """Fold a symmetric matrix into 1024 numbers of length 1; inner products are kept to about 1 / sqrt(1024).

    Example:
        >>> round(float(sketch(torch.eye(40)).norm()), 5)
        1.0
    """
    across, down = torch.triu_indices(*relation.shape)
    values = relation.double()[across, down]
    values = torch.where(across == down, values, values * 2**0.5)
    length = float(values.norm())
    # Rounding alone must not look like knowledge.
    if length <= 1e-9 * relation.shape[0]:
        return torch.zeros(SKETCH)
    places, signs = _places(len(values))
    total = torch.zeros(SKETCH, dtype=torch.float64).index_add_(0, places, signs * values / length)
    return (total / total.norm().clamp_min(1e-300)).float()


def answers_of(model: Model, texts: Sequence[str], cue: str, *, batch_size: int = 32) -> Tensor:
    """Ask a model the probes, and read how it would begin its answer.

    Args:
        model: any opened model; one without a head gives the softmax of its pooled states.
        texts: the probes; what is too long is cut.
        cue: the word before the answer; classifiers ignore it.
        batch_size: texts per pass.

    Returns:
        `[probe, word]` float32 probabilities.
    """
    return read_answers(model, encode_probes(model, texts, cue), batch_size=batch_size)


def encode_probes(model: Model, texts: Sequence[str], cue: str) -> Encoded:
    """Encode probes as a model is asked them; what is too long is cut."""
    return encode(model, texts, None if model.head == "base" else cue, truncate=True)


def read_answers(model: Model, batch: Encoded, *, batch_size: int = 32) -> Tensor:
    """Read how a model would begin its answers to encoded texts: `[text, word]` float32 probabilities."""
    found = []
    headless = model.head == "base"
    # Texts of like length share a batch, so little is spent on padding.
    order = batch.mask.sum(1).argsort(stable=True)
    with torch.inference_mode():
        for rows in order.split(batch_size):
            part = batch.take(rows)
            scores = pooled(model, part) if headless else answer_position(model, part)
            found.append(scores.float().softmax(-1).cpu())
    return torch.cat(found)[order.argsort().cpu()]


@cache
def _places(length: int) -> tuple[Tensor, Tensor]:
    """Draw each entry's place and sign; numpy's old stream is frozen by its compatibility policy."""
    stream = np.random.RandomState(derive(0, "index", "answers") % 2**32)
    places = torch.from_numpy(stream.randint(0, SKETCH, length).astype(np.int64))
    return places, torch.from_numpy(stream.randint(0, 2, length) * 2.0 - 1.0)
