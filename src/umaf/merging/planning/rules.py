"""What a tensor is merged by: the method that was asked for, or the rule for tensors that it is not made for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from torch import Tensor

from umaf.errors import ConfigError
from umaf.merging.contract import Method, Needs
from umaf.merging.parts import weighted_sum
from umaf.merging.planning.jobs import RULES, Parts
from umaf.merging.registry import method_of


@dataclass(frozen=True)
class Rule:
    """What a tensor is merged by: a method, or the rule for tensors that the method is not for.

    Attributes:
        name: of the method or rule.
        needs: what it asks for.
        function: called on a stack; None where the first row is copied.
        method: None for rules.
    """

    name: str
    needs: Needs
    function: Callable[..., Tensor] | None
    method: Method | None = None

    def measures(self, options: Mapping[str, Any]) -> str | None:
        """Tell over what there is something to measure first: "tensor", "model", or None.

        A method that sees whole tensors measures a tensor by itself.
        """
        if self.method is None or self.method.measure is None:
            return None
        over = self.method.measured_over(options)
        return None if over == "tensor" and self.needs.scope == "tensor" else over


def rule_for(
    name: str,
    *,
    where: str = "",
    parts: Parts | None = None,
    based: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Rule:
    """Find out what a tensor is merged by.

    Args:
        name: of a method or rule.
        where: the tensor's name, for messages.
        parts: how the tensor is shown to a method that wants matrices.
        based: there is a base to take deltas from.
        options: of the tensor; some change what a method needs.

    Raises:
        ConfigError: the method needs a base, and there is none.
        RegistryError: no such method.

    Example:
        >>> rule_for("tsv_m", parts=Parts(), based=True).name
        'mean'
    """
    rule = _rule(name)
    if rule.needs.matrices and not (parts and parts.matrix):
        own = rule.method is not None and rule.method.others is not None
        rule = _others(name) if own else _rule(rule.needs.otherwise)
    if rule.needs.base == "required" and not based:
        raise ConfigError(f"{name} works on what models changed; name their base{where and ' for '}{where}.")
    if options and rule.method is not None and rule.needs.whole:
        return replace(rule, needs=rule.method.needs_for(options))
    return rule


@cache
def _rule(name: str) -> Rule:
    if name not in RULES:
        method = method_of(name)
        return Rule(name, method.needs, method.function, method)
    if name in {"copy", "base"}:
        return Rule(name, Needs(base="required" if name == "base" else "none"), None)
    normalize = name == "mean"

    def combine(stack: Tensor, *, weight: Any = 1.0) -> Tensor:
        return weighted_sum(stack, weight, normalize=normalize)

    return Rule(name, Needs(base="optional" if normalize else "required", scope="element"), combine)


@cache
def _others(name: str) -> Rule:
    method = method_of(name)
    needs = replace(method.needs, matrices=False, scope="element", batched=False)
    return Rule(name, needs, method.others, method)


def asked_by(method: Method) -> frozenset[str]:
    """List the options that a method's `measure` looks at.

    Example:
        >>> sorted(asked_by(method_of("sce")))
        ['select_topk']
    """
    if method.measure is None:
        return frozenset()
    return frozenset(inspect.signature(method.measure).parameters) & set(method.options)
