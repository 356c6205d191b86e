"""Conversations as prompts: with the tokenizer's chat template, or as plain lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from umaf.errors import ConfigError
from umaf.models import Model
from umaf.readout import prompt_of

ROLES = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class Request:
    """What is asked of an adaptive model.

    Attributes:
        prompt: what the model continues.
        text: what a dispatcher reads: the request without the words around it.
        lines: a reply ends with its line, as the prompt's form wants.
    """

    prompt: str
    text: str
    lines: bool = False


def asked(model: Model, text: str, cue: str | None = None) -> Request:
    """Make a request of a text, which is continued as it is or, with a cue, answered in one line.

    Raises:
        ConfigError: the text holds half of a character.
    """
    _whole(text)
    return Request(prompt_of(model, text, cue), text, lines=cue is not None)


def conversation(model: Model, messages: Sequence[Mapping[str, str]], *, cue: str | None = None) -> Request:
    r"""Make a request of a conversation.

    A tokenizer with a chat template writes it its own way. Without one, every message is a line, and a cue, where
    there is one, stands before each reply, as in the prompts of tasks.

    Args:
        model: its tokenizer may have a template.
        messages: with `role` (system, user, assistant) and `content`; the last one is the user's.
        cue: the word before a reply, for models without a template.

    Raises:
        ConfigError: no messages, an unknown role, half of a character, or a template that refuses them.

    Example:
        >>> from umaf.models import open_model
        >>> said = [{"role": "user", "content": "what is 2 + 2"}]
        >>> conversation(open_model("zoo:llama-1m"), said, cue="answer").prompt
        'what is 2 + 2\nanswer:'
    """
    users = [message["content"] for message in messages if message["role"] == "user"]
    odd = [message["role"] for message in messages if message["role"] not in ROLES]
    if not users or odd or messages[-1]["role"] != "user":
        found = f"the role {odd[0]!r}" if odd else f"{len(messages)} messages that do not end with the user's"
        raise ConfigError(
            f"A conversation needs messages of {', '.join(ROLES)}, the last one the user's, but {found} were given."
        )
    _whole("".join(message["content"] for message in messages))
    if model.tokenizer.chat_template:
        try:
            prompt = model.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as problem:  # a template is a program of the model's author
            reason = " ".join(str(problem).split())[:120].rstrip(".")
            raise ConfigError(
                f'The chat template of "{model.name}" refused the conversation ({reason}); send other messages.'
            ) from problem
        return Request(str(prompt), users[-1])
    lines: list[str] = []
    for message in messages:
        reply = message["role"] == "assistant" and cue is not None
        lines.append(f"{cue}: {message['content']}" if reply else message["content"])
    return Request(
        prompt_of(model, "\n".join(lines), cue) if cue else "\n".join(lines) + "\n", users[-1], lines=True
    )


def _whole(text: str) -> None:
    """Refuse what no tokenizer reads: bytes of a terminal that are not UTF-8 arrive as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ConfigError(
            f"A request holds half of a character at place {problem.start}, which is no text; write it in UTF-8."
        ) from None
