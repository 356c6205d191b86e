"""A form, the command it stands for, and what may be named in it."""

from __future__ import annotations

import shlex
import signal

import pytest
import yaml

from tests.texts import PROBES
from umaf.cli import main
from umaf.cli.merge import MergeConfig
from umaf.cli.transfer import TransferConfig
from umaf.cli.web import builds
from umaf.errors import ConfigError, UmafError
from umaf.web.forms import order
from umaf.web.places import Places
from umaf.web.words import line_of, words_of

TRANSFER = {
    "source": "zoo:gpt2-1m",
    "target": "zoo:bert-1m",
    "probes": "\n".join(PROBES),
    "labels": "good, bad",
}
MERGE = {"method": "linear", "models": [{"model": "zoo:bert-1m", "weight": 0.25}, {"model": "org/other"}]}


def made(command, values, tmp_path, *, roots=()):
    return order(command, values, tmp_path / "job", places=Places(roots, set), builds=builds())


@pytest.mark.parametrize(
    "config",
    [
        TransferConfig(source=("a",), target="b", probes=("p.txt",), out="o"),
        TransferConfig(
            source=("a", "c d"), target="-b", probes=("p.txt", "q.txt"), out="o", base=("x", "y"), cue=("one", "two"),
            labels=(("good", "bad"), ("yes", "no")), weights=(0.5, -0.25), route="distill", rank=3, steps=7,
            truncate=True, evaluate=("made/tense", "made/topic"), seed=5, monitor="run", dtype="bfloat16",
        ),
    ],
)  # fmt: skip
def test_the_command_that_is_shown_makes_the_same_config(config, monkeypatch):
    seen = []
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("umaf.cli.transfer.move", lambda settings, say: seen.append(settings) or (None, None))
    monkeypatch.setattr("umaf.cli.transfer.show", lambda *_: None)
    words = words_of("transfer", config)
    typed = shlex.split(line_of(words).replace("\\\n", " "))
    assert typed == ["umaf", *words]
    monkeypatch.chdir("/")
    with pytest.raises(SystemExit) as end:
        main(
            words if config.monitor is None else [word for word in words if word not in ("--monitor", "run")]
        )
    assert end.value.code == 0
    assert seen == [config.model_copy(update={"monitor": None})]


def test_a_merge_is_shown_with_its_arguments_in_order():
    config = MergeConfig(recipe="my recipe.yml", out="out", seed=3)
    assert line_of(words_of("merge", config, positional=("recipe", "out"))).startswith(
        "umaf merge 'my recipe.yml' out \\\n"
    )


def test_a_transfer_writes_its_probes_into_its_own_folder(tmp_path):
    asked = made("transfer", TRANSFER, tmp_path)
    assert asked.out == tmp_path / "job" / "adapter" and not (tmp_path / "job").exists()
    assert asked.files["probes.txt"].splitlines() == list(PROBES)
    assert asked.words[:3] == ("transfer", "--source", "zoo:gpt2-1m")
    assert asked.words[asked.words.index("--labels") + 1] == "good,bad"


def test_a_merge_writes_a_recipe(tmp_path):
    asked = made("merge", {**MERGE, "options": "normalize: false", "dtype": "float16"}, tmp_path)
    recipe = yaml.safe_load(asked.files["recipe.yml"])
    assert recipe["models"] == [{"model": "zoo:bert-1m", "options": {"weight": 0.25}}, "org/other"]
    assert recipe["options"] == {"normalize": False} and recipe["dtype"] == "float16"


@pytest.mark.parametrize(
    ("command", "changes", "said"),
    [
        ("transfer", {"source": ""}, "needs a source"),
        ("transfer", {"target": ""}, "'target' is needed"),
        ("transfer", {"target": "zoo:bert"}, 'no model "bert"'),
        ("transfer", {"target": "/etc"}, "outside the folders"),
        ("transfer", {"source": "../../../etc"}, "outside the folders"),
        ("transfer", {"base": "~"}, "outside the folders"),
        ("transfer", {"probes": "one\ntwo"}, "16"),
        ("transfer", {"probes": "\n".join(["same"] * 20)}, "same"),
        ("transfer", {"rank": "many"}, "The field rank"),
        ("transfer", {"steps": 0}, "'steps'|steps was 0"),
        ("transfer", {"route": "magic"}, "The field route"),
        ("transfer", {"evaluate": "text:/etc/passwd"}, "no name of a task"),
        ("transfer", {"evaluate": "made/../../x"}, "no name of a task"),
        ("transfer", {"trust_remote_code": True}, "The field trust_remote_code"),
        ("transfer", {"out": "elsewhere"}, "The field out"),
        ("merge", {"method": "lineer"}, "Did you mean"),
        ("merge", {"models": [{"model": "/etc"}]}, "outside the folders"),
        ("merge", {"models": [{"model": "zoo:bert-1m+/etc"}]}, "outside the folders"),
        ("merge", {"models": []}, "models"),
        ("merge", {"options": "fisher: ../weights"}, "The options"),
        ("merge", {"options": "a: [1"}, "The options"),
        ("merge", {"options": "a:\n  b: 1"}, "The options"),
        ("merge", {"options": "densty: 1"}, "densty"),
        ("serve", {}, "this page starts transfer, merge"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, command, changes, said):
    values = {**(MERGE if command == "merge" else TRANSFER), **changes}
    with pytest.raises(UmafError, match=said) as problem:
        made(command, values, tmp_path)
    assert "\n" not in str(problem.value) and not (tmp_path / "job").exists()


def test_a_form_that_is_no_form_says_so(tmp_path):
    for values in ([], "x", None, {"models": "x"}):
        with pytest.raises(ConfigError, match="The field"):
            made("merge", values, tmp_path)


def test_folders_inside_and_the_stores_own_may_be_named(tmp_path, monkeypatch):
    inside, outside = tmp_path / "in" / "model", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    (tmp_path / "in" / "link").symlink_to(outside, target_is_directory=True)
    places = Places([tmp_path / "in"], lambda: {str(outside / "known")})
    places.check_model(str(inside))
    places.check_model(str(outside / "known"))
    for name in (str(outside), str(tmp_path / "in" / "link"), f"{inside}/../../out", ""):
        with pytest.raises(ConfigError):
            places.check_model(name)
    monkeypatch.chdir(outside)
    (outside / "org").mkdir()
    (outside / "org" / "name").mkdir()
    with pytest.raises(ConfigError, match="outside"):
        places.check_model("org/name")  # a folder of that name would be read in place of the hub's
    places.check_model("org/other")
