"""OptMerge: least interference (WUDI) between deltas that were cleaned by truncation first."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from umaf.merging.contract import Needs, Span, merge_method
from umaf.merging.methods.tsv import share_of_rank
from umaf.merging.methods.wudi import Filter, Norm, Solver, Start, gain_of, starting_point, term_weights
from umaf.tensors.flow import descended, filtered
from umaf.tensors.svd import singular_triplets


@merge_method(
    Needs(
        base="required",
        matrices=True,
        memory=12.0,
        otherwise="mean",
        batched=True,
        equivariant=True,
        whole={"solver": "adam"},
        breaks={"same": "the start is a sum, and directions that the filter does not reach stay there"},
    ),
    source="Wei et al., OptMerge: Unifying Multimodal LLM Capabilities via Model Merging, ICLR 2026, section 4",
)
def optmerge(
    deltas: Tensor,
    *,
    experts: Literal["full", "lora"] = "full",
    rows: Literal["plain", "centred"] = "plain",
    filter: Filter = "exp",
    time: Annotated[float, Span(0)] = 300.0,
    keep: Annotated[float, Span(0, 1, open_low=True)] = 1.0,
    start: Literal["auto", "sum", "mean", "zero"] = "auto",
    norm: Norm = "squared",
    solver: Solver = "closed",
    steps: Annotated[int, Span(0)] = 300,
    rate: Annotated[float, Span(0)] = 1e-5,
    shape: tuple[int, int] | None = None,
) -> Tensor:
    """Merge by least interference between truncated deltas: noise is taken from targets and from rows first.

    With `k = floor(q / N)`, q the shorter side: the target of expert i is the mean of all deltas plus the k largest
    singular triplets of what it adds to the mean; its rows are `S_k V_k^T` of the delta itself. Then

        min_X  sum_i |(X - target_i) rows_i^T|^2 / |delta_i|^2

    is solved as in `wudi`. The published factor on the result is 0.1 for language models that were fine-tuned in full
    (0.1, 0.3, ... 1.5 are tried), and 1 for LoRA experts.

    Published settings: `experts full, solver adam, rate 1e-5`; `experts lora, solver sgd, rate 1e-4`, which stays near
    the mean of the deltas in all but the largest directions (a flow of time 0.6). Other tensors get the mean of the
    deltas; the published programs leave embeddings, heads, norms and biases at the base.

    Args:
        deltas: `[model, *batch, out, in]`.
        experts: "full": targets are centred, the start is the sum. "lora": targets are the k largest triplets of each
            delta, the start is the mean.
        rows: of the delta itself ("plain", the published program), or of what it adds to the mean ("centred", the text
            of the paper).
        filter: as in `wudi`.
        time: as in `wudi`.
        keep: as in `wudi`.
        start: "auto" as `experts` says, or "sum", "mean", "zero".
        norm: as in `wudi`.
        solver: as in `wudi`.
        steps: as in `wudi`.
        rate: as in `wudi`.
        shape: of the tensors that the rows stand for, where they are cores of factors.

    Returns:
        `[*batch, out, in]`.

    Example:
        >>> import torch
        >>> experts = torch.stack([torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))])
        >>> optmerge(experts).round(decimals=4).tolist()
        [[2.0, 0.0], [0.0, 0.5]]
    """
    count = share_of_rank(deltas, shape)
    own = singular_triplets(deltas, count)
    sizes = torch.linalg.matrix_norm(deltas)
    mean = deltas.mean(0)
    added = None
    if experts == "full" or rows == "centred":
        added = singular_triplets(deltas - mean, count, scale=sizes)
    targets = own.matrix() if experts == "lora" or added is None else mean + added.matrix()
    base = own if rows == "plain" or added is None else added
    basis = base.values.unsqueeze(-1) * base.right
    begin: Start = start if start != "auto" else ("sum" if experts == "full" else "mean")
    origin = starting_point(deltas, begin)
    weights = term_weights(deltas, norm)
    if solver != "closed":
        return descended(origin, targets, basis, weights, steps=steps, rate=rate, rule=solver)
    width = (shape or deltas.shape[-2:])[-1]
    return filtered(origin, targets, basis, weights, gain=gain_of(filter, time=time, keep=keep, width=width))
