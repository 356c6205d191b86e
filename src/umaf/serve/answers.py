"""Replies in OpenAI's form, whole or as a stream of chunks, with the experts they were written by."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from umaf.serve.worker import Begun, Written

FINISH = {"stop": "stop", "length": "length", "left": "length"}
"""OpenAI knows no reply that ran out of time; such a one says "length", and `timed_out` beside it."""


@dataclass
class Answer:
    """One reply as it grows.

    Attributes:
        index: its place among the choices.
        begun: the experts it gets.
        text: what was written so far.
        last: the last piece.
    """

    index: int
    begun: Begun | None = None
    text: str = ""
    last: Written | None = None


@dataclass
class Form:
    """How the answers to one request are written down.

    Attributes:
        kind: "chat" or "text".
        model: what the request called the model.
        id: of the response.
        created: when, in seconds since 1970.
    """

    kind: Literal["chat", "text"]
    model: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.id or f"{'chatcmpl' if self.kind == 'chat' else 'cmpl'}-{secrets.token_hex(12)}"

    def whole(self, answers: list[Answer]) -> dict[str, Any]:
        """Give the response to a request that did not ask for a stream."""
        choices = []
        for answer in answers:
            text = answer.text.strip()
            said = (
                {"message": {"role": "assistant", "content": text}} if self.kind == "chat" else {"text": text}
            )
            choices.append({"index": answer.index, **said, "logprobs": None, **self._end(answer)})
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head(name), "choices": choices, "usage": usage(answers), **self._experts(answers[0])}

    def chunk(self, answer: Answer, text: str | None, *, first: bool = False) -> dict[str, Any]:
        """Give one chunk of a stream: the first says who writes, the last why the reply ended."""
        ended = answer.last is not None and answer.last.finish is not None and text is None
        end = self._end(answer) if ended else {"finish_reason": None}
        if self.kind == "chat":
            delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
            said: dict[str, Any] = {"delta": delta if text is None else {"content": text}}
        else:
            said = {"text": text or ""}
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        more = self._experts(answer) if first else {}
        return {
            **self._head(name),
            "choices": [{"index": answer.index, **said, "logprobs": None, **end}],
            **more,
        }

    def last_chunk(self, answers: list[Answer]) -> dict[str, Any]:
        """Give the chunk with the usage, which has no choices."""
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        return {**self._head(name), "choices": [], "usage": usage(answers)}

    def _head(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}

    @staticmethod
    def _end(answer: Answer) -> dict[str, Any]:
        finish = answer.last.finish if answer.last else None
        return {
            "finish_reason": FINISH.get(finish or "", None),
            **({"timed_out": True} if finish == "left" else {}),
        }

    @staticmethod
    def _experts(answer: Answer) -> dict[str, Any]:
        return {} if answer.begun is None else {"experts": answer.begun.experts, "why": answer.begun.why}


def usage(answers: list[Answer]) -> dict[str, int]:
    """Count tokens; prompts that were answered several times count as often."""
    prompt = sum(answer.begun.prompt_tokens for answer in answers if answer.begun)
    written = sum(answer.last.tokens for answer in answers if answer.last)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def event(data: dict[str, Any] | str) -> bytes:
    r"""Write one server-sent event.

    Example:
        >>> event("[DONE]")
        b'data: [DONE]\n\n'
    """
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()
