"""Mistakes in the form OpenAI's clients read."""

from __future__ import annotations

import json

from umaf.errors import ExpertError, NumericalError, ProbeError, UmafError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    503: "server_error",
    504: "timeout_error",
}


class Fault(Exception):
    """A request that gets no answer.

    Attributes:
        status: of the HTTP response.
        message: one sentence.
        code: a short word for programs.
        param: the field at fault.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, dict[str, str | None]]:
        """Give the response as OpenAI writes it."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Give what stands beside the body: a client that is turned away is told when to come again."""
        return {"retry-after": "1"} if self.status == 503 else {}

    def encoded(self) -> bytes:
        """Give the body in UTF-8."""
        return json.dumps(self.body(), ensure_ascii=False).encode()


def fault_of(problem: UmafError) -> Fault:
    """Turn a mistake that umaf explains into a response.

    Example:
        >>> fault_of(ProbeError("Text 1 of 1 has 300 tokens.")).code
        'context_length_exceeded'
    """
    message = " ".join(str(problem).split())
    if isinstance(problem, ProbeError):
        return Fault(400, message, "context_length_exceeded")
    if isinstance(problem, ExpertError):
        return Fault(400, message, "unknown_expert", "experts")
    if isinstance(problem, NumericalError):
        return Fault(500, message, "not_a_number")
    return Fault(400, message)
