"""Few-shot dispatch: search mixing weights that make the right answers to a handful of shots likely.

With so few shots the best of many mixtures is mostly the luckiest. Two things are set against that. The fitness is the
log-likelihood of the right answers, which every shot moves a little, where its being answered rightly or not leaves
most mixtures level. And weights are expected to be small before anything is seen: normally distributed around the base,
so that what is searched for is the most probable mixture, and the base stays where the shots do not speak against it.
The base and every expert by itself are among the candidates.

Transformer-squared's own fitness, the mean reward of greedy answers, is there too (`Material.fitness`), with the
likelihood to break its ties. Nothing but the shots is ever looked at. (The authors' release returns one split as both
train and test, and keeps the checkpoint that is best on what it reports.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from umaf.dispatch.decision import Decision, Dispatcher
from umaf.dispatch.dispatchers import Material
from umaf.dispatch.shelf import Shelved, layer_columns
from umaf.errors import ConfigError, ExpertError
from umaf.experts.rewards import Judge, judge
from umaf.experts.rollout import Answers, Prompted, likelihood, prompts_of
from umaf.models import Model
from umaf.readout.encode import Encoded
from umaf.readout.generate import answer_ids, line_ends
from umaf.search import Cma, Found, cma_es, cross_entropy
from umaf.search.cem import Numbers
from umaf.tasks.task import Example

ROWS = 64
"""Rows of one pass; candidates times shots are cut into such passes."""


@dataclass(frozen=True)
class Fitness:
    """How well mixtures do on shots.

    Attributes:
        accuracy: mean reward of the greedy answers, in [-1, 1], per mixture.
        likelihood: mean log-probability per token of the right answers, per mixture.
    """

    accuracy: Tensor
    likelihood: Tensor


def few_shot(shelf: Shelved, material: Material) -> Dispatcher:
    """Search for a mixture on shots, once; every request then gets it.

    Args:
        shelf: the experts to mix.
        material: `shots` with `cue`; `fitness`, `prior`, `per` and `search` say how, and `reward` what judges answers.

    Raises:
        ExpertError: no shots, or a reward that cannot judge them.
        ProbeError: a shot that does not fit the window.
    """
    weights, found = mix_by_shots(shelf, material)
    how = "cross-entropy" if not isinstance(material.search, Cma) else "CMA-ES"
    reason = f"the best of {found.evaluated} mixtures by {how} on {len(material.shots)} shots "
    if material.fitness == "reward":
        reason += f"({(found.score[0] + 1) / 2:.0%} of them right)"
    else:
        reason += f"({found.score[0] - found.score[1]:+.2f} nats per answer and prior over the base)"

    def decide(texts: Sequence[str]) -> Decision:
        rows = weights.unsqueeze(0).expand(len(texts), *weights.shape)
        return Decision(shelf.names, rows.clone(), (reason,) * len(texts))

    return decide


def mix_by_shots(shelf: Shelved, material: Material) -> tuple[Tensor, Found]:
    """Search for mixing weights.

    Returns:
        Weights ``[expert]``, or ``[expert, module]`` per layer, and the search. Its score is the mean log-likelihood of
        the right answers and of the weights, and that of the base; or the mean reward and the mean log-likelihood per
        token.

    Raises:
        ExpertError: no shots.
        ConfigError: a prior that is not above 0, or code that may not be run.
    """
    if not material.shots:
        raise ExpertError("A few-shot mixture was asked for without shots; give some examples with answers.")
    layers, column = layer_columns(shelf.modules)
    places = len(layers) if material.per == "layer" else 1
    width = len(shelf.names) * places

    def weights_of(numbers: Numbers) -> Tensor:
        table = torch.as_tensor(numbers).reshape(-1, len(shelf.names), width // len(shelf.names))
        return table.squeeze(-1) if material.per == "model" else table[:, :, column]

    prepared = _Shots(shelf, material)
    if material.fitness == "likelihood":
        result = _most_probable(prepared, material, weights_of, places)
        return weights_of(result.numbers)[0], result
    start = [1 / len(shelf.names)] * width
    with judge(material.reward, run_code=material.run_code) as judged:

        def score(candidates: Numbers) -> list[tuple[float, ...]]:
            found = prepared.fitness(weights_of(candidates), judged)
            return list(zip(found.accuracy.tolist(), found.likelihood.tolist(), strict=True))

        if isinstance(material.search, Cma):
            result = cma_es(score, start, settings=material.search, said=material.said)
        else:
            result = cross_entropy(score, start, settings=material.search, said=material.said)
    return weights_of(result.numbers)[0], result


def _most_probable(
    prepared: _Shots, material: Material, weights_of: Callable[[Numbers], Tensor], places: int
) -> Found:
    """Search for the weights that are likeliest given the shots and the prior; the base is where it begins."""
    if not material.prior > 0:
        raise ConfigError(
            f"Weights were expected to lie within {material.prior:g} of the base; give a prior above 0."
        )
    experts, count = len(prepared.names), len(material.shots)
    base = float(prepared.likelihood(weights_of(np.zeros((1, experts * places))))[0])

    def score(candidates: Numbers) -> list[tuple[float, ...]]:
        # A mixture that is the same in all layers is as probable as it is with one weight per expert.
        unlikely = (candidates**2).sum(1) / places / (2 * material.prior**2 * count)
        found = prepared.likelihood(weights_of(candidates)).double().numpy() - unlikely
        return [(float(one), base) for one in found]

    start, search = [0.0] * (experts * places), material.search
    if isinstance(search, Cma):
        return cma_es(score, start, settings=search, said=material.said)
    alone = np.repeat(np.eye(experts), places, axis=1).clip(search.low, search.high)
    narrow = replace(search, spread=material.prior if search.spread is None else search.spread)
    return cross_entropy(score, start, settings=narrow, known=alone.tolist(), said=material.said)


def fitness_on(shelf: Shelved, material: Material, weights: Tensor) -> Fitness:
    """Judge given mixtures, ``[mixture, expert]`` or ``[mixture, expert, module]``, on the shots of the material.

    This is also how the best single expert is chosen without looking at a test.
    """
    with judge(material.reward, run_code=material.run_code) as judged:
        return _Shots(shelf, material).fitness(weights, judged)


class _Shots:
    """Shots, tokenised once."""

    def __init__(self, shelf: Shelved, material: Material) -> None:
        model = shelf.model
        self.names = shelf.names
        self._shelf, self._material = shelf, material
        texts = [shot.text for shot in material.shots]
        self._prompts = prompts_of(model, texts, material.cue, max_new_tokens=material.max_new_tokens)
        targets = [answer_ids(model, shot.answer) for shot in material.shots]
        longest = max(map(len, targets))
        ids = [target + [model.tokenizer.pad_token_id] * (longest - len(target)) for target in targets]
        self._ids = torch.tensor(ids, device=model.device)
        self._mask = torch.tensor(
            [[k < len(target) for k in range(longest)] for target in targets], device=model.device
        )

    @torch.inference_mode()
    def likelihood(self, weights: Tensor) -> Tensor:
        """Give the mean over shots of the log-likelihood of the right answer, per mixture; nothing is written."""
        shots, found = len(self._prompts), []
        together = max(1, ROWS // shots) if self._shelf.rows_may_differ else 1
        for part in weights.split(together):
            prompts = self._prompts.take(torch.arange(shots).repeat(len(part)))
            said = Answers(self._ids.repeat(len(part), 1), self._mask.repeat(len(part), 1), ())
            with self._shelf.applied(part.repeat_interleave(shots, 0)) as model:
                chances = likelihood(model, prompts, said).gather(2, said.ids.unsqueeze(2)).squeeze(2)
            whole = chances.masked_fill(~said.mask, 0.0).sum(1)
            found.append(whole.reshape(len(part), shots).mean(1).cpu())
        return torch.cat(found)

    def fitness(self, weights: Tensor, judged: Judge) -> Fitness:
        """Judge mixtures, several in one pass where the shelf allows it."""
        shots = len(self._prompts)
        together = max(1, ROWS // shots) if self._shelf.rows_may_differ else 1
        parts = [self._pass(part, judged) for part in weights.split(together)]
        accuracy, chance = zip(*parts, strict=True)
        return Fitness(torch.cat(accuracy), torch.cat(chance))

    def _pass(self, weights: Tensor, judged: Judge) -> tuple[Tensor, Tensor]:
        count, shots = len(weights), len(self._prompts)
        prompts = self._prompts.take(torch.arange(shots).repeat(count))
        ids, mask = self._ids.repeat(count, 1), self._mask.repeat(count, 1)
        with self._shelf.applied(weights.repeat_interleave(shots, 0)) as model:
            texts, chances = written_and_found(
                model, prompts, ids, mask, max_new_tokens=self._material.max_new_tokens
            )
        rewards = self._judged(texts, judged)
        return rewards.reshape(count, shots).mean(1), chances.reshape(count, shots).mean(1)

    def _judged(self, texts: Sequence[str], judged: Judge) -> Tensor:
        """Judge answers; the same answer to the same shot is judged once."""
        shots = self._material.shots
        asked = [(text, at % len(shots)) for at, text in enumerate(texts)]
        different = list(dict.fromkeys(asked))
        rewards = judged([text for text, _ in different], [shots[at] for _, at in different])
        known = dict(zip(different, rewards, strict=True))
        return torch.tensor([known[one] for one in asked])


@torch.inference_mode()
def written_and_found(
    model: Model, prompts: Encoded, ids: Tensor, mask: Tensor, *, max_new_tokens: int
) -> tuple[list[str], Tensor]:
    """Let a model answer prompts, and see how likely it finds given answers, with one reading of the prompts.

    Args:
        model: with whatever mixture is on it.
        prompts: a batch.
        ids: the given answers, ``[row, token]``.
        mask: which of their tokens count, ``[row, token]``.
        max_new_tokens: longest answer of its own.

    Returns:
        The greedy answers, each one line, and the mean log-probability per token of the given ones, ``[row]``.
    """
    read = Prompted(model, prompts, copies=2)
    end = model.tokenizer.eos_token_id
    ends = torch.cat([line_ends(model), torch.tensor([] if end is None else [end]).long().to(model.device)])
    logits, written, chances = read.first, [], torch.zeros(len(ids), device=ids.device)
    going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    pad = torch.full((len(ids),), model.tokenizer.pad_token_id, device=ids.device)
    for step in range(max(max_new_tokens, ids.shape[1])):
        # Each prompt has two rows: the first goes on with the model's own answer, the second with the given one.
        own = torch.where(going, logits[0::2].argmax(-1), pad)
        if step < max_new_tokens:
            written.append(own)
        going = going & ~torch.isin(own, ends)
        given = ids[:, step] if step < ids.shape[1] else pad
        if step < ids.shape[1]:
            found = logits[1::2].float().log_softmax(-1).gather(1, given[:, None])[:, 0]
            chances = chances + torch.where(mask[:, step], found, torch.zeros_like(found))
        if step + 1 >= ids.shape[1] and (step + 1 >= max_new_tokens or not going.any()):
            break
        logits = read.extend(torch.stack([own, given], 1).reshape(-1, 1))[:, -1]
    texts = model.tokenizer.batch_decode(torch.stack(written, 1), skip_special_tokens=True)
    return [text.split("\n")[0].strip() for text in texts], (chances / mask.sum(1)).cpu()


def equal_shots(examples: Sequence[Example], count: int) -> tuple[Example, ...]:
    """Choose shots in turn over the answers, as far as answers repeat, so that no label is missing by chance.

    Example:
        >>> few = [Example("a", "x"), Example("b", "x"), Example("c", "y")]
        >>> [shot.text for shot in equal_shots(few, 2)]
        ['a', 'c']
    """
    by_answer: dict[str, list[Example]] = {}
    for example in examples:
        by_answer.setdefault(example.answer, []).append(example)
    chosen: list[Example] = []
    depth = 0
    while len(chosen) < min(count, len(examples)):
        chosen += [group[depth] for group in by_answer.values() if depth < len(group)]
        depth += 1
    return tuple(chosen[:count])
