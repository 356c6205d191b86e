"""Vectors between two models, carried over to a third: chat, reasoning, negation, contrast; all task arithmetic.

    recipe = chat_vector("org/my-language", chat="org/llama-chat", base="org/llama")
    print(compatibility(recipe, origin="org/llama"))
    execute(make_plan(recipe), "my-language-chat")

Every preset is a recipe over `task_arithmetic` with the target as its base, so config, tokenizer and all that no vector
changes are the target's:

    out = target + weight (towards - away)
        = target + weight (towards - target) - weight (away - target)

`umaf.merging.compatibility` measures, before anything is merged, whether a vector means anything in the target.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from umaf.errors import ConfigError
from umaf.merging.recipes.recipe import Input, Recipe, Tokenizer
from umaf.merging.recipes.reference import Ref, parse_ref

Named: TypeAlias = "str | Path | Ref"
"""A model as recipes name it: "folder", "org/model@revision", "model+lora"."""


def chat_vector(
    target: Named, *, chat: Named, base: Named, weight: float = 1.0, align: bool = False
) -> Recipe:
    """Teach a model to chat that was trained further from the base of a chat model.

    For a model of another language or field, trained on text alone: it gets instructions and manners without a single
    conversation in its own language.

        out = target + weight (chat - base)

    Args:
        target: the model that was trained further from `base`.
        chat: the chat model that was made from `base`.
        base: what both come from.
        weight: of the vector; 0.5 to 1 are worth a try. With both at 1 the finance model below was made.
        align: bring vocabularies together by token, keeping the target's; for a target with added tokens.

    Returns:
        A recipe. Its chat template is the target's; set `chat_template` if that has none.

    Raises:
        ConfigError: two of the models are the same, so that there is no vector.

    Example:
        >>> recipe = chat_vector("org/finance", chat="org/chat", base="org/base", weight=0.5)
        >>> str(recipe.base), [(str(one.model), one.options["weight"]) for one in recipe.models]
        ('org/finance', [('org/chat', 0.5), ('org/base', -0.5)])

    Source: Huang et al.: Chat Vector (2024), arXiv 2310.04799; for finance in Japanese, Hirano and Imajo (2024), arXiv
    2409.19854, where the vector and the further training are nearly orthogonal. Skills bound to a format, such as
    translation, can drop.
    """
    return _carried("chat vector", target, (chat, base), weight=weight, align=align)


def reasoning_vector(
    target: Named, *, trained: Named, untrained: Named, weight: float = 1.0, align: bool = False
) -> Recipe:
    """Give a model what reinforcement learning taught another one of its family.

    The donors are two models from one base and one set of data, one tuned by supervision and one by reinforcement on
    top, so that their difference is the reasoning alone. Negative weights take reasoning away: a control that the
    vector is what it is thought to be.

        out = target + weight (trained - untrained)

    Args:
        target: an instruction-tuned model of the same architecture, tokenizer and pre-training.
        trained: the donor after reinforcement learning.
        untrained: the donor after supervised tuning on the same data.
        weight: of the vector; 1 in the paper; try 0.25 and 0.5 too.
        align: bring vocabularies together by token, keeping the target's.

    Raises:
        ConfigError: the two donors are the same, so that there is no vector.

    Example:
        >>> recipe = reasoning_vector("org/tuned", trained="org/grpo", untrained="org/sft")
        >>> list((str(one.model), one.options["weight"]) for one in recipe.models)
        [('org/grpo', 1.0), ('org/sft', -1.0)]

    Source: reasoning vectors (2025), arXiv 2509.01363: on Qwen2.5 1.5B, GSM8K +2.6, HumanEval +2.2, BBH +12.3 points;
    taken away, GSM8K -11.8.
    """
    return _carried("reasoning vector", target, (trained, untrained), weight=weight, align=align)


def negation(
    target: Named, *, unwanted: Named, base: Named | None = None, weight: float = 1.0, align: bool = False
) -> Recipe:
    """Take away what a model learned on unwanted text: made-up facts, insults, leaked records.

    A copy of the base is fine-tuned on nothing but what is unwanted, and its change is subtracted.

        out = target - weight (unwanted - base)

    Args:
        target: the model that is to forget.
        unwanted: the copy that was trained on what is unwanted.
        base: what that copy was trained from; None: the target itself.
        weight: of the vector, above 0. Too large a one harms everything: choose by a validation set for what must stay.
        align: bring vocabularies together by token, keeping the target's.

    Raises:
        ConfigError: the unwanted model is its own base, so that there is no vector.

    Example:
        >>> recipe = negation("org/base", unwanted="org/insults", weight=0.5)
        >>> list((str(one.model), one.options["weight"]) for one in recipe.models)
        [('org/insults', -0.5)]

    Source: Ilharco et al.: Editing Models with Task Arithmetic (2023), arXiv 2212.04089, section 3; for faithful
    summaries, arXiv 2510.09915.
    """
    base = target if base is None else base
    return _carried("negation", target, (unwanted, base), weight=-weight, align=align)


def contrast(
    target: Named, *, wanted: Named, unwanted: Named, weight: float = 1.0, align: bool = False
) -> Recipe:
    """Move a model from a bad example towards a good one.

    Two copies of one model are trained alike, one on good examples and one on bad: what both learned of the task
    cancels, and what tells good from bad stays.

        out = target + weight (wanted - unwanted)

    Args:
        target: mostly the model that both copies were trained from, or the good one itself.
        wanted: the copy trained on good examples.
        unwanted: the copy trained on bad ones.
        weight: of the vector; by a validation set.
        align: bring vocabularies together by token, keeping the target's.

    Raises:
        ConfigError: both copies are the same, so that there is no vector.

    Example:
        >>> recipe = contrast("org/good", wanted="org/good", unwanted="org/bad", weight=0.5)
        >>> list((str(one.model), one.options["weight"]) for one in recipe.models)
        [('org/bad', -0.5)]

    Source: Choubey et al.: CaPE (2021), arXiv 2110.07166: 16.7 % more dependency-arc entailment on XSum.
    """
    return _carried("contrast", target, (wanted, unwanted), weight=weight, align=align)


def _carried(name: str, target: Named, ends: tuple[Named, Named], *, weight: float, align: bool) -> Recipe:
    """Write target + weight (ends[0] - ends[1]); an end that is the target itself drops out."""
    own, towards, away = (parse_ref(one) for one in (target, *ends))
    if towards == away:
        raise ConfigError(
            f"A {name} lies between two models, and both are {towards}; name the one it goes to and the one it "
            "comes from."
        )
    signed = ((towards, float(weight)), (away, -float(weight)))
    return Recipe(
        method="task_arithmetic",
        base=own,
        models=tuple(Input(model=ref, options={"weight": one}) for ref, one in signed if ref != own),
        tokenizer=Tokenizer(source="base") if align else None,
    )
