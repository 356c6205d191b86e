"""What plugins promise, as checks that their authors can run."""

from umaf.testing.fingerprints import (
    check_fusion,
    check_normalisation,
    check_scaling,
    check_similarity,
    made_fingerprint,
)
from umaf.testing.merge_methods import MERGE_PROMISES, check_merge_method, check_promise, merge_method_checks
from umaf.testing.promises import BrokenPromise, Check

__all__ = [
    "MERGE_PROMISES",
    "BrokenPromise",
    "Check",
    "check_fusion",
    "check_merge_method",
    "check_normalisation",
    "check_promise",
    "check_scaling",
    "check_similarity",
    "made_fingerprint",
    "merge_method_checks",
]
