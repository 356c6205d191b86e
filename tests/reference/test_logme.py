"""LogME against the evidence written out from the paper, in float64 and without any shortcut."""

from __future__ import annotations

import math

import pytest
import torch

from umaf.errors import NumericalError
from umaf.index import logme


def slow_evidence(features, target):
    """Equations 2 to 5 of the paper: m, A, the fixed point of alpha and beta, and the evidence by log-determinant."""
    count, width = features.shape
    alpha = beta = 1.0
    for _ in range(2000):
        precision = alpha * torch.eye(width, dtype=torch.float64) + beta * features.T @ features
        mean = beta * torch.linalg.solve(precision, features.T @ target)
        values = torch.linalg.eigvalsh(beta * features.T @ features).clamp_min(0)
        gamma = float((values / (alpha + values)).sum())
        alpha = gamma / float(mean @ mean)
        beta = (count - gamma) / float(((features @ mean - target) ** 2).sum())
    precision = alpha * torch.eye(width, dtype=torch.float64) + beta * features.T @ features
    mean = beta * torch.linalg.solve(precision, features.T @ target)
    error = float(((features @ mean - target) ** 2).sum())
    total = width / 2 * math.log(alpha) + count / 2 * math.log(beta) - count / 2 * math.log(2 * math.pi)
    total -= beta / 2 * error + alpha / 2 * float(mean @ mean) + float(torch.logdet(precision)) / 2
    return total / count


@pytest.mark.parametrize(("count", "width"), [(40, 6), (30, 12)])
def test_logme_is_the_papers_evidence(count, width):
    draw = torch.Generator().manual_seed(count)
    features = torch.randn(count, width, generator=draw, dtype=torch.float64)
    labels = (
        (features[:, 0] + 0.5 * torch.randn(count, generator=draw, dtype=torch.float64) > 0).long().tolist()
    )
    wanted = sum(
        slow_evidence(features, torch.tensor([float(label == one) for label in labels], dtype=torch.float64))
        for one in (0, 1)
    )
    assert logme(features, labels) == pytest.approx(wanted / 2, rel=1e-5)


def test_logme_prefers_features_that_hold_the_labels_and_refuses_nonsense():
    draw = torch.Generator().manual_seed(1)
    labels = [n % 3 for n in range(60)]
    noise = torch.randn(60, 80, generator=draw)
    knowing = noise + 3 * torch.nn.functional.one_hot(torch.tensor(labels), 80)
    assert logme(knowing, labels) > logme(noise, labels)
    with pytest.raises(NumericalError, match="two kinds"):
        logme(noise, [0] * 60)
