"""Two passes: replies of a mixed batch, streams, and what goes wrong."""

from __future__ import annotations

import pytest
import torch

import umaf
from tests.unit.dispatch.conftest import make_expert
from umaf.dispatch import adaptive as adaptive_module
from umaf.dispatch.adaptive import AdaptiveModel, shelf_from
from umaf.dispatch.chat import Request, asked, conversation
from umaf.dispatch.decision import Decision, one_hot
from umaf.dispatch.decode import Drawing, Piece
from umaf.dispatch.shelf import by_name, open_shelf
from umaf.errors import ConfigError, ExpertError, NumericalError, ProbeError
from umaf.experts import attach as attach_module
from umaf.experts.attach import attached
from umaf.experts.expert import Expert, save_expert
from umaf.experts.rollout import answered
from umaf.models import open_model, weights_hash

TEXTS = ["the film was good", "rain fell on the hills of a small town", "is"]
LONG = Drawing(max_new_tokens=12)


@pytest.fixture
def adaptive(shelf):
    return AdaptiveModel(shelf)


def texts_of(replies):
    return [reply.text for reply in replies]


def test_the_public_name_is_this_class():
    assert umaf.AdaptiveModel is AdaptiveModel


def test_without_a_dispatcher_the_base_answers(adaptive, base):
    replies = adaptive.generate(TEXTS, cue="answer", drawing=LONG)
    assert texts_of(replies) == answered(base, TEXTS, "answer", max_new_tokens=12)
    assert replies[0].weights == {"good": 0.0, "bad": 0.0, "kind": 0.0}
    assert replies[0].why == "the base alone: no expert was asked for"


def test_a_mixed_batch_answers_as_every_expert_alone(adaptive, shelf):
    """One batch, three mixtures, padded prompts of three lengths; each row as if it were alone."""
    decision = one_hot(shelf.names, ["good", "other", "kind"], ["", "", ""])
    mixed = texts_of(adaptive.generate(TEXTS, cue="answer", drawing=LONG, experts=decision))
    for text, reply, name in zip(TEXTS, mixed, ["good", "other", "kind"], strict=True):
        experts = {name: 1.0}
        assert [reply] == texts_of(adaptive.generate([text], cue="answer", drawing=LONG, experts=experts))
    with attached(shelf.model, shelf.factored, shelf.experts[0].z):
        assert mixed[0] == answered(shelf.model, TEXTS[:1], "answer", max_new_tokens=12)[0]
    assert len(set(texts_of(adaptive.generate(["is"] * 3, drawing=LONG, experts=decision)))) > 1


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "t5", "mixtral"])
def test_every_kind_of_model_answers_row_by_row(pico, family):
    """Conv1D, grouped queries, an encoder-decoder, and stacked experts, whose rows are grouped by mixture."""
    model = open_model(pico(family))
    shelf = open_shelf(model, [make_expert(model, name) for name in ("one", "two")])
    adaptive = AdaptiveModel(shelf)
    decision = one_hot(shelf.names, ["one", "two", "one"], ["", "", ""])
    mixed = texts_of(adaptive.generate(TEXTS, cue="answer", drawing=LONG, experts=decision))
    alone = [
        adaptive.generate([text], cue="answer", drawing=LONG, experts=name)[0].text
        for text, name in zip(TEXTS, ["one", "two", "one"], strict=True)
    ]
    assert mixed == alone


def test_a_dispatcher_decides_by_the_text_alone(shelf):
    seen = []

    def decide(texts):
        seen.extend(texts)
        return by_name(shelf, {"bad": 1.0}, rows=len(texts))

    reply = AdaptiveModel(shelf, decide).generate(["is"], cue="answer", drawing=LONG)[0]
    assert seen == ["is"] and reply.weights["bad"] == 1.0
    assert reply.first_pass >= 0 and reply.second_pass > 0


def test_a_stream_gives_what_generate_gives(adaptive, shelf):
    decision = by_name(shelf, {"good": 0.7, "bad": 0.3}, rows=2)
    whole = adaptive.generate(TEXTS[:2], drawing=LONG, experts=decision)
    pieces = list(adaptive.stream(TEXTS[:2], decision, drawings=[LONG, LONG]))
    for row in (0, 1):
        mine = [piece for piece in pieces if piece.row == row]
        assert "".join(piece.text for piece in mine).strip() == whole[row].text
        assert [piece.finish for piece in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1].finish == whole[row].finish == "length" and mine[-1].tokens == 12


