"""Silence around the libraries below, for the length of one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Turns off the log lines, bars and warnings of ``transformers`` and the hub's client; puts the levels back.

    What matters in them (missing weights, wrong shapes) is checked by the caller and raised.

    Example:
        >>> with quiet():
        ...     pass
    """
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_level = hub_logging.get_verbosity()
    logging.set_verbosity(50)  # CRITICAL
    hub_logging.set_verbosity(50)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        hub_logging.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()
