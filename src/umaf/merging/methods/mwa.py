"""MWA: checkpoints of one run, averaged by how well they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from jaxtyping import Float
from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.contract import Needs, PerModel, Span, merge_method
from umaf.merging.parts import per_model, weighted_sum


@merge_method(
    Needs(base="optional", scope="element", equivariant=True),
    source="Yu and Choi 2025, Metrics-Weighted Averaging, arXiv 2504.18580 (form reconstructed)",
)
def mwa(
    stack: Float[Tensor, " model *shape"],
    *,
    metric: Annotated[PerModel, Span(0, open_low=True)] = 1.0,
    better: Literal["lower", "higher"] = "lower",
    alpha: Annotated[float, Span(0)] = 1.0,
) -> Float[Tensor, "*shape"]:
    """Average checkpoints of one training run, the better ones counting more.

    For the last few checkpoints of a run, in place of picking one. Losses of single batches are too noisy: give the
    mean over some steps (`smoothed`). Every tensor is merged by this rule. Checkpoints of an adapter are averaged as
    the changes they make, which is right for different runs too.

        w_i = (1 / metric_i)^alpha (lower is better) or metric_i^alpha (higher), divided by their sum
        out = sum_i w_i theta_i

    Args:
        stack: weights of the checkpoints, or what they changed.
        metric: of each checkpoint, above 0: training loss, or the number of its step.
        better: "lower" for a loss, "higher" for steps or scores.
        alpha: how much the metric counts: 0 is the plain mean, a large one takes the best checkpoint alone; 0.5 to 8
            are worth a try.

    Example:
        >>> import torch
        >>> mwa(torch.eye(2), metric=[1.0, 3.0])
        tensor([0.7500, 0.2500])

    Source: Yu, Choi: Parameter-Efficient Checkpoint Merging via Metrics-Weighted Averaging (2025), arXiv 2504.18580.
    The abstract gives the idea and the "penalty factor"; the exact formula is a reconstruction.
    """
    return weighted_sum(stack, metric_shares(per_model(metric, stack.shape[0]), better=better, alpha=alpha))


def metric_shares(
    metric: Sequence[float], *, better: Literal["lower", "higher"] = "lower", alpha: float = 1.0
) -> list[float]:
    """Give the share of each checkpoint.

    Example:
        >>> metric_shares([100, 200, 300], better="higher", alpha=0)
        [0.3333333333333333, 0.3333333333333333, 0.3333333333333333]
    """
    best = min(metric) if better == "lower" else max(metric)
    # Divided by the best first, so that no power leaves the range of floats.
    parts = [(best / one if better == "lower" else one / best) ** alpha for one in metric]
    total = sum(parts)
    return [part / total for part in parts]


def smoothed(losses: Sequence[float], steps: Sequence[int], *, window: int) -> list[float]:
    """Give the mean loss of the last `window` logged steps before each checkpoint.

    Args:
        losses: one for each logged step of the run.
        steps: of the checkpoints, as positions in `losses`.
        window: logged steps to average.

    Raises:
        ConfigError: a checkpoint lies outside the log.

    Example:
        >>> smoothed([4.0, 2.0, 3.0, 1.0], [1, 3], window=2)
        [3.0, 2.0]
    """
    for step in steps:
        if not 0 <= step < len(losses) or window < 1:
            raise ConfigError(
                f"A window of {window} at step {step} does not lie in a log of {len(losses)} losses; check the steps."
            )
    means = []
    for step in steps:
        part = losses[max(0, step + 1 - window) : step + 1]
        means.append(sum(part) / len(part))
    return means