def test_a_closed_stream_leaves_the_base_as_it_was(adaptive, shelf):
    before = texts_of(adaptive.generate(TEXTS, drawing=LONG))
    stream = adaptive.stream(TEXTS, by_name(shelf, {"good": 1.0}, rows=3), drawings=[LONG] * 3)
    next(stream)
    with pytest.raises(ConfigError, match="while it was writing another reply"):
        adaptive.generate(TEXTS)
    stream.close()
    assert texts_of(adaptive.generate(TEXTS, drawing=LONG)) == before


def test_a_row_that_nobody_waits_for_ends(adaptive, shelf):
    decision = by_name(shelf, {}, rows=2)
    pieces = list(adaptive.stream(TEXTS[:2], decision, drawings=[LONG] * 2, left=lambda row: row == 0))
    assert [piece for piece in pieces if piece.row == 0] == [Piece(0, "", "left", 0)]
    assert [piece.finish for piece in pieces if piece.row == 1][-1] == "length"


def test_stops_end_a_reply_and_are_held_back(adaptive, shelf):
    whole = adaptive.generate(["is"], drawing=Drawing(max_new_tokens=30))[0].text
    stop = whole[4:7]
    reply = adaptive.generate(["is"], drawing=Drawing(max_new_tokens=30, stop=(stop,)))[0]
    assert reply.text == whole[: whole.index(stop)].strip() and reply.finish == "stop" and reply.tokens < 30
    drawings = [Drawing(max_new_tokens=30, stop=(stop,))]
    pieces = list(adaptive.stream(["is"], by_name(shelf, {}), drawings=drawings))
    assert "".join(piece.text for piece in pieces).strip() == reply.text


def test_drawing_at_random_keeps_to_its_seed_in_any_company(adaptive):
    warm = Drawing(max_new_tokens=10, temperature=1.5, seed=3)
    alone = adaptive.generate(["is"], drawing=warm)[0].text
    among = adaptive.generate(["of joy", "is"], drawing=[LONG, warm])[1].text
    other = adaptive.generate(["is"], drawing=Drawing(max_new_tokens=10, temperature=1.5, seed=4))[0].text
    assert alone == among != other
    narrow = Drawing(max_new_tokens=10, temperature=1.5, top_p=1e-6)
    assert (
        adaptive.generate(["is"], drawing=narrow)[0].text
        == adaptive.generate(["is"], drawing=Drawing(10))[0].text
    )


def test_a_request_longer_than_the_window(adaptive):
    with pytest.raises(
        ProbeError, match=r"Text 2 of 2 has \d+ tokens.* has room for 116 beside a reply of 12; shorten"
    ):
        adaptive.generate(["is", "rain fell " * 200], drawing=LONG)
    with pytest.raises(ConfigError, match="Replies of 128 tokens"):
        adaptive.generate(["is"], drawing=Drawing(max_new_tokens=128))


def test_a_long_prompt_and_a_long_reply_do_not_meet_in_one_batch(pico, monkeypatch):
    """Each fits the window of learned positions alone; together the short row would run out of positions."""
    model = open_model(pico("gpt2"))
    adaptive = AdaptiveModel(open_shelf(model, [make_expert(model, "one")]))
    batches, inner = [], adaptive_module.decode
    monkeypatch.setattr(
        adaptive_module, "decode", lambda m, p, d, **k: batches.append(len(d)) or inner(m, p, d, **k)
    )
    long = " ".join(["the film"] * 55)
    texts, drawings = [long, "is", "no"], [Drawing(5), Drawing(100), Drawing(100)]
    together = texts_of(adaptive.generate(texts, drawing=drawings))
    assert batches == [1, 2]
    alone = [
        adaptive.generate([text], drawing=one)[0].text for text, one in zip(texts, drawings, strict=True)
    ]
    assert together == alone


def test_an_expert_that_is_not_there(adaptive):
    with pytest.raises(ExpertError, match="the shelf has good, bad, kind"):
        adaptive.generate(["is"], experts="sums")


