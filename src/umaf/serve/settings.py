"""What the endpoint is bounded by: one frozen value."""

from __future__ import annotations

import ipaddress

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class ServeSettings(BaseModel):
    """How an adaptive model is served.

    Attributes:
        name: what the model is called in requests.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        token: what every request has to carry; needed for any address but this machine's own.
        cue: the word before a reply, for models without a chat template.
        max_new_tokens: longest reply that may be asked for, and what is given to requests that ask for no length.
        max_body: largest request, in bytes.
        max_waiting: requests that may wait; more are turned away.
        batch: replies written at once.
        seconds: how long a request may take, waiting included.

    Example:
        >>> ServeSettings(host="0.0.0.0")
        Traceback (most recent call last):
        pydantic_core._pydantic_core.ValidationError: 1 validation error for ServeSettings
          Value error, the address 0.0.0.0 can be reached from other machines; give a token, or listen on 127.0.0.1
        ...
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="umaf", min_length=1)
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    token: str | None = Field(default=None, min_length=8, repr=False)
    cue: str | None = None
    max_new_tokens: int = Field(default=256, ge=1)
    max_body: int = Field(default=1 << 20, ge=1024)
    max_waiting: int = Field(default=64, ge=1)
    batch: int = Field(default=16, ge=1)
    seconds: float = Field(default=120.0, gt=0)

    @field_validator("token")
    @classmethod
    def _sendable(cls, token: str | None) -> str | None:
        # What no header can carry would be asked of every client and given by none.
        if token is not None and not all("!" <= letter <= "~" for letter in token):
            raise ValueError(
                "a token travels in a header; use ASCII letters, digits and signs without spaces"
            )
        return token

    @model_validator(mode="after")
    def _guarded(self) -> ServeSettings:
        if self.token is None and not is_own(self.host):
            raise ValueError(
                f"the address {self.host} can be reached from other machines; give a token, or listen on 127.0.0.1"
            )
        return self


def is_own(host: str) -> bool:
    """Say whether an address is reached from this machine alone.

    Example:
        >>> is_own("127.0.0.1"), is_own("localhost"), is_own("0.0.0.0"), is_own("::1")
        (True, True, False, True)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
