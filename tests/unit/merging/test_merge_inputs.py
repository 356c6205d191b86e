"""What goes into a merge besides equal checkpoints: adapters, and vocabularies that differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.unit.merging import made_checkpoints as made
from umaf.checkpoints import draft_of
from umaf.deltas import LowRank, Target, write_adapter
from umaf.errors import CheckpointError, ConfigError, OutputError
from umaf.merging.planning.tokenizer_file import read_vocabulary, unite, vocabulary_of
from umaf.merging.recipes.read import read_recipe
from umaf.merging.recipes.written import written
from umaf.merging.running import crew
from umaf.merging.stages import merge
from umaf.merging.writing.output import changed, template_of

TABLES = ("model.embed_tokens.weight", "lm_head.weight")


def adapter(folder: Path, seed: int) -> Path:
    draw = torch.Generator().manual_seed(seed)
    factors = LowRank(torch.randn(2, 8, generator=draw), torch.randn(24, 2, generator=draw))
    return write_adapter(folder, {"model.layers.1.mlp.up_proj": Target("linear", factors)})


def test_adapters_are_added_exactly_before_the_merge(tmp_path):
    base, expert = made.family(tmp_path, experts=1, dtype=torch.float32)
    one, two = adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2)
    models = [f"{base}+{one}", f"{expert}+{one}+{two}"]
    out = merge(
        {"umaf": 1, "method": "task_arithmetic", "base": str(base), "models": models}, tmp_path / "out"
    )
    start, near, found = made.read(base), made.read(expert), made.read(out)
    deltas = {}
    for seed in (1, 2):
        draw = torch.Generator().manual_seed(seed)
        a, b = torch.randn(2, 8, generator=draw), torch.randn(24, 2, generator=draw)
        deltas[seed] = b @ a
    name = "model.layers.1.mlp.up_proj.weight"
    torch.testing.assert_close(found[name], near[name] + 2 * deltas[1] + deltas[2])
    other = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(found[other], near[other])
    assert len(start) == len(found)
    assert all("+" in one["identity"] for one in json.loads((out / "umaf.json").read_text())["parents"][1:])


def test_an_adapter_that_was_trained_again_is_another_input(tmp_path, monkeypatch):
    (base,) = made.family(tmp_path, experts=0)
    one, out = adapter(tmp_path / "one", 1), tmp_path / "out"
    asked = {"umaf": 1, "method": "linear", "models": [f"{base}+{one}"]}

    def stop(*words, **keys):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crew.Crew, "merge", stop)
        with pytest.raises(KeyboardInterrupt):
            merge(asked, out, workers=1)
    for file in one.iterdir():
        file.unlink()
    one.rmdir()
    adapter(one, 2)
    assert draft_of(out).is_dir()
    with pytest.raises(OutputError, match="another result"):
        merge(asked, out, resume=True)


def tokenizer(
    tokens: list[str], added: dict[str, int] | None = None, kind: str = "WordLevel"
) -> dict[str, object]:
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": number,
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token, number in (added or {}).items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": kind,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "unk_token": tokens[0],
        },
    }


@pytest.fixture
def talkers(tmp_path):
    """A base that knows a b c, one that knows c b a and d, and one that knows a and <x>."""
    tokens = {
        "base": (["a", "b", "c"], {}),
        "one": (["c", "b", "a", "d"], {}),
        "two": (["a", "b", "c"], {"<x>": 3}),
    }
    folders = []
    for number, (name, (words, added)) in enumerate(tokens.items()):
        rows = len(words) + len(added)
        tensors = made.state(number, vocabulary=rows)
        folders.append(made.write(tmp_path / name, tensors, vocab_size=rows))
        (folders[-1] / "tokenizer.json").write_text(json.dumps(tokenizer(words, added)))
        (folders[-1] / "tokenizer_config.json").write_text("{}")
    return folders


def test_without_a_word_about_tokens_different_vocabularies_are_refused(talkers, tmp_path):
    with pytest.raises((CheckpointError, ConfigError), match=r"tokenizer|vocabular"):
        merge(made.recipe(talkers, "task_arithmetic"), tmp_path / "out")


@pytest.mark.parametrize("table", TABLES)
def test_a_union_has_the_tokens_of_all(talkers, tmp_path, table):
    out = merge(made.recipe(talkers, "task_arithmetic", tokenizer={"source": "union"}), tmp_path / "out")
    base, one, two = (made.read(folder)[table] for folder in talkers)
    found = made.read(out)[table]
    assert read_vocabulary(out).ids == {"a": 0, "b": 1, "c": 2, "d": 3, "<x>": 4}
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 5 == found.shape[0]
    for token, ours in enumerate((2, 1, 0)):
        expected = base[token] + (one[ours] - base[token]) + (two[token] - base[token])
        torch.testing.assert_close(found[token], expected)
    # A token that one model has is that model's: the base and the other get its row, so that no delta is left.
    torch.testing.assert_close(found[3], one[3])
    torch.testing.assert_close(found[4], two[3])


def test_a_union_loads_and_splits_text(talkers, tmp_path):
    from tokenizers import Tokenizer

    out = merge(made.recipe(talkers, "linear", tokenizer={"source": "union"}), tmp_path / "out")
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("c d <x> a").ids == [2, 3, 4, 0]


@pytest.mark.parametrize("source", ["base", "one"])
def test_one_model_leads(talkers, tmp_path, source):
    place = "base" if source == "base" else str(talkers[1])
    out = merge(made.recipe(talkers, "linear", tokenizer={"source": place}), tmp_path / "out")
    leader = talkers[0] if source == "base" else talkers[1]
    assert (out / "tokenizer.json").read_bytes() == (leader / "tokenizer.json").read_bytes()
    _, one, two = (made.read(folder)["lm_head.weight"] for folder in talkers)
    found = made.read(out)["lm_head.weight"]
    pairs = {"a": (2, 0), "b": (1, 1), "c": (0, 2)}
    for token, number in read_vocabulary(leader).ids.items():
        if token == "d":
            torch.testing.assert_close(found[number], one[3])
        else:
            torch.testing.assert_close(found[number], (one[pairs[token][0]] + two[pairs[token][1]]) / 2)


def test_rows_may_be_said_and_padded(talkers, tmp_path):
    tokens = {
        "<new>": {"source": {"kind": "model_token", "model": str(talkers[1]), "token": "d"}},
        "b": {"source": {"kind": "zero"}, "force": True},
        "c": {"source": str(talkers[2]), "force": True},
    }
    asked = {"source": "base", "tokens": tokens, "pad_to_multiple_of": 8}
    out = merge(made.recipe(talkers, "task_arithmetic", tokenizer=asked), tmp_path / "out")
    base, one, two = (made.read(folder)["lm_head.weight"] for folder in talkers)
    found = made.read(out)["lm_head.weight"]
    assert found.shape[0] == 8 and read_vocabulary(out).ids["<new>"] == 3
    torch.testing.assert_close(found[3], one[3])
    torch.testing.assert_close(found[2], two[2])
    assert not found[1].any()
    # Rows of no token: the logit of the mean never stands out. That of zeros does, where all logits are below 0.
    torch.testing.assert_close(found[4:], base.mean(0).expand(4, -1))


def test_rows_of_no_token_are_the_mean_of_the_models(talkers, tmp_path):
    asked = {"source": "base", "pad_to_multiple_of": 8}
    out = merge(made.recipe(talkers, "linear", tokenizer=asked), tmp_path / "out")
    heads = [made.read(folder)["lm_head.weight"] for folder in talkers[1:]]
    found = made.read(out)["lm_head.weight"]
    mean = torch.stack([head.float().mean(0) for head in heads]).mean(0)
    torch.testing.assert_close(found[-1].float(), mean)


def test_tokens_that_are_not_there_are_told(talkers, tmp_path):
    source = {"kind": "model_token", "model": str(talkers[1]), "token": "q"}
    with pytest.raises(ConfigError, match="'q' was asked for"):
        merge(
            made.recipe(talkers, "linear", tokenizer={"tokens": {"<new>": {"source": source}}}),
            tmp_path / "out",
        )
    (talkers[1] / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"one/tokenizer\.json cannot be read"):
        merge(made.recipe(talkers, "linear", tokenizer={"source": "union"}), tmp_path / "out")


def test_byte_pairs_bring_their_merges():
    def pairs(vocab, merges):
        return vocabulary_of(
            {"model": {"type": "BPE", "vocab": {one: i for i, one in enumerate(vocab)}, "merges": merges}}
        )

    made_of = unite(
        [pairs(["a", "b", "ab"], ["a b"]), pairs(["b", "a", "ba", "bab"], [["b", "a"], ["ba", "b"]])]
    )
    assert made_of.ids == {"a": 0, "b": 1, "ab": 2, "ba": 3, "bab": 4}
    assert made_of.data["model"]["merges"] == ["a b", "b a", "ba b"]


def test_chat_templates(tmp_path):
    folders = made.family(tmp_path)
    for folder, text in zip(folders, ("{{ a }}", "{{ b }}", "{{ b }}", "{{ c }}"), strict=True):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": text}))
    for asked, expected in ((None, "{{ a }}"), ("auto", "{{ b }}"), ("{{ d }}", "{{ d }}")):
        out = merge(
            made.recipe(folders, "task_arithmetic", **({"chat_template": asked} if asked else {})),
            tmp_path / f"{asked and asked[0]}out",
        )
        assert template_of(out) == expected
    out = merge(made.recipe(folders, "task_arithmetic", chat_template="chatml"), tmp_path / "named")
    assert "<|im_start|>" in (template_of(out) or "")


def test_recipes_are_written_as_they_were_read(tmp_path):
    asked = {
        "umaf": 1,
        "method": "ties",
        "base": "org/base@main",
        "models": [
            "org/a+org/b",
            {
                "model": "org/c",
                "options": {"weight": [{"filter": "mlp", "value": [0.1, 0.3]}, {"value": 0.2}]},
            },
        ],
        "options": {"density": [0.1, 0.5], "scale": 0.5},
        "dtype": "bfloat16",
        "tokenizer": {
            "source": "union",
            "tokens": {"<x>": {"source": {"kind": "zero"}, "force": True}},
            "pad_to_multiple_of": 64,
        },
        "chat_template": "auto",
        "allow": ["rope_theta"],
        "seed": 3,
    }
    one = read_recipe(asked)
    assert read_recipe(json.loads(json.dumps(written(one)))) == one


def test_a_config_is_changed_where_its_key_is():
    assert changed({"a": 1}, {"a": 2, "b": 3}) == {"a": 2, "b": 3}


def test_a_config_is_changed_in_every_part_that_says_it():
    inner = {"vocab_size": 4, "hidden_size": 8}
    found = changed({"vocab_size": 4, "text_config": inner}, {"vocab_size": 5})
    assert found == {"vocab_size": 5, "text_config": {"vocab_size": 5, "hidden_size": 8}}
    assert changed({"llm_config": inner}, {"vocab_size": 5})["llm_config"]["vocab_size"] == 5
    assert "vocab_size" not in changed({"llm_config": inner}, {"vocab_size": 5})
    assert changed({"llm_config": {"a": 1}}, {"vocab_size": 5}) == {"llm_config": {"a": 1}, "vocab_size": 5}


def test_counters_that_differ_are_the_base_s(tmp_path):
    states = [made.state(seed) | {"bn.num_batches_tracked": torch.tensor(10 + seed)} for seed in range(3)]
    base, *experts = [
        str(made.write(tmp_path / str(seed), state, shards=1)) for seed, state in enumerate(states)
    ]
    recipe = {"umaf": 1, "method": "linear", "models": experts}
    assert made.read(merge(recipe, tmp_path / "out"))["bn.num_batches_tracked"] == 11
    recipe = {"umaf": 1, "method": "tsv_m", "base": base, "models": experts}
    assert made.read(merge(recipe, tmp_path / "based"))["bn.num_batches_tracked"] == 10
