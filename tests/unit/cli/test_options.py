"""A config file and the command line build one object."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
import typer
from pydantic import Field, ValidationError
from typer.main import get_command

from umaf.cli.options import (
    CommonConfig,
    ConfigOption,
    DtypeOption,
    JsonOption,
    SeedOption,
    read_config,
    settle,
)
from umaf.errors import ConfigError


class ProbeConfig(CommonConfig):
    models: tuple[str, ...] = Field(min_length=1)
    rank: Annotated[int, Field(ge=1)] = 8


def _settled(*words, rank_default=8):
    found = []

    def probe(
        ctx: typer.Context,
        models: Annotated[list[str] | None, typer.Argument()] = None,
        rank: Annotated[int, typer.Option()] = rank_default,
        seed: SeedOption = 0,
        dtype: DtypeOption = "float32",
        as_json: JsonOption = False,
        config: ConfigOption = None,
    ) -> None:
        found.append(settle(ProbeConfig, ctx))

    app = typer.Typer(add_completion=False)
    app.command()(probe)
    get_command(app).main(args=list(words), prog_name="probe", standalone_mode=False)
    return found[0]


@pytest.fixture
def file(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_typed_values_and_defaults():
    assert _settled("a", "b", "--rank", "4", "--json") == ProbeConfig(models=("a", "b"), rank=4)


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.json"])
def test_a_file_gives_the_same_object(file, name):
    values = {"models": ["a", "b"], "rank": 4, "dtype": "bfloat16"}
    assert _settled("--config", file(name, json.dumps(values))) == ProbeConfig(**values)


def test_what_is_typed_wins_even_when_it_is_the_default(file):
    settled = _settled("--rank", "8", "--config", file("a.yaml", "models: [a]\nrank: 4\nseed: 3"))
    assert (settled.rank, settled.seed) == (8, 3)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        ProbeConfig(models=("a",)).rank = 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [a]\nrnak: 4", r"there is no option 'rnak'.*Did you mean \"rank\"\?"),
        ("rank: 4", r"'models' is needed and was not given; type it, as MODELS, or put it in"),
        ("models: []", r"'models' needs at least 1 and got 0; type more, as MODELS, or put them in"),
        ("models: [a]\nrank: 0", r"rank was 0, but input should be greater than or equal to 1"),
        ("models: [a]\nrank: many", r"rank was 'many', but input should be a valid integer"),
        ("models: [a]\ndtype: int8", r"dtype was 'int8', but input should be 'float32'"),
        ("- a\n- b", r"holds no mapping of options"),
        ("1: a", r"holds no mapping of options"),
        ("a: [", r"neither YAML nor JSON"),
        ("a: !!python/object/apply:os.getcwd []", r"neither YAML nor JSON"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(file, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _settled("--config", file("a.yaml", text))
    assert "\n" not in str(caught.value) and "a.yaml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml cannot be read \(No such file or directory\)"):
        read_config(tmp_path / "nothing.yaml")


def test_an_empty_file_is_no_options(file):
    assert read_config(file("a.yaml", "")) == {}


def test_a_command_that_shows_another_default_than_its_config_is_a_bug():
    with pytest.raises(TypeError, match="shows 16 as the default of rank, its config has 8"):
        _settled("a", rank_default=16)
