"""Words that stand before every request of a shelf, read once: their keys and values are kept, and shared by a batch.

The base is asked for the kind of a request by a prompt that names the kinds first. That beginning is the same for every
request, so its keys and values are too, and only the request and the names are read.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from umaf.dispatch.beside import can_stand_beside, read_beside
from umaf.dispatch.kept import shareable
from umaf.dispatch.naming import cut_ones, mean_by_name, token_scores
from umaf.errors import ProbeError
from umaf.models import Model, bare
from umaf.readout import answer_tokens
from umaf.readout.encode import Encoded, encode
from umaf.readout.generate import check_writes


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
        self._shared = can_stand_beside(model)

    def scores(
        self, texts: Sequence[str], names: Sequence[str], cue: str, *, batch_size: int = 16
    ) -> tuple[Tensor, list[bool]]:
        """Score names as `name_scores` does after the line, the text and the cue; see `token_scores` here."""
        found, cut = self.token_scores(texts, names, cue, batch_size=batch_size)
        return mean_by_name(found, self._model, names), cut

    @torch.inference_mode()
    def token_scores(
        self, texts: Sequence[str], names: Sequence[str], cue: str, *, batch_size: int = 16
    ) -> tuple[Tensor, list[bool]]:
        """Score the tokens of names as `umaf.dispatch.naming.token_scores` does after the line, the text and the cue.

        Args:
            texts: what is to be named.
            names: at least one.
            cue: the word before the name.
            batch_size: texts per pass.

        Returns:
            float32 ``[text, token]`` on the CPU, and for each text whether it was cut.

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
            return token_scores(model, prompts, names, cue, batch_size=batch_size)
        order = batch.mask.sum(1).argsort(stable=True)
        found = torch.cat([self._named(batch.take(rows), tokens) for rows in order.split(batch_size)])
        was_cut = cut_ones(model, prompts, cue, room, batch)
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
        """Score the tokens of names after one batch."""
        size = _common(self._ids, batch)
        cache = copy.deepcopy(self.kept)
        if size < len(self._ids):
            cache.crop(size)
        cache.batch_repeat_interleave(len(batch))
        rest = Encoded(batch.ids[:, size:], batch.mask[:, size:], batch.last - size, 0)
        return read_beside(self._model, rest, tokens, cache=cache, before=size).cpu()


def _common(ids: Sequence[int], batch: Encoded) -> int:
    """Count the tokens that begin a list and every row of a batch; each row keeps one token to be read."""
    most = min(len(ids), int(batch.mask.sum(1).min()) - 1)
    line = torch.tensor(ids[:most], device=batch.ids.device)
    same = (batch.ids[:, :most] == line).all(0)
    return most if bool(same.all()) else int(same.long().argmin())
