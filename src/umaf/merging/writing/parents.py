"""The parents of a merge: models, the adapters put on them, and in the place of a stage what that was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umaf.merging.planning.jobs import Opened, Plan
from umaf.merging.recipes.recipe import Recipe
from umaf.merging.recipes.reference import Ref
from umaf.merging.writing.card import licence_of, read_manifest


def parents_of(plan: Plan, identities: Sequence[str]) -> list[dict[str, Any]]:
    """List the models a merge was made of, each once.

    Args:
        plan: what was merged, with the stages that were made for it still there.
        identities: of the plan's models.

    Returns:
        For each its name, the hashes of its weights and adapters, its licence (None: not known), whether config and
        tokenizer are its own, and the adapters that were put on it with their licences.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, (one, identity) in enumerate(zip(plan.models, identities, strict=True)):
        for parent in _parents(one, identity, number == plan.donor, plan.recipe.stages):
            known = found.setdefault((parent["model"], parent["identity"]), parent)
            known["donor"] = known["donor"] or parent["donor"]
    return list(found.values())


def _parents(
    one: Opened, identity: str, donor: bool, stages: Mapping[str, Recipe]
) -> Iterable[dict[str, Any]]:
    adapters = [added for ref in one.ref.lora for added in adapters_of(ref, stages)]
    if one.ref.path not in stages:
        more = {"adapters": adapters} if adapters else {}
        shown = one.ref.model_copy(update={"lora": tuple(named(ref, stages) for ref in one.ref.lora)})
        licence = licence_of(one.checkpoint.folder)
        yield {"model": str(shown), "identity": identity, "licence": licence, "donor": donor, **more}
        return
    for parent in read_manifest(one.checkpoint.folder)["parents"]:
        yield {**parent, "donor": donor and parent["donor"]}
    name = stages[one.ref.path].name
    for added, own in zip(adapters, identity.split("+")[1:], strict=False):
        yield {
            "model": f"{name}+{added['model']}",
            "identity": own,
            "licence": added["licence"],
            "donor": False,
        }


def named(ref: Ref, stages: Mapping[str, Recipe]) -> Ref:
    """Give a stage by its name in the place of its folder; any other model as it is.

    Example:
        >>> str(named(Ref(path="out/first"), {"out/first": Recipe(method="linear", models=["a"], name="first")}))
        'first'
    """
    return Ref(path=str(stages[ref.path].name)) if ref.path in stages else ref


def adapters_of(ref: Ref, stages: Mapping[str, Recipe]) -> Iterable[dict[str, Any]]:
    """Give an adapter with its licence, or in the place of a merged one those that it was made of.

    Example:
        >>> list(adapters_of(Ref(path="org/adapter"), {}))
        [{'model': 'org/adapter', 'licence': None}]
    """
    if ref.path not in stages:
        yield {"model": str(ref), "licence": licence_of(ref.folder)}
        return
    named = {str(one.name): folder for folder, one in stages.items()}
    for inner in stages[ref.path].refs():
        yield from adapters_of(inner.model_copy(update={"path": named.get(inner.path, inner.path)}), stages)
