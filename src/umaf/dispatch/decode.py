"""The second pass: a batch of prompts continued token by token, each row with its own way of drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from umaf import seeds
from umaf.dispatch.kept import Reader
from umaf.errors import ConfigError, NumericalError, ProbeError
from umaf.experts.rollout import Prompted
from umaf.models import Model
from umaf.readout.encode import Encoded, encode

Finish = Literal["stop", "length", "left"]


@dataclass(frozen=True)
class Drawing:
    """How one row is drawn.

    Attributes:
        max_new_tokens: longest reply.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        top_p: draw from the likeliest tokens that hold this share of the chance, in (0, 1].
        stop: texts that end a reply and are not part of it, such as a line break.
        seed: of the draws; a row's result does not depend on its neighbours.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Piece:
    """What one row got in one step.

    Attributes:
        row: which.
        text: new text, "" while a character or a possible stop is still open.
        finish: why the row ended; None while it goes on.
        tokens: how many the row has so far.
    """

    row: int
    text: str
    finish: Finish | None
    tokens: int


def fitting(model: Model, prompts: Sequence[str], longest: int) -> Encoded:
    """Tokenise prompts so that replies still fit the window.

    Raises:
        ConfigError: replies of no token, or of more than the window holds.
        ProbeError: a prompt that leaves no room for its reply.
    """
    room = model.window if model.head == "lm" else None
    if longest < 1 or (room is not None and longest >= room):
        raise ConfigError(
            f'Replies of {longest} tokens were asked for, but "{model.name}" reads {room or "any number of"} tokens; '
            "ask for at least one and for fewer than that."
        )
    try:
        return encode(model, prompts, None, max_length=None if room is None else room - longest)
    except ProbeError as problem:
        if " has room for " not in str(problem):
            raise
        found = str(problem).partition(";")[0]
        raise ProbeError(
            f"{found} beside a reply of {longest}; shorten it, or ask for a shorter reply."
        ) from problem


def sizes_of(model: Model, prompts: Sequence[str], drawings: Sequence[Drawing]) -> list[int]:
    """Count the tokens of prompts, each of which has to leave room for its own reply.

    Raises:
        ConfigError, ProbeError: as `fitting`.
    """
    sizes = [0] * len(prompts)
    for longest in {drawing.max_new_tokens for drawing in drawings}:
        rows = [row for row, drawing in enumerate(drawings) if drawing.max_new_tokens == longest]
        found = fitting(model, [prompts[row] for row in rows], longest).mask.sum(1).tolist()
        for row, size in zip(rows, found, strict=True):
            sizes[row] = size
    return sizes


@torch.inference_mode()
def decode(
    model: Model,
    prompts: Encoded,
    drawings: Sequence[Drawing],
    *,
    left: Callable[[int], bool] = lambda row: False,
    read: Callable[[Model, Encoded], Prompted | Reader] = Prompted,
) -> Iterator[list[Piece]]:
    """Continue prompts until every row has ended.

    Args:
        model: with whatever mixture is on it; it has to stay on until the last step.
        prompts: what `fitting` gave.
        drawings: one per row.
        left: asked before every step whether nobody waits for a row any more.
        read: reads the prompts; what it gives reads on.

    Yields:
        After each step, a piece for every row that was still going on.

    Raises:
        NumericalError: the model gave NaN.
    """
    rows = [_Row(model, at, drawing) for at, drawing in enumerate(drawings)]
    reader = read(model, prompts)
    logits = reader.first
    while True:
        if not torch.isfinite(logits).all():
            raise NumericalError(
                f'"{model.name}" gave NaN or infinity while it wrote; use smaller weights for its experts, or float32.'
            )
        tokens = _choose(logits.float(), rows)
        going = [row for row in rows if row.finish is None]
        yield [row.give_up() if left(row.at) else row.take(int(tokens[row.at])) for row in going]
        if all(row.finish is not None for row in rows):
            return
        logits = reader.extend(tokens.unsqueeze(1))[:, -1]


class _Row:
    """One reply being written."""

    def __init__(self, model: Model, at: int, drawing: Drawing) -> None:
        self.at, self.drawing = at, drawing
        self.finish: Finish | None = None
        self.generator = seeds.generator(drawing.seed, "decode") if drawing.temperature > 0 else None
        self._tokenizer: Any = model.tokenizer
        self._ids: list[int] = []
        self._given = ""

    def take(self, token: int) -> Piece:
        """Add a token; give the text that is certain by now."""
        if token == self._tokenizer.eos_token_id:
            self.finish = "stop"
        else:
            self._ids.append(token)
            if len(self._ids) >= self.drawing.max_new_tokens:
                self.finish = "length"
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True).lstrip(" ")
        ends = [at for stop in self.drawing.stop if (at := text.find(stop)) >= 0]
        if ends:
            text, self.finish = text[: min(ends)], "stop"
        elif self.finish is None:
            text = text[: len(text) - self._open(text)]
        return self._piece(text)

    def give_up(self) -> Piece:
        """End the row where it is."""
        self.finish = "left"
        return self._piece(self._given)

    def _piece(self, text: str) -> Piece:
        new = text[len(self._given) :]
        self._given = text if len(text) > len(self._given) else self._given
        return Piece(self.at, new, self.finish, len(self._ids))

    def _open(self, text: str) -> int:
        """Count the characters at the end that may still change: half a character, or the beginning of a stop."""
        broken = len(text) - len(text.rstrip("�"))
        starts = [
            size
            for stop in self.drawing.stop
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        ]
        return max([broken, *starts])


def _choose(logits: Tensor, rows: Sequence[_Row]) -> Tensor:
    """Choose every row's next token; rows that draw do so on the CPU, each from its own generator."""
    tokens = logits.argmax(-1)
    for row in rows:
        if row.generator is None or row.finish is not None:
            continue
        shares = torch.softmax(logits[row.at].cpu() / row.drawing.temperature, -1)
        if row.drawing.top_p < 1:
            ordered, order = shares.sort(descending=True)
            kept = ordered.cumsum(0) - ordered < row.drawing.top_p
            shares = torch.zeros_like(shares).index_copy(0, order, ordered * kept)
        tokens[row.at] = int(torch.multinomial(shares, 1, generator=row.generator))
    return tokens
