"""Silence around the libraries below, for the length of one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Turns off the log lines, bars and warnings of ``transformers``; puts the levels back after.

    What matters in them (missing weights, wrong shapes) is checked by the caller and raised.

    Example:
        >>> with quiet():
        ...     pass
    """
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)  # CRITICAL
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
