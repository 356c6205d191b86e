"""What the page shows, to whom, and what it is bounded by: one frozen value."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from umaf.serve.settings import is_own


class WebSettings(BaseModel):
    """How the page is served.

    Attributes:
        store: folder or address of a store of fingerprints; None for a page without one.
        records: folders whose records can be looked at; nothing outside them and `work` is ever read.
        work: where jobs that are started here write.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        token: what people type to get in; needed for any address but this machine's own.
        max_body: largest request, in bytes.
        max_waiting: jobs that may wait.
        max_download: largest folder that is given as a zip, in bytes.
        seconds: in which a request has to be whole.

    Example:
        >>> WebSettings(host="0.0.0.0")
        Traceback (most recent call last):
        pydantic_core._pydantic_core.ValidationError: 1 validation error for WebSettings
          Value error, the address 0.0.0.0 can be reached from other machines; give a token, or listen on 127.0.0.1
        ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str | None = None
    records: tuple[Path, ...] = ()
    work: Path = Path("web-jobs")
    host: str = "127.0.0.1"
    port: int = Field(default=8322, ge=0, le=65535)
    token: str | None = Field(default=None, min_length=8, repr=False)
    max_body: int = Field(default=1 << 20, ge=1024)
    max_waiting: int = Field(default=8, ge=1)
    max_download: int = Field(default=1 << 29, ge=1)
    seconds: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _guarded(self) -> WebSettings:
        if self.token is None and not is_own(self.host):
            raise ValueError(
                f"the address {self.host} can be reached from other machines; give a token, or listen on 127.0.0.1"
            )
        return self

    @property
    def roots(self) -> tuple[Path, ...]:
        """Give the folders that may be read, without links in their names."""
        return tuple(dict.fromkeys(path.expanduser().resolve() for path in (*self.records, self.work)))
