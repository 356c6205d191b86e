"""DARE: drop entries of each delta by chance, rescale the rest, then add up or elect signs."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from umaf.merging.chance import Rescale, drop, drop_row, fixed_generator
from umaf.merging.contract import Needs, PerModel, Span, merge_method
from umaf.merging.methods.ties import Combine, Divisor, Elect
from umaf.merging.parts import added, consensus, factors, per_model

_BREAKS = {"single": "entries are dropped by chance", "same": "each copy loses other entries"}
# Another order of models gives each of them other random numbers.
_NEEDS = Needs(base="required", scope="element", random=True, order_matters=True, breaks=_BREAKS)
_SOURCE = "Yu et al. 2023, Language Models are Super Mario (DARE), arXiv 2311.03099, section 3"


@merge_method(_NEEDS, source=_SOURCE)
def dare_linear(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.5,
    rescale: Rescale = "unbiased",
    normalize: bool = False,
    generator: np.random.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop entries of each delta by chance, rescale the rest, and add the deltas up.

    For experts whose deltas are small (supervised fine-tuning changes weights by some 0.002): there 90 % and more can
    be dropped. After continued pre-training keep half or more. Every tensor is merged by this rule.

        m_i ~ Bernoulli(density), each entry and model by itself
        out = sum_i w_i m_i delta_i / density

    Args:
        deltas: models minus base.
        weight: of each model in the sum.
        density: share of entries that stay, in (0, 1]; the paper's p is 1 - density, 0.9 in most of its tables. It is
            rounded to a multiple of 1/65536, and the rescaling is by the rounded one.
        rescale: "unbiased" divides by the density, as in the paper: the expected result is that of task arithmetic.
            "l1" keeps the sum of magnitudes of each delta, as mergekit does, in pieces as they are handed over (of
            65,536 entries where the engine runs it). "none" does not rescale.
        normalize: divide by the sum of weights.
        generator: where the chance comes from; None draws the same numbers in every call.

    Example:
        >>> import torch
        >>> dare_linear(torch.ones(2, 1000), density=0.5).unique()
        tensor([0., 2., 4.])

    Source: Yu, Yu, Yu, Huang, Li: Language Models are Super Mario (2023), arXiv 2311.03099, section 3.
    """
    generator = generator if generator is not None else fixed_generator()
    models, room = deltas.shape[0], torch.empty_like(deltas[0])
    # One model after another through the same memory, which stays near the processor.
    dropped = (
        drop_row(row, share, room, generator=generator, rescale=rescale)
        for row, share in zip(deltas.unbind(0), per_model(density, models), strict=True)
    )
    return added(dropped, factors(weight, models, normalize=normalize))


@merge_method(_NEEDS, source=_SOURCE)
def dare_ties(
    deltas: Float[Tensor, " model *shape"],
    *,
    weight: PerModel = 1.0,
    density: Annotated[PerModel, Span(0, 1, open_low=True)] = 0.5,
    rescale: Rescale = "unbiased",
    elect: Elect = "weighted",
    divisor: Divisor = "weights",
    combine: Combine = "sum",
    generator: np.random.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop entries of each delta by chance, rescale the rest, elect a sign per entry and combine what has it.

    DARE in the place of the trimming of TIES: for many experts with small deltas that disagree in sign. Electing is not
    linear, so the result is not unbiased even though each delta is. Every tensor is merged by this rule.

        t_i = m_i delta_i / density,  m_i ~ Bernoulli(density)
        s   = sign(sum_i w_i t_i), 0 counting as plus
        out = sum_{i: sign t_i = s} w_i t_i

    Args:
        deltas: models minus base.
        weight: of each model.
        density: share of entries that stay, in (0, 1]; rounded to a multiple of 1/65536.
        rescale: see `dare_linear`.
        elect: by the sum of deltas, or of weighted deltas.
        divisor: of the mean, where `combine` is "mean": how many models agree, or the sum of their weights.
        combine: "sum" (mergekit's default), "mean" (TIES) or "max".
        generator: where the chance comes from; None draws the same numbers in every call.

    Example:
        >>> import torch
        >>> dare_ties(torch.tensor([[1.0], [-3.0]]), density=1.0)
        tensor([-3.])

    Source: Yu, Yu, Yu, Huang, Li: Language Models are Super Mario (2023), arXiv 2311.03099, section 3.
    """
    dropped = drop(deltas, density, generator=generator, rescale=rescale)
    return consensus(dropped, weight, elect=elect, divisor=divisor, combine=combine)
