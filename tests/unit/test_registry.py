"""Registries: lazy, one road for built-ins and plugins, and clear about what is wrong."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from umaf import registry
from umaf.errors import RegistryError
from umaf.registry import Registry


def _plugins(monkeypatch, **named):
    points = [EntryPoint(name, value, "umaf.similarities") for name, value in named.items()]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [point for point in points if point.group == group]
    )


def _metrics(**builtins):
    return Registry("similarity", "umaf.similarities", builtins)


def test_names_import_nothing(monkeypatch):
    _plugins(monkeypatch, far="colorsys:rgb_to_hsv")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert _metrics(near="wave:open").names() == ["far", "near"]
    assert "colorsys" not in sys.modules


def test_builtins_and_plugins_are_loaded_the_same_way(monkeypatch):
    _plugins(monkeypatch, far="math:sin")
    metrics = _metrics(near="math:cos")
    assert metrics.get("near")(0) == 1
    assert metrics.get("far")(0) == 0


def test_an_unknown_name_lists_what_there_is_and_suggests(monkeypatch):
    _plugins(monkeypatch)
    with pytest.raises(
        RegistryError, match=r"No similarity is called 'cosin'; there are cosine\..*mean \"cosine\"\?"
    ):
        _metrics(cosine="math:cos").get("cosin")


def test_two_claims_on_a_name_are_an_error_that_names_both(monkeypatch):
    _plugins(monkeypatch, cosine="other:cosine")
    with pytest.raises(RegistryError, match="Both math:cos and other:cosine claim"):
        _metrics(cosine="math:cos").names()


def test_the_same_claim_seen_twice_is_one(monkeypatch):
    _plugins(monkeypatch, cosine="math:cos")
    assert _metrics(cosine="math:cos").names() == ["cosine"]


@pytest.mark.parametrize("value", ["no_such_module_here:x", "math:no_such_function"])
def test_what_cannot_be_imported_says_where_it_was_registered(monkeypatch, value):
    _plugins(monkeypatch, broken=value)
    with pytest.raises(RegistryError, match=f"registered as {value}"):
        _metrics().get("broken")
