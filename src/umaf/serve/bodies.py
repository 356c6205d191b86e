"""What a request may ask: OpenAI's fields that change a reply, and the choice of experts."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from umaf.dispatch.decode import Drawing
from umaf.serve.faults import Fault

Stop = Annotated[str, Field(max_length=256)]
Body = TypeVar("Body", bound="Common")
# Asking for these would change what comes back in ways that cannot be given; their plain values are harmless.
REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "suffix": (None, ""),
    "echo": (None, False),
    "best_of": (None, 1),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
}


# What a field of several forms may be, in place of what each form lacks.
FORMS = {
    "prompt": "give a text, or a list of texts",
    "experts": "give an expert's name, or weights by name",
    "content": "give a text, or parts that hold text",
}


class StreamOptions(BaseModel):
    """What is added to a stream."""

    include_usage: bool = False


class Common(BaseModel):
    """Fields of chat and of completions."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=16)
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    seed: int | None = None
    stop: list[Stop] = Field(default_factory=list, max_length=16)
    max_tokens: int | None = Field(default=None, ge=1)
    experts: str | dict[str, float] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else ([] if value is None else value)

    @field_validator("n", "stream", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        return {"n": 1, "stream": False}[str(info.field_name)] if value is None else value

    @property
    def longest(self) -> int | None:
        """The longest reply asked for, None where none was."""
        return self.max_tokens

    def drawing(self, longest: int, copy: int) -> Drawing:
        """Say how one reply is drawn; copies of one prompt differ by their seed."""
        seed = secrets.randbits(62) if self.seed is None else self.seed
        heat = 1.0 if self.temperature is None else self.temperature
        share = 1.0 if self.top_p is None else self.top_p
        return Drawing(longest, heat, share, tuple(stop for stop in self.stop if stop), seed + copy)


class Part(BaseModel):
    """A piece of a message's content."""

    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    role: str
    content: str | list[Part]

    def plain(self) -> dict[str, str]:
        """Give role and text; a content of parts is joined, and has to be text alone."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        odd = [part.type for part in self.content if part.type != "text" or part.text is None]
        if odd:
            raise Fault(
                400, f"A message holds a part of type {odd[0]!r}; this model reads text.", param="messages"
            )
        return {"role": self.role, "content": "".join(part.text or "" for part in self.content)}


class Chat(Common):
    """The body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def longest(self) -> int | None:
        """The longest reply asked for, by its new or its old name."""
        return self.max_completion_tokens or self.max_tokens


class Completion(Common):
    """The body of /v1/completions."""

    prompt: str | list[str]
    max_tokens: int | None = Field(default=16, ge=1)

    @property
    def prompts(self) -> list[str]:
        """The prompts, at least one."""
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)


def read_body(kind: type[Body], data: Any) -> Body:
    """Check a body.

    Raises:
        Fault: it is not an object, a field is wrong or missing, or it asks for something that cannot be given.

    Example:
        >>> read_body(Completion, {"model": "umaf", "prompt": "once"}).prompts
        ['once']
    """
    if not isinstance(data, dict):
        raise Fault(400, "The request's body has to be a JSON object.")
    for field, harmless in REFUSED.items():
        if field in data and data[field] not in harmless:
            raise Fault(
                400, f"{field!r} was asked for, which this server does not do; leave it out.", param=field
            )
    try:
        return kind.model_validate(data)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False)[0]
        path = [str(part) for part in first["loc"]]
        several = next((at for at, part in enumerate(path) if part in FORMS), None)
        where = ".".join(path if several is None else path[: several + 1])
        why = first["msg"][:200] if several is None else FORMS[path[several]]
        raise Fault(400, f"{where or 'The body'}: {why}.", param=where or None) from None
