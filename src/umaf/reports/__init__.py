"""Records in, figures and one HTML page out. Needs the extra `umaf[report]`."""

from __future__ import annotations

from importlib.util import find_spec

from umaf.errors import ConfigError

_missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
if _missing:
    raise ConfigError(
        f"Reports and figures need {' and '.join(_missing)}, which are not installed; run: pip install 'umaf[report]'"
    )
