"""Fingerprint a collection into a store: what is there already is left alone, what cannot be read is told."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from umaf.checkpoints import open_checkpoint
from umaf.checkpoints.identity import identity
from umaf.errors import CheckpointError, ConfigError, UmafError
from umaf.extraction import Answered, Extractor, FingerprintCard, extract, open_extractor
from umaf.files import hash_texts, sha256_file
from umaf.index.answers import answers_of, knowledge
from umaf.index.collect import Candidate
from umaf.index.entry import Entry, key_of, renamed
from umaf.index.space import Space, check_space
from umaf.index.store import Store
from umaf.index.told import read_told
from umaf.models import Model, open_model, weights_hash
from umaf.models.locate import locate

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Opening:
    """How models are opened; see `umaf.models.open_model`."""

    device: str = "cpu"
    dtype: str = "float32"
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def __call__(self, name: str) -> Model:
        """Open a model."""
        return open_model(
            name,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            allow_pickle=self.allow_pickle,
        )


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        added: names of models that were fingerprinted.
        known: names of models that were there already.
        failed: name to the sentence that says why it could not be read.
    """

    added: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """One model to fingerprint, as it travels to a worker."""

    candidate: Candidate
    key: str
    identity: str
    space: Space
    opening: Opening


def add(
    store: Store,
    candidates: Sequence[Candidate],
    *,
    opening: Opening | None = None,
    engine: str = "local",
    done: Callable[[str], None] = lambda _: None,
) -> Built:
    """Fingerprint models and add them, each in a commit of its own, so that an interruption loses none.

    Args:
        store: where to.
        candidates: from `umaf.index.collect`.
        opening: how models are opened.
        engine: "local", or "ray" for the workers of a Ray cluster.
        done: told the name of every model that is done with.

    Returns:
        What was added, known already, or could not be read.

    Raises:
        ConfigError: no such engine, or Ray is not installed.
        StoreError: the store cannot be written.
    """
    if engine not in ENGINES:
        raise ConfigError(f"The engine {engine!r} was asked for; there are {', '.join(ENGINES)}.")
    how, known = opening or Opening(), store.keys()
    failed: dict[str, str] = {}
    there, work = [], []
    said = _words(store) if any(one.asks for one in candidates) else {}
    for one in candidates:
        try:
            item = _work(one, store.space, how)
        except UmafError as problem:
            failed[one.name] = str(problem)
            done(one.name)
            continue
        asked = tuple(name for ask in one.asks for name in ask.names)
        # A card that says something else now is read again; the row is replaced.
        if item.key in known and (not asked or said.get(item.key, asked) == asked):
            there.append(item)
            done(one.name)
        else:
            work.append(item)
    _refresh(store, there)
    added = []
    for item, result in (_local if engine == "local" else _on_ray)(work):
        if isinstance(result, str):
            failed[item.candidate.name] = result
        else:
            store.put([result])
            added.append(item.candidate.name)
        done(item.candidate.name)
    if added:
        store.tidy()
    return Built(tuple(added), tuple(item.candidate.name for item in there), failed)


def add_outputs(
    store: Store, name: str, outputs: Tensor, *, scores: Mapping[str, float] | None = None
) -> Entry:
    """Add a model that is only known by its outputs on the store's probes.

    Args:
        store: where to.
        name: what it is called.
        outputs: `[probe, label]` probabilities, or any scores that grow with them, row by row as the store's probes.
        scores: measured scores by task.

    Returns:
        The entry; it can be found by task and by other models' answers, not by fingerprint.

    Raises:
        ConfigError: another number of rows than probes.
        NumericalError: NaN or infinity.
    """
    entry = outputs_entry(store.space, name, outputs, scores=scores)
    store.put([entry])
    return entry


def outputs_entry(
    space: Space, name: str, outputs: Tensor, *, scores: Mapping[str, float] | None = None
) -> Entry:
    """Make the entry that `add_outputs` adds, without adding it.

    Raises:
        ConfigError: another number of rows than probes.
        NumericalError: NaN or infinity.
    """
    wanted = len(space.texts)
    if outputs.ndim != 2 or len(outputs) != wanted:
        raise ConfigError(
            f"The outputs of {name} have the shape {list(outputs.shape)}, but the store has {wanted} probes; give one "
            "row of scores for each of them (`umaf index export --probes` writes the texts)."
        )
    sums = outputs.double().sum(1)
    shares = bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-2).all())
    probabilities = outputs if shares else outputs.float().softmax(-1)
    own = "outputs-" + hashlib.sha256(outputs.float().contiguous().numpy().tobytes()).hexdigest()
    key = key_of(name, own, None, space.extractor, space.probes)
    return Entry(key, name, None, own, None, None, knowledge(probabilities), scores=dict(scores or {}))


