"""Vocabularies brought together: which row of each model's tables a token of the result has.

Tokens are the same when their text in tokenizer.json is the same, whatever their numbers. Every table and head whose
axis 0 counts tokens is aligned alike. A model that lacks a token gets the base's row for it, so that its delta there
is 0; if the base lacks it too, base and models get the mean over the models that have it. Rows that stand for no token
stay row for row, so that models of one vocabulary are merged as they are without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from umaf.errors import ConfigError, did_you_mean
from umaf.merging.planning.jobs import Job, Opened, Plan, Rows, Source
from umaf.merging.planning.tokenizer_file import Vocabulary, read_vocabulary, unite
from umaf.merging.recipes.recipe import Tokenizer
from umaf.merging.recipes.reference import Ref

SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2}


@dataclass(frozen=True)
class Alignment:
    """The vocabulary of a merged model.

    Attributes:
        vocabulary: its tokens.
        leader: index of the model whose tokenizer files it has.
        union: tokenizer.json is a new one.
        models: tokens of each of the plan's models.
        given: token's number to (model, row there), or to None for zeros.
        forced: numbers of tokens that take the given row in every model.
        multiple: rows are added up to a multiple of this.
    """

    vocabulary: Vocabulary
    leader: int
    union: bool
    models: tuple[Vocabulary, ...]
    given: Mapping[int, tuple[int, int] | None]
    forced: frozenset[int]
    multiple: int = 1

    def index(self, model: int, *, count: int, rows: int) -> Tensor:
        """Give the row in a model's table of each row of the result, -1 where it has none, int64 `[count]`."""
        index = torch.full((count,), -1, dtype=torch.int64)
        own = self.models[model].ids
        pairs = [(number, own[token]) for token, number in self.vocabulary.ids.items() if token in own]
        places = torch.tensor(
            [pair for pair in pairs if pair[1] < rows and pair[0] < count], dtype=torch.int64
        )
        if places.numel():
            index[places[:, 0]] = places[:, 1]
        # Rows that stand for no token, here and in the result, keep their place.
        known = torch.zeros(count, dtype=torch.bool)
        numbers = torch.tensor([*self.vocabulary.ids.values(), *own.values()], dtype=torch.int64)
        known[numbers[numbers < count]] = True
        free = (~known).nonzero().flatten()
        free = free[free < rows]
        index[free] = free
        for number in self.forced:
            index[number] = -1
        return index


def read_alignment(plan: Plan) -> Alignment | None:
    """Find out which tokens the result has; None where the recipe does not bring vocabularies together.

    Raises:
        CheckpointError: a model has no tokenizer.json.
        ConfigError: a token or a model that the recipe names is not there.
    """
    asked = plan.tokenizer
    if asked is None:
        return None
    vocabularies = tuple(read_vocabulary(one.checkpoint.folder) for one in plan.models)
    leader = _leader(plan, asked)
    if asked.source == "union":
        others = [one for i, one in enumerate(vocabularies) if i != leader]
        vocabulary = unite([vocabularies[leader], *others], extra=list(asked.tokens))
    else:
        vocabulary = unite([vocabularies[leader]], extra=list(asked.tokens))
    given, forced = _given(plan.models, vocabularies, vocabulary, asked)
    changed = set(vocabulary.ids) != set(vocabularies[leader].ids)
    multiple = asked.pad_to_multiple_of or 1
    return Alignment(vocabulary, leader, changed, vocabularies, given, forced, multiple)


def _leader(plan: Plan, asked: Tokenizer) -> int:
    if not isinstance(asked.source, Ref):
        return plan.donor
    for number, one in enumerate(plan.models):
        if one.ref == asked.source or one.ref.path == asked.source.path:
            return number
    raise ConfigError(
        f"The tokenizer is to come from {asked.source}, which is none of the models; name one of "
        f"{', '.join(str(one.ref) for one in plan.models)}."
    )