def test_a_batch_that_does_not_fit_the_memory_is_halved(adaptive, monkeypatch):
    whole = adaptive.generate(TEXTS, drawing=LONG)
    inner, told = adaptive_module.decode, []

    def small(model, prompts, drawings, **more):
        if len(drawings) > 1:
            raise torch.OutOfMemoryError("too many")
        return inner(model, prompts, drawings, **more)

    monkeypatch.setattr(adaptive_module, "decode", small)
    assert texts_of(adaptive.generate(TEXTS, drawing=LONG, told=told.append)) == texts_of(whole)
    assert told[0] == "3 requests at once do not fit the memory; going on with half as many."
    monkeypatch.setattr(
        adaptive_module, "decode", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError())
    )
    with pytest.raises(ConfigError, match="A single request does not fit"):
        adaptive.generate(["is"], drawing=LONG)


def test_many_requests_are_written_so_many_at_once(adaptive, shelf, monkeypatch):
    """On a CPU a batch of thousands is killed without a fault that could be answered by halving it."""
    whole, inner, sizes = (
        texts_of(adaptive.generate(TEXTS, drawing=LONG, experts={})),
        adaptive_module.decode,
        [],
    )

    def counted(model, prompts, drawings, **more):
        sizes.append(len(drawings))
        return inner(model, prompts, drawings, **more)

    monkeypatch.setattr(adaptive_module, "decode", counted)
    few = AdaptiveModel(shelf, batch=2)
    assert texts_of(few.generate(TEXTS, drawing=LONG, experts={})) == whole and sizes == [2, 1]
    sizes.clear()
    AdaptiveModel(shelf).generate(["is"] * 70, drawing=Drawing(1), experts={})
    assert sizes == [64, 6]


def test_a_first_pass_that_does_not_fit_the_memory_is_halved(shelf):
    asked = []

    def small(texts):
        asked.append(len(texts))
        if len(texts) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return by_name(shelf, {"good": float(len(texts[0]))})

    found = AdaptiveModel(shelf, small).decide(TEXTS)
    assert asked == [3, 1, 2, 1, 1] and found.weights[:, 0].tolist() == [float(len(text)) for text in TEXTS]

    def never(texts):
        raise MemoryError

    with pytest.raises(ConfigError, match="A single request does not fit"):
        AdaptiveModel(shelf, never).decide(TEXTS)


@pytest.mark.parametrize(
    "problem",
    [torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()],
)
def test_memory_that_runs_out_anywhere_halves_a_batch_streamed_or_not(adaptive, shelf, monkeypatch, problem):
    """Of a device, of the CPU's allocator, or of Python."""
    whole, inner = texts_of(adaptive.generate(TEXTS, drawing=LONG, experts={})), adaptive_module.decode

    def small(model, prompts, drawings, **more):
        if len(drawings) > 1:
            raise problem
        return inner(model, prompts, drawings, **more)

    monkeypatch.setattr(adaptive_module, "decode", small)
    assert texts_of(adaptive.generate(TEXTS, drawing=LONG, experts={})) == whole
    nobody = by_name(shelf, {}, rows=len(TEXTS))
    texts = [""] * len(TEXTS)
    for piece in adaptive.stream(TEXTS, nobody, drawings=[LONG] * len(TEXTS)):
        texts[piece.row] += piece.text
    assert [text.strip() for text in texts] == whole

    def later(*given, **more):
        yield from [next(inner(*given, **more))]
        raise problem

    monkeypatch.setattr(adaptive_module, "decode", later)
    with pytest.raises(ConfigError, match="does not fit the memory"):
        list(adaptive.stream(TEXTS, nobody, drawings=[LONG] * len(TEXTS)))
    monkeypatch.setattr(adaptive_module, "decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        adaptive.generate(TEXTS, drawing=LONG)


def test_nan_stops_a_reply(shelf):
    broken = {name: torch.full_like(one, 3e38) for name, one in shelf.experts[0].z.items()}
    wild = open_shelf(shelf.model, [Expert("wild", broken, shelf.experts[0].card)])
    with pytest.raises(NumericalError, match="NaN or infinity while it wrote"):
        AdaptiveModel(wild).generate(["is"], experts="wild", drawing=LONG)


def test_opened_from_folders(base, shelf, tmp_path):
    for expert in shelf.experts:
        save_expert(expert, tmp_path / expert.name)
    folders = [tmp_path / name for name in shelf.names]
    adaptive = AdaptiveModel.open(base, folders, by="prompt", cache=tmp_path / "cache")
    assert adaptive.shelf.names == shelf.names
    assert adaptive.decide(TEXTS).names == shelf.names
    again = shelf_from(base, folders, cache=tmp_path / "cache")  # the directions are read back
    a = AdaptiveModel(again).generate(["is"], experts="bad", drawing=LONG)[0].text
    assert a == adaptive.generate(["is"], experts="bad", drawing=LONG)[0].text


def test_nothing_asked_nothing_answered(adaptive):
    assert adaptive.generate([]) == []


def test_conversations_without_a_template(base):
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "is"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "the film good"},
    ]
    request = conversation(base, messages, cue="answer")
    assert request == Request("be kind\nis\nanswer: yes\nthe film good\nanswer:", "the film good", lines=True)
    assert conversation(base, messages).prompt == "be kind\nis\nyes\nthe film good\n"
    assert asked(base, "is", "answer") == Request("is\nanswer:", "is", lines=True)
    with pytest.raises(ConfigError, match="the role 'robot'"):
        conversation(base, [{"role": "robot", "content": "x"}, {"role": "user", "content": "x"}])
    with pytest.raises(ConfigError, match="do not end with the user's"):
        conversation(base, messages[:3])


