"""An adaptive model: a first pass decides which experts a request needs, a second pass answers with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from umaf.dispatch.chat import Request, asked
from umaf.dispatch.decision import Decision, Dispatcher, joined
from umaf.dispatch.decode import Drawing, Finish, Piece, decode, fitting, sizes_of
from umaf.dispatch.dispatchers import Material, make_dispatcher
from umaf.dispatch.kept import Kept, Reader, can_keep
from umaf.dispatch.shelf import Shelved, by_name, open_shelf
from umaf.errors import ConfigError, ExpertError
from umaf.experts.expert import load_expert
from umaf.experts.fit import out_of_memory
from umaf.experts.rollout import Prompted
from umaf.models import Model
from umaf.readout.encode import Encoded

Asked = str | Request
Told = Callable[[str], None]
BATCH = 64
"""Replies that are written at once: on a CPU, a file of thousands of requests would fill the memory without a fault."""
COLD = 1e-5
"""Temperatures below this take the likeliest token: logits divided by them leave the range of float32."""
_TOO_MUCH = "A single request does not fit the memory; ask for a shorter reply or use a smaller model."
_TOO_MANY = (
    "A batch of replies does not fit the memory to its end; ask for shorter replies, or for fewer at once."
)


@dataclass(frozen=True)
class Reply:
    """An answer and how it came about.

    Attributes:
        text: what the model wrote.
        weights: by the experts' names; all zero is the base alone.
        why: one line: the experts, their weights, and the reason.
        tokens: how many the model wrote.
        finish: "stop" (it ended, or a stop was met), "length", or "left" (nobody waited any more).
        first_pass: seconds the decision took, of all requests that were decided together.
        second_pass: seconds of writing, of all requests that were written together.
    """

    text: str
    weights: Mapping[str, float]
    why: str
    tokens: int
    finish: Finish
    first_pass: float
    second_pass: float


class AdaptiveModel:
    """A base, a shelf of experts, and a way to choose among them for every request.

    One caller is served at a time, others wait: while a reply is being written, its mixture is on the base.

    Args:
        shelf: the base and its experts.
        dispatcher: decides; the base alone answers when not given.
        batch: replies that `generate` writes at once, at most.

    Example:
        >>> from umaf.experts.expert import identity_expert
        >>> from umaf.dispatch.shelf import open_shelf
        >>> from umaf.models import open_model
        >>> base = open_model("zoo:llama-1m")
        >>> adaptive = AdaptiveModel(open_shelf(base, [identity_expert(base, "nothing")]))
        >>> reply = adaptive.generate(["once upon"], drawing=Drawing(max_new_tokens=3), experts="nothing")[0]
        >>> reply.tokens, reply.weights
        (3, {'nothing': 1.0})
    """

    def __init__(self, shelf: Shelved, dispatcher: Dispatcher | None = None, *, batch: int = BATCH) -> None:
        self.shelf = shelf
        self._dispatcher = dispatcher
        self._batch = batch
        self.kept = Kept()
        self._busy = threading.Lock()
        self._writer = 0

    @classmethod
    def open(
        cls,
        model: Model,
        experts: Sequence[str | Path],
        *,
        by: str | None = "prompt",
        material: Material | None = None,
        cache: Path | None = None,
    ) -> AdaptiveModel:
        """Open experts from their folders and make the dispatcher.

        Args:
            model: the base.
            experts: folders of experts, or of LoRAs in PEFT's format.
            by: a dispatcher's name; None lets every request name its experts or get the base.
            material: what the dispatcher may learn from.
            cache: a folder for the singular directions of bases.

        Raises:
            ExpertError: experts that do not fit the base or each other, or a dispatcher that lacks material.
        """
        shelf = shelf_from(model, experts, cache=cache)
        return cls(shelf, None if by is None else make_dispatcher(by, shelf, material))

    def decide(
        self, requests: Sequence[Asked], *, experts: str | Mapping[str, float] | None = None
    ) -> Decision:
        """Run the first pass alone.

        Args:
            requests: texts, or requests with a prompt around their text.
            experts: an expert's name or weights by name, in place of the dispatcher.

        Raises:
            ConfigError: a single request does not fit the memory.
        """
        if experts is not None:
            wanted = {experts: 1.0} if isinstance(experts, str) else experts
            return by_name(self.shelf, wanted, rows=len(requests))
        if self._dispatcher is None:
            base = by_name(self.shelf, {}, rows=len(requests))
            return replace(base, reasons=("no expert was asked for",) * len(requests))
        with self._alone():
            return self._sorted(self._dispatcher, [_request(self.shelf.model, one).text for one in requests])

    def _sorted(self, dispatcher: Dispatcher, texts: Sequence[str]) -> Decision:
        """Ask a dispatcher; where its texts do not fit the memory together, in halves."""
        try:
            return dispatcher(texts)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            if len(texts) == 1:
                raise ConfigError(_TOO_MUCH) from problem
        half = len(texts) // 2
        return joined([self._sorted(dispatcher, texts[:half]), self._sorted(dispatcher, texts[half:])])

    def generate(
        self,
        requests: Sequence[Asked],
        *,
        cue: str | None = None,
        drawing: Drawing | Sequence[Drawing] | None = None,
        experts: str | Mapping[str, float] | Decision | None = None,
        told: Told | None = None,
    ) -> list[Reply]:
        """Answer requests, each with its own mixture, in one batch where the experts allow it.

        Args:
            requests: texts, or requests with a prompt around their text.
            cue: the word before the answer of plain texts; the answer is then one line.
            drawing: how replies are drawn, for all or one for each; the likeliest tokens when not given.
            experts: an expert's name, weights by name, or a decision, in place of the dispatcher.
            told: called with a sentence when something had to be done otherwise: a batch that did not fit memory.

        Returns:
            One reply per request, in their order.

        Raises:
            ProbeError: a request that does not fit the window.
            ExpertError: experts that the shelf does not have.
        """
        if not requests:
            return []
        asks = [_request(self.shelf.model, one, cue) for one in requests]
        begun = time.perf_counter()
        decision = experts if isinstance(experts, Decision) else self.decide(asks, experts=experts)
        first = time.perf_counter() - begun
        many = [drawing or Drawing()] * len(asks) if not isinstance(drawing, Sequence) else list(drawing)
        replies: dict[int, Reply] = {}
        groups = self._together(asks, decision, many)
        for rows in (
            part[at : at + self._batch] for part in groups for at in range(0, len(part), self._batch)
        ):
            begun = time.perf_counter()
            written = self._written(asks, decision, many, rows, told)
            second = time.perf_counter() - begun
            for row, (text, tokens, finish) in written.items():
                shares, why = decision.shares(row), decision.explain(row)
                replies[row] = Reply(text, shares, why, tokens, finish, first, second)
        return [replies[row] for row in range(len(asks))]

    def stream(
        self,
        requests: Sequence[Asked],
        decision: Decision,
        *,
        drawings: Sequence[Drawing],
        left: Callable[[int], bool] = lambda row: False,
    ) -> Iterator[Piece]:
        """Run the second pass of decided requests, and give every piece of text as it is written.

        Args:
            requests: as `generate` takes them.
            decision: one row per request.
            drawings: one per request.
            left: whether nobody waits for a row any more; such a row ends early.

        Yields:
            Pieces, each with its row; the last one of a row says why it ended.

        Raises:
            ConfigError: memory ran out while replies were being written.
        """
        asks = [_request(self.shelf.model, one) for one in requests]
        with self._alone():
            waiting = self._together(asks, decision, drawings)
            while waiting:
                rows, begun = waiting.pop(0), False
                try:
                    for pieces in self._pass(asks, decision, drawings, rows, left):
                        begun = True
                        yield from pieces
                except (RuntimeError, MemoryError) as problem:
                    if not out_of_memory(problem):
                        raise
                    # What somebody has read already cannot be taken back and written again in halves.
                    if begun or len(rows) == 1:
                        raise ConfigError(_TOO_MUCH if len(rows) == 1 else _TOO_MANY) from problem
                    waiting[:0] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]

    def _pass(self, asks, decision, drawings, rows, left=lambda row: False) -> Iterator[list[Piece]]:
        """One batch of the second pass; pieces carry the rows of the whole."""
        own = [_settled(asks[row], drawings[row]) for row in rows]
        longest = max(one.max_new_tokens for one in own)
        prompts = fitting(self.shelf.model, [asks[row].prompt for row in rows], longest)
        mixture = tuple(decision.weights[rows[0]].flatten().tolist())

        def read(model: Model, prompts: Encoded) -> Prompted | Reader:
            if len(rows) > 1 or not can_keep(model):
                return Prompted(model, prompts)
            return self.kept.reader(model, prompts.ids[0].tolist(), mixture)

        # Replies may end early: half of what they may have is counted on.
        tokens = int(prompts.mask.sum()) + sum(one.max_new_tokens for one in own) // 2
        with self.shelf.applied(decision.weights[list(rows)], tokens=tokens) as model:
            for pieces in decode(model, prompts, own, left=lambda at: left(rows[at]), read=read):
                yield [replace(piece, row=rows[piece.row]) for piece in pieces]

    def _written(
        self, asks, decision, drawings, rows: Sequence[int], told: Told | None
    ) -> dict[int, tuple[str, int, Finish]]:
        """Write a batch to its end; halve it where it does not fit the memory."""
        texts = {row: "" for row in rows}
        ends: dict[int, tuple[int, Finish]] = {}
        try:
            with self._alone():
                for pieces in self._pass(asks, decision, drawings, rows):
                    for piece in pieces:
                        texts[piece.row] += piece.text
                        if piece.finish is not None:
                            ends[piece.row] = (piece.tokens, piece.finish)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            if len(rows) == 1:
                raise ConfigError(_TOO_MUCH) from problem
            if told is not None:
                told(f"{len(rows)} requests at once do not fit the memory; going on with half as many.")
        else:
            return {row: (texts[row].strip(), *ends[row]) for row in rows}
        half = len(rows) // 2
        return {
            **self._written(asks, decision, drawings, rows[:half], told),
            **self._written(asks, decision, drawings, rows[half:], told),
        }

    def _together(self, asks, decision: Decision, drawings) -> list[list[int]]:
        """Group rows that one batch can hold: of one mixture where they may not differ, and inside the window.

        A batch goes on until its longest reply ends, so its longest prompt has to fit beside that.
        """
        model = self.shelf.model
        sizes = sizes_of(model, [one.prompt for one in asks], drawings)
        groups: dict[object, list[int]] = {}
        for row, weights in enumerate(decision.weights):
            same = None if self.shelf.rows_may_differ else tuple(weights.flatten().tolist())
            groups.setdefault(same, []).append(row)
        if model.head != "lm" or model.window is None:
            return list(groups.values())
        found: list[list[int]] = []
        for rows in groups.values():
            size = reply = model.window
            # By the length of replies, the longest last: neighbours then differ little.
            for row in sorted(rows, key=lambda at: (drawings[at].max_new_tokens, -sizes[at])):
                size, reply = max(size, sizes[row]), max(reply, drawings[row].max_new_tokens)
                if size + reply > model.window:
                    found.append([])
                    size, reply = sizes[row], drawings[row].max_new_tokens
                found[-1].append(row)
        return [sorted(rows) for rows in found]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Another thread is waited for; this one would wait for itself.
        if self._busy.locked() and self._writer == threading.get_ident():
            raise ConfigError(
                "An adaptive model was asked while it was writing another reply; read that to its end, or close it."
            )
        with self._busy:
            self._writer = threading.get_ident()
            yield


def shelf_from(model: Model, folders: Sequence[str | Path], *, cache: Path | None = None) -> Shelved:
    """Open a shelf of experts, or of LoRAs in PEFT's format; not of both.

    Raises:
        ExpertError: folders of both kinds, or experts that do not fit the base or each other.
    """
    from umaf.dispatch.loras import open_lora_shelf

    loras = [Path(folder) for folder in folders if (Path(folder) / "adapter_config.json").is_file()]
    if not loras:
        return open_shelf(model, [load_expert(folder) for folder in folders], cache=cache)
    if len(loras) < len(folders):
        odd = next(folder for folder in folders if Path(folder) not in loras)
        raise ExpertError(f"The shelf was given LoRAs and the expert {odd}; put one kind on a shelf.")
    return open_lora_shelf(model, {folder.name: folder for folder in loras})


def _request(model: Model, one: Asked, cue: str | None = None) -> Request:
    return one if isinstance(one, Request) else asked(model, one, cue)


def _settled(request: Request, drawing: Drawing) -> Drawing:
    """End a reply with its line where the request's form wants that; draw nothing where it is too cold to."""
    stop = ("\n", *drawing.stop) if request.lines else drawing.stop
    return replace(
        drawing, stop=stop, temperature=drawing.temperature if drawing.temperature >= COLD else 0.0
    )