def _given(
    models: Sequence[Opened], vocabularies: Sequence[Vocabulary], result: Vocabulary, asked: Tokenizer
) -> tuple[dict[int, tuple[int, int] | None], frozenset[int]]:
    given: dict[int, tuple[int, int] | None] = {}
    forced = set()
    for token, choice in asked.tokens.items():
        number = result.ids[token]
        if choice.force and (choice.zero or choice.source is not None):
            forced.add(number)
        if choice.zero:
            given[number] = None
        elif choice.source is not None:
            model = _model(models, choice.source, token)
            row = choice.token_id
            if row is None:
                row = _row(vocabularies[model], choice.token or token)
            given[number] = (model, row)
    return given, frozenset(forced)


def _model(models: Sequence[Opened], ref: Ref, token: str) -> int:
    for number, one in enumerate(models):
        if one.ref == ref or one.ref.path == ref.path:
            return number
    raise ConfigError(
        f"The row of the token {token!r} is to come from {ref}, which is none of the models; name one of "
        f"{', '.join(str(one.ref) for one in models)}."
    )


def _row(vocabulary: Vocabulary, token: str) -> int:
    if token not in vocabulary.ids:
        raise ConfigError(
            f"The token {token!r} was asked for, and {vocabulary.where} has none of that name."
            f"{did_you_mean(token, vocabulary.ids)}"
        )
    return vocabulary.ids[token]


def align(plan: Plan, alignment: Alignment | None) -> Plan:
    """Give the plan with its tables and heads in the tokens of the result.

    Args:
        plan: as `make_plan` gives it.
        alignment: as `read_alignment` gives it; None changes nothing.

    Returns:
        A plan whose jobs have their `rows`, their shape, and whose config has the new number of tokens.
    """
    if alignment is None:
        return plan
    jobs, counts, cache = [], set(), {}
    for job in plan.jobs:
        if not job.vocabulary:
            jobs.append(job)
            continue
        found = _aligned(plan, alignment, job, cache)
        counts.add(found.shape[0])
        jobs.append(found)
    written = sum(_bytes(new) - _bytes(old) for new, old in zip(jobs, plan.jobs, strict=True))
    config = {**plan.config, **({"vocab_size": max(counts)} if counts else {})}
    return replace(plan, jobs=tuple(jobs), config=config, bytes_written=plan.bytes_written + written)


def _bytes(job: Job) -> int:
    size = SIZES.get(job.dtype, 1)
    for length in job.shape:
        size *= length
    return size


def _aligned(plan: Plan, alignment: Alignment, job: Job, cache: dict[tuple[int, int, int], Tensor]) -> Job:
    sources = [*job.sources, *([job.base] if job.base is not None else [])]
    rows = {source: _rows(plan, source) for source in sources}
    # The leader need not be merged: a base may give its tokens only.
    first = _of(job, alignment.leader)
    lead = plan.models[first.model].checkpoint.entries.get(first.tensor)
    count = max(alignment.vocabulary.size, lead.shape[0] if lead is not None else 1)
    count = -(-count // alignment.multiple) * alignment.multiple
    plain = torch.arange(count)

    def index(source: Source) -> Tensor | None:
        key = (source.model, count, rows[source])
        if key not in cache:
            cache[key] = alignment.index(source.model, count=count, rows=rows[source])
        found = cache[key]
        return None if rows[source] == count and torch.equal(found, plain) else found

    given = {
        number: None if choice is None else (_of(job, choice[0]), choice[1])
        for number, choice in alignment.given.items()
    }
    base = None if job.base is None else index(job.base)
    aligned = Rows(count, tuple(map(index, job.sources)), base, given)
    return replace(job, shape=(count, *job.shape[1:]), rows=aligned)


def _rows(plan: Plan, source: Source) -> int:
    return plan.models[source.model].checkpoint.entries[source.tensor].shape[0]


def _of(job: Job, model: int) -> Source:
    """Give the tensor of this job in one model; a model that is not merged calls it as the first one does."""
    every = [*job.sources, *([job.base] if job.base is not None else [])]
    return next((one for one in every if one.model == model), Source(model, job.sources[0].tensor))
