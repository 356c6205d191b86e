"""Words that stand before every request of a shelf, read once: their keys and values are kept, and shared by a batch.

The base is asked for the kind of a request by a prompt that names the kinds first. That beginning is the same for every
request, so its keys and values are too, and only the request and the names are read.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from umaf.dispatch.decision import OTHER
from umaf.dispatch.kept import can_keep, shareable
from umaf.dispatch.naming import name_scores
from umaf.errors import ProbeError
from umaf.models import Model, bare
from umaf.readout import answer_tokens
from umaf.readout.encode import Encoded, encode
from umaf.readout.generate import check_writes, to_the_left


def naming_lead(names: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Write the words that say which kinds there are.

    Example:
        >>> naming_lead(["sums", "lists"], ["arithmetic", ""])
        'kinds: sums (arithmetic), lists, other'
    """
    told = [
        f"{name} ({about})" if about else name
        for name, about in zip(names, descriptions or [""] * len(names), strict=True)
    ]
    return f"kinds: {', '.join([*told, OTHER])}"


class Lead:
    """A line before every text, and what a model computes on it.

    Args:
        model: with the head "lm" or "seq2seq"; its weights stay as they are.
        text: the line.

    Raises:
        TaskError: the model does not write.
    """

    def __init__(self, model: Model, text: str) -> None:
        check_writes(model)
        self.text, self._model = text, model
        self.kept: Any = None
        """The cache of the beginning; None where it was not read yet, or cannot be shared."""
        self._ids: list[int] = []
        self._precision: object = None
        takes = inspect.signature(bare(model.net).forward).parameters
        # Names side by side need positions and a mask of their own, which not every way of attending takes.
        attends = getattr(bare(model.net).config, "_attn_implementation", None) in ("sdpa", "eager")
        self._shared = can_keep(model) and attends and "position_ids" in takes
        self._keeps = "logits_to_keep" in takes

    @torch.inference_mode()
    def scores(
        self, texts: Sequence[str], names: Sequence[str], cue: str, *, batch_size: int = 16
    ) -> tuple[Tensor, list[bool]]:
        """Score names as `name_scores` does after the line, the text and the cue.

        Args:
            texts: what is to be named.
            names: at least one.
            cue: the word before the name.
            batch_size: texts per pass.

        Returns:
            float32 ``[text, name]`` on the CPU, and for each text whether it was cut.

        Raises:
            ProbeError: the line does not fit the window.
        """
        model, tokens = self._model, [answer_tokens(self._model.tokenizer, name) for name in names]
        room = None
        if model.head == "lm" and model.window is not None:
            room = model.window - max(map(len, tokens))
        self._check(len(names), cue, room)
        prompts = [f"{self.text}\n{text}" for text in texts]
        batch = encode(model, prompts, cue, max_length=room, truncate=True)
        if not self._shared or not self._read(batch):
            return name_scores(model, prompts, names, cue, batch_size=batch_size)
        order = batch.mask.sum(1).argsort(stable=True)
        found = torch.cat([self._named(batch.take(rows), tokens) for rows in order.split(batch_size)])
        was_cut = [
            batch.cut > 0 and encode(model, [text], cue, max_length=room, truncate=True).cut > 0
            for text in prompts
        ]
        return torch.empty_like(found).index_copy_(0, order.cpu(), found), was_cut

    def _check(self, names: int, cue: str, room: int | None) -> None:
        try:
            encode(self._model, [f"{self.text}\n"], cue, max_length=room)
        except ProbeError as problem:
            raise ProbeError(
                f"Requests were to be sorted by the names of {names} experts, which do not fit the window of "
                f'"{self._model.name}" ({self._model.window} tokens); shorten names and descriptions, or sort by probe '
                "or few-shot."
            ) from problem

    def _read(self, batch: Encoded) -> bool:
        """Read the beginning that is common to the line and the batch, unless it was; False where it cannot be kept."""
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        if self.kept is None or precision != self._precision:
            ids = encode(self._model, [self.text]).ids[0].tolist()
            self._ids = ids[: _common(ids, batch)]
            self.kept, self._precision = None, precision
            if not self._ids:
                return False
            cache = DynamicCache(config=bare(self._model.net).config)
            given = torch.tensor([self._ids], device=self._model.device)
            out: Any = self._model.net(input_ids=given, past_key_values=cache, use_cache=True)
            if not shareable(out.past_key_values):
                self._shared = False
                return False
            self.kept = out.past_key_values
        return _common(self._ids, batch) > 0

    def _named(self, batch: Encoded, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Score names after one batch, ``[text, name]``, in one pass: the names stand behind the text, side by side.

        A name's last token is not read, because nothing follows it.
        """
        size, rows = _common(self._ids, batch), len(batch)
        rest = Encoded(batch.ids[:, size:], batch.mask[:, size:], batch.last - size, 0)
        ids, mask = to_the_left(self._model, rest)
        own = torch.tensor(
            [token for name in tokens for token in name[:-1]], dtype=ids.dtype, device=ids.device
        )
        cache = copy.deepcopy(self.kept)
        if size < len(self._ids):
            cache.crop(size)
        cache.batch_repeat_interleave(rows)
        out: Any = self._model.net(
            input_ids=torch.cat([ids, own.expand(rows, -1)], 1),
            attention_mask=self._seen(mask, size, [len(name) - 1 for name in tokens]),
            position_ids=_places(mask, size, [len(name) - 1 for name in tokens]),
            past_key_values=cache,
            use_cache=True,
            **({"logits_to_keep": 1 + len(own)} if self._keeps else {}),
        )
        after = torch.log_softmax(out.logits[:, -1 - len(own) :].float(), -1)
        found, start = [], 1
        for name in tokens:
            # The first token comes after the text, each other one after the one before it.
            at = torch.tensor([0, *range(start, start + len(name) - 1)], device=ids.device)
            found.append(after[:, at, torch.tensor(name, device=ids.device)].mean(1))
            start += len(name) - 1
        return torch.stack(found, 1).cpu()

    def _seen(self, mask: Tensor, before: int, lengths: Sequence[int]) -> Tensor:
        """Say what each token sees, ``[text, 1, token, key]`` to be added: what is before it, and no other name."""
        rows, width, more = len(mask), mask.shape[1], sum(lengths)
        name = torch.tensor([-1] * width + [at for at, size in enumerate(lengths) for _ in range(size)])
        order = torch.ones(width + more, width + more, dtype=torch.bool).tril()
        own = order & ((name[None] == -1) | (name[None] == name[:, None]))
        keys = torch.cat([mask.bool().cpu(), torch.ones(rows, more, dtype=torch.bool)], 1)
        inside = own[None] & keys[:, None]
        seen = torch.cat([torch.ones(rows, width + more, before, dtype=torch.bool), inside], 2).unsqueeze(1)
        dtype = next(bare(self._model.net).parameters()).dtype
        return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min).to(mask.device)


def _places(mask: Tensor, before: int, lengths: Sequence[int]) -> Tensor:
    """Give positions: every name goes on where the text ends."""
    text = (mask.cumsum(1) - 1).clamp(min=0) + before
    steps = torch.tensor([step for size in lengths for step in range(1, size + 1)], device=mask.device)
    return torch.cat([text, text[:, -1:] + steps.long()], 1)


def _common(ids: Sequence[int], batch: Encoded) -> int:
    """Count the tokens that begin a list and every row of a batch; each row keeps one token to be read."""
    most = min(len(ids), int(batch.mask.sum(1).min()) - 1)
    line = torch.tensor(ids[:most], device=batch.ids.device)
    same = (batch.ids[:, :most] == line).all(0)
    return most if bool(same.all()) else int(same.long().argmin())