def read_model(candidate: Candidate, space: Space, opening: Opening | None = None) -> Entry:
    """Fingerprint one model as a store's entry, without adding it.

    Raises:
        UmafError: it cannot be opened or read.
    """
    return _entry(_work(candidate, space, opening or Opening()))


def identify(place: str) -> str:
    """Hash a model's weights cheaply where they lie in files, whole where they have to be opened.

    Example:
        >>> identify("zoo:llama-1m") == identify("zoo:llama-1m")
        True
    """
    folder = Path(locate(place))
    adapter = folder / "adapter_model.safetensors"
    if adapter.is_file():
        return f"sha256:{sha256_file(adapter)}"
    if folder.is_dir():
        try:
            return identity(open_checkpoint(str(folder)))
        except CheckpointError:
            pass
    return f"weights:{weights_hash(open_model(place))}"


def _work(candidate: Candidate, space: Space, opening: Opening) -> Work:
    own = identify(candidate.place)
    base = None if candidate.base is None else _identity_of_base(candidate.base)
    return Work(
        candidate, key_of(own, base, space.extractor, space.probes, _reading(space)), own, space, opening
    )


def _reading(space: Space) -> str:
    return hash_texts([space.anchors, space.normalisation, *map(str, space.depths), space.cue])


@functools.lru_cache(maxsize=256)
def _identity_of_base(place: str) -> str:
    return identify(place)


def _words(store: Store) -> dict[str, tuple[str, ...]]:
    """Give the label words of every entry, by its key."""
    rows = store.rows("has_fingerprint = true", columns=["key", "card"])
    return {row["key"]: tuple(json.loads(row["card"]).get("words", ())) for row in rows if row["card"]}


def _refresh(store: Store, there: Sequence[Work]) -> None:
    """Bring scores, licence and names of known models up to what the collection says now."""
    for item in there:
        one = item.candidate
        if one.scores:
            found = store.entries(f"key = '{item.key}'", limit=1)[0]
            merged = {**found.scores, **one.scores}
            if merged != dict(found.scores):
                store.put([renamed(found, scores=merged)])


def _entry(work: Work) -> Entry:
    one, space = work.candidate, work.space
    model = work.opening(one.place)
    base = None if one.base is None else _base(one.base, work.opening)
    compute = _extractor(space.asked)
    if isinstance(compute, Answered):
        same = one.base is not None and _identity_of_base(one.base) == work.identity
        found, answers = read_told(model, space, compute, told=one.asks, base=base, unchanged=same)
        card = replace(found.card, model=one.name, base=one.base)
        check_space(card, space)
        return _made(work, card, found.vector, answers)
    found = extract(
        model,
        space.texts,
        base=base,
        extractor=space.asked,
        normalisation=space.normalisation,
        depths=space.depths,
        truncate=True,
    )
    card = replace(found.card, model=one.name, base=one.base)
    check_space(card, space)
    return _made(work, card, found.vector, knowledge(answers_of(model, space.texts, space.cue)))


def _made(work: Work, card: FingerprintCard, vector: Tensor, answers: Tensor) -> Entry:
    one = work.candidate
    return Entry(
        work.key,
        one.name,
        one.place,
        work.identity,
        card,
        vector,
        answers,
        one.licence,
        one.about,
        one.scores,
    )


@functools.lru_cache(maxsize=2)
def _extractor(asked: str) -> Extractor:
    return open_extractor(asked)


@functools.lru_cache(maxsize=2)
def _base(name: str, opening: Opening) -> Model:
    """Keep the last bases open: experts of one base come in a row."""
    return opening(name)


def _try(work: Work) -> Entry | str:
    try:
        return _entry(work)
    except UmafError as problem:
        return str(problem)


def _local(work: Sequence[Work]) -> Iterator[tuple[Work, Entry | str]]:
    for item in work:
        yield item, _try(item)


def _on_ray(work: Sequence[Work]) -> Iterator[tuple[Work, Entry | str]]:
    try:
        import ray
    except ImportError as problem:
        raise ConfigError(
            'The engine "ray" was asked for, but Ray is not installed; run `pip install "umaf[ray]"`.'
        ) from problem
    if not ray.is_initialized():
        with warnings.catch_warnings():
            # Ray starts its servers as programs of their own, so nothing of the store's threads is used there.
            warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)
            ray.init(logging_level=40, include_dashboard=False)

    @ray.remote(num_cpus=1)
    def task(item: Work) -> Entry | str:
        torch.set_num_threads(1)
        return _try(item)

    waiting = {task.remote(item): item for item in work}
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        yield waiting.pop(ready[0]), ray.get(ready[0])