def test_half_characters_are_no_request(base):
    """A terminal that does not speak UTF-8 gives its bytes as halves of characters, which no tokenizer reads."""
    with pytest.raises(ConfigError, match="half of a character at place 2"):
        asked(base, "is\udcff")
    with pytest.raises(ConfigError, match="half of a character"):
        conversation(base, [{"role": "user", "content": "\ud800"}], cue="answer")


@pytest.mark.parametrize("temperature", [1e-300, 1e-38, 1e-9])
def test_the_coldest_temperatures_take_the_likeliest_token(adaptive, temperature):
    cold, likeliest = (adaptive.generate(TEXTS, drawing=Drawing(6, heat)) for heat in (temperature, 0.0))
    assert texts_of(cold) == texts_of(likeliest)


def test_conversations_with_a_template(pico):
    model = open_model(pico("gpt2"))
    turn = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    model.tokenizer.chat_template = turn + "{% if add_generation_prompt %}<assistant>{% endif %}"
    request = conversation(model, [{"role": "user", "content": "is"}], cue="answer")
    assert request == Request("<user>is<assistant>", "is")
    model.tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(ConfigError, match=r"chat template .* refused the conversation"):
        conversation(model, [{"role": "user", "content": "is"}])


def test_decisions_are_used_row_by_row_whatever_their_form(adaptive, shelf):
    wide = torch.zeros(2, 3, len(shelf.modules))
    wide[1, 2] = 1.0
    by_module = adaptive.generate(["is", "is"], drawing=LONG, experts=Decision(shelf.names, wide, ("", "")))
    assert by_module[0].text == adaptive.generate(["is"], drawing=LONG)[0].text
    assert by_module[1].text == adaptive.generate(["is"], drawing=LONG, experts="kind")[0].text


def test_a_batch_of_one_expert_is_answered_from_merged_weights(base, shelf, monkeypatch):
    """Only where the whole batch has one mixture and much is to be written; it says the same either way."""
    merged, whole, inner = [], attach_module._whole, attach_module._merged
    monkeypatch.setattr(attach_module, "_merged", lambda *given: merged.append(0) or inner(*given))
    adaptive, texts = AdaptiveModel(shelf), ["rain fell on the hills", "the film was good", "is"]
    before = weights_hash(base)
    adaptive.generate(texts, drawing=Drawing(2), experts="good")
    decision = Decision(shelf.names, torch.eye(3), ("",) * 3)
    adaptive.generate(texts, drawing=Drawing(80), experts=decision)
    assert not merged
    found = texts_of(adaptive.generate(texts, drawing=Drawing(80), experts="good"))
    assert len(merged) == len(shelf.modules) and weights_hash(base) == before
    monkeypatch.setattr(attach_module, "_merged", whole)
    assert texts_of(adaptive.generate(texts, drawing=Drawing(80), experts="good")) == found
