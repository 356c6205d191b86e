"""Open a store, or make one: the two tables behind an address, and what may be wrong there."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from umaf.errors import ConfigError, StoreError
from umaf.index.commits import said, turn
from umaf.index.entry import schema
from umaf.index.space import Space, pack, same_space, unpack
from umaf.index.store import Store

TABLE, ABOUT = "fingerprints", "about"


def make_store(place: str | Path, space: Space) -> Store:
    """Open a store, made now where there is none.

    Args:
        place: a folder, or an address such as s3://bucket/store.
        space: the settings its fingerprints share.

    Raises:
        StoreError: there is one whose fingerprints were made otherwise; the message says what differs.
        ConfigError: lancedb is not installed.
    """
    address = str(place)
    database = _connect(address)
    with turn(address, make=True):
        # The space comes first: a table without it would hold numbers that nobody can interpret.
        about = _table(database, ABOUT) or _make_about(database, space)
        if _table(database, TABLE) is None:
            _made(database, TABLE, schema())
    store = _opened(address, database, about)
    same_space(space, store.space)
    return store


def open_store(place: str | Path) -> Store:
    """Open a store.

    Raises:
        StoreError: there is none.
        ConfigError: lancedb is not installed.

    Example:
        >>> open_store("no/store/here")
        Traceback (most recent call last):
        ...
        umaf.errors.StoreError: There is no store at no/store/here; make one with `umaf index build`.
    """
    address = str(place)
    if "://" not in address and not Path(address).is_dir():
        raise StoreError(f"There is no store at {address}; make one with `umaf index build`.")
    database = _connect(address)
    about = _table(database, ABOUT)
    if about is None or _table(database, TABLE) is None:
        raise StoreError(f"There is no store at {address}; make one with `umaf index build`.")
    return _opened(address, database, about)


def _connect(address: str) -> Any:
    try:
        import lancedb
    except ImportError as problem:
        raise ConfigError(
            'A store of fingerprints needs lancedb, which is not installed; run `pip install "umaf[index]"`.'
        ) from problem
    try:
        # 0 seconds: every read sees what other processes committed.
        return lancedb.connect(address, read_consistency_interval=timedelta(0))
    except (RuntimeError, OSError, ValueError) as problem:
        raise StoreError(f"The store {address} cannot be opened ({said(problem)}).") from problem


def _opened(address: str, database: Any, about: Any) -> Store:
    found = about.search().where("name = 'space'").limit(1).to_list()
    if not found:
        raise StoreError(f"The store {address} does not say how its fingerprints were made; build it again.")
    return Store(address, _table(database, TABLE), about, unpack(found[0]["text"], address))


def _table(database: Any, name: str) -> Any:
    try:
        return database.open_table(name)
    except (ValueError, RuntimeError, OSError) as problem:
        if "not found" in str(problem).lower():
            return None
        raise StoreError(
            f"The table {name} of the store cannot be opened ({said(problem)}); copy the store again."
        ) from problem


def _make_about(database: Any, space: Space) -> Any:
    import pyarrow as pa

    # Created with its row, in one commit, so that a killed process leaves no table without a space.
    return _made(database, ABOUT, pa.table({"name": ["space"], "text": [pack(space)]}))


def _made(database: Any, name: str, content: Any) -> Any:
    import pyarrow as pa

    try:
        if isinstance(content, pa.Schema):
            return database.create_table(name, schema=content)
        return database.create_table(name, data=content)
    except (ValueError, RuntimeError, OSError) as problem:
        # Another process can have made it meanwhile, where no lock file can be.
        made = _table(database, name)
        if made is None:
            raise StoreError(f"The store cannot be made ({said(problem)}).") from problem
        return made
