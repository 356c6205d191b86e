"""The sparse methods against fixed numbers: those of the authors' programs, and those of mergekit 0.1.5.

`make_authors_sparse.py` and `make_mergekit_sparse.py` made the numbers. Where mergekit departs from the paper, the
difference is stated, and the options that reproduce it are used.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.reference.make_mergekit_sparse import CASES, WEIGHTS
from umaf.merging.methods.breadcrumbs import breadcrumbs, breadcrumbs_ties
from umaf.merging.methods.dare import dare_linear, dare_ties
from umaf.merging.methods.della import della, della_linear
from umaf.merging.methods.pcb import pcb
from umaf.merging.methods.sce import sce
from umaf.merging.methods.ties import ties

HERE = Path(__file__).parent
MERGEKIT = load_file(HERE / "mergekit_sparse.safetensors")
AUTHORS = load_file(HERE / "authors_sparse.safetensors")

# mergekit's ties in the words of the options here.
TIES = dict(trim="tensor", elect="weighted", tie="plus", divisor="weights", rounding="down")
OURS = {
    "ties": (ties, {"density": [0.2, 0.5, 0.7], **TIES}),
    "ties.sum": (ties, {"density": 0.3, "combine": "sum", **TIES}),
    "ties.negative": (ties, {"weight": [1.0, -0.5, 1.0], "density": 0.4, **TIES}),
    "breadcrumbs": (breadcrumbs, {"density": 0.6, "gamma": 0.02}),
    "breadcrumbs.mean": (breadcrumbs, {"density": 0.9, "gamma": 0.2, "normalize": True}),
    "breadcrumbs.none": (breadcrumbs, {"density": 0.6, "gamma": 0.0}),
    "breadcrumbs_ties": (breadcrumbs_ties, {"density": 0.6, "gamma": 0.02}),
    "breadcrumbs_ties.mean": (breadcrumbs_ties, {"density": 0.5, "gamma": 0.1, "combine": "mean"}),
    "sce": (sce, {"select_topk": 1.0}),
    "sce.some": (sce, {"select_topk": 0.3, "select": "deltas"}),
    "dare_linear.all": (dare_linear, {"density": 1.0, "normalize": True}),
    "dare_ties.all": (dare_ties, {"density": 1.0}),
    "della.all": (della, {"density": 1.0}),
    "della_linear.all": (della_linear, {"density": 1.0}),
}


def test_every_case_is_compared():
    assert set(OURS) == set(CASES)


@pytest.mark.parametrize("name", OURS)
def test_mergekit(name):
    base = MERGEKIT["base"]
    deltas = torch.stack([MERGEKIT[f"expert.{index}"] - base for index in range(3)])
    function, options = OURS[name]
    if not name.startswith("sce"):
        options = {"weight": WEIGHTS, **options}
    scale = CASES[name][1].get("lambda", 1.0)
    torch.testing.assert_close(
        base + scale * function(deltas, **options), MERGEKIT[name], rtol=1e-6, atol=2e-6
    )


def test_where_mergekit_departs_sce_with_small_deltas():
    # There, weights are equal as soon as the mean square is below 1e-6; here they follow the formula at any size.
    deltas = torch.stack(
        [MERGEKIT[f"expert.{index}"] - MERGEKIT["base"] for index in range(3)]
    ) * torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1)
    torch.testing.assert_close(sce(deltas * 1e-6, select_topk=0.3) * 1e6, sce(deltas, select_topk=0.3))


@pytest.mark.parametrize("data", ["deltas", "small", "tied"])
@pytest.mark.parametrize("combine", ["mean", "sum", "max"])
def test_ties_of_the_authors(data, combine):
    # By default: 20 % and one entry, equal ones all kept, ties to the majority, mean over those that agree.
    found = ties(AUTHORS[data], combine=combine)
    torch.testing.assert_close(found, AUTHORS[f"ties.{data}.{combine}"], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("data", ["deltas", "small"])
@pytest.mark.parametrize("ratio", [0.05, 0.2])
def test_pcb_of_the_authors(data, ratio):
    expected = AUTHORS[f"pcb.{data}.{ratio}"]
    found = pcb(AUTHORS[data], density=ratio)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("data", ["deltas", "small"])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_sce_of_the_authors(data, share):
    found = sce(AUTHORS[data], select_topk=share)
    torch.testing.assert_close(found, AUTHORS[f"sce.{data}.{share}"], rtol=1e-5, atol=1e-9)
