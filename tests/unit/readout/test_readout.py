"""Reading labels and text from every kind of head."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ARCHITECTURES, WORDS
from umaf.errors import ProbeError, TaskError
from umaf.models import fresh_classifier, open_model
from umaf.readout import (
    answer_logits,
    answer_loss,
    answer_position,
    answer_tokens,
    bits_per_byte,
    continuations,
    encode,
    label_logits,
    label_scores,
    label_tokens,
    make_readout,
    prepare,
)
from umaf.readout.encode import forward

TEXTS = ["the film was good", "rain fell on the hills and a kind doctor wrote a letter", "music"]
LABELS = ["positive", "negative"]
WRITERS = [name for name in ARCHITECTURES if name not in ("bert", "roberta", "distilbert")]


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=st.lists(st.sampled_from(sorted(set(WORDS))), min_size=1, max_size=8, unique=True))
def test_label_tokens_never_share_a_token(pico, architecture, labels):
    tokenizer = _tokenizer(pico, architecture)
    try:
        tokens = label_tokens(tokenizer, labels)
    except TaskError as error:  # Answer and answer are one word to a vocabulary without capitals
        assert "shares every token" in str(error)
        return
    assert len(set(tokens)) == len(labels)
    for label, token in zip(labels, tokens, strict=True):
        assert token in answer_tokens(tokenizer, label) and tokenizer.decode([token]).strip()


_OPEN: dict[str, object] = {}


def _tokenizer(pico, architecture):
    if architecture not in _OPEN:
        _OPEN[architecture] = open_model(pico(architecture)).tokenizer
    return _OPEN[architecture]


def test_labels_that_begin_alike_take_their_next_token(pico):
    tokenizer = open_model(pico("gpt2")).tokenizer
    first, second = answer_tokens(tokenizer, "goodish"), answer_tokens(tokenizer, "goody")
    assert first[0] == second[0]
    assert label_tokens(tokenizer, ["goodish", "goody"]) == [first[0], second[1]]
    with pytest.raises(TaskError, match="shares every token with good"):
        label_tokens(tokenizer, ["good", "good "])
    with pytest.raises(TaskError, match="differ"):
        label_tokens(tokenizer, ["good", "good"])


def test_bare_marks_of_white_space_are_no_labels(pico):
    tokenizer = open_model(pico("t5")).tokenizer
    tokens = answer_tokens(tokenizer, "xyz")
    assert tokenizer.convert_ids_to_tokens(tokens)[0] == "▁"
    assert label_tokens(tokenizer, ["xyz"]) == [tokens[1]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head", ["auto", "base"])
def test_scores_are_log_probabilities_whatever_the_batches(pico, architecture, head):
    model = open_model(pico(architecture), head=head)
    scores = label_scores(model, TEXTS, LABELS, "Answer")
    assert scores.dtype == torch.float32 and scores.shape == (3, 2)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(3))
    single = torch.cat([label_scores(model, [text], LABELS, "Answer") for text in TEXTS])
    torch.testing.assert_close(scores, single, atol=2e-4, rtol=1e-4)
    turned = label_scores(model, TEXTS, LABELS[::-1], "Answer", batch_size=2)
    torch.testing.assert_close(turned.flip(1), scores, atol=2e-4, rtol=1e-4)


def test_the_answer_is_read_where_it_would_be_written(pico):
    model = open_model(pico("llama"))
    ids = model.tokenizer(f"{TEXTS[0]}\nAnswer:", return_tensors="pt").input_ids
    logits = model.net(ids).logits[0, -1, label_tokens(model.tokenizer, LABELS)]
    torch.testing.assert_close(
        label_scores(model, TEXTS, LABELS, "Answer")[0], logits.log_softmax(-1).detach()
    )
    model = open_model(pico("bert"))
    ids = model.tokenizer(f"{TEXTS[0]} Answer: [MASK]", return_tensors="pt").input_ids
    place = ids[0].tolist().index(model.tokenizer.mask_token_id)
    logits = model.net(ids).logits[0, place, label_tokens(model.tokenizer, LABELS)]
    torch.testing.assert_close(
        label_scores(model, TEXTS, LABELS, "Answer")[0], logits.log_softmax(-1).detach()
    )


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5", "mixtral"])
@pytest.mark.parametrize("head", ["auto", "base", "classifier"])
def test_gradients_reach_the_weights(pico, architecture, head):
    model = open_model(pico(architecture), head="auto" if head == "classifier" else head)
    model = fresh_classifier(model, LABELS) if head == "classifier" else model
    readout = make_readout(model, LABELS, "Answer")
    label_logits(model, prepare(model, TEXTS, readout), readout)[:, 0].sum().backward()
    layer = model.net.base_model.get_submodule(model.family.layers[0])[0]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_classifiers_answer_in_the_order_asked(pico):
    model = fresh_classifier(open_model(pico("bert")), ["Negative", "Positive"])
    own = label_scores(model, TEXTS, (), None)
    torch.testing.assert_close(label_scores(model, TEXTS, ["positive", "negative"], None), own.flip(1))
    with pytest.raises(TaskError, match="use its own labels"):
        label_scores(model, TEXTS, ["yes", "no"], None)


def test_readouts_need_a_cue_and_fit_their_model(pico):
    with pytest.raises(TaskError, match="cue"):
        make_readout(open_model(pico("llama")), LABELS, None)
    bare, headed = open_model(pico("bert"), head="base"), open_model(pico("bert"))
    with pytest.raises(TaskError, match="make a new one"):
        label_logits(bare, encode(bare, TEXTS), make_readout(headed, LABELS, "Answer"))


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_long_probes_stop_or_are_cut_but_never_the_cue(pico, architecture):
    model = open_model(pico(architecture))
    long = "the film was good and " * 60
    with pytest.raises(ProbeError, match=r"Text 2 of 2 has \d+ tokens.*128.*truncation"):
        encode(model, ["music", long], "Answer")
    batch = encode(model, ["music", long], "Answer", truncate=True)
    assert batch.cut == 1 and int(batch.mask[1].sum()) == 128
    assert (
        model.tokenizer.decode(batch.ids[1])
        .replace("[SEP]", "")
        .rstrip(" ]")
        .lower()
        .endswith("answer : [mask" if model.head == "masked" else "answer:")
    )
    start = model.tokenizer(long, verbose=False)["input_ids"][:20]
    assert batch.ids[1, :20].tolist() == start
    with pytest.raises(ProbeError, match="shorten the cue"):
        encode(model, [long], "the film " * 200, truncate=True)
    with pytest.raises(ProbeError, match="empty"):
        encode(model, [], "Answer")


@pytest.mark.parametrize("architecture", WRITERS)
def test_greedy_text_in_a_batch_equals_one_by_one(pico, architecture):
    model = open_model(pico(architecture))
    together = continuations(model, TEXTS, "Answer", max_new_tokens=6)
    assert together == [continuations(model, [text], "Answer", max_new_tokens=6)[0] for text in TEXTS]
    assert all("\n" not in text and text == text.strip() for text in together)


def test_writing_stops_at_the_end_of_a_line(pico):
    model = open_model(pico("gpt2"))
    newline = model.tokenizer("\n")["input_ids"][0]
    word = answer_tokens(model.tokenizer, "good")[0]
    seen: list[int] = []

    def steer(_module, _inputs, output):
        seen.append(1)
        output.logits[:, -1] = 0
        output.logits[:, -1, word if len(seen) < 3 else newline] = 9

    handle = model.net.register_forward_hook(steer)
    assert continuations(model, ["music"], "Answer", max_new_tokens=20) == ["good good"]
    assert len(seen) == 3
    handle.remove()


@pytest.mark.parametrize("architecture", WRITERS)
def test_the_loss_is_the_mean_over_the_answers_tokens(pico, architecture):
    model = open_model(pico(architecture))
    answers = ["good", "kind doctor", "bad"]
    logits, targets = answer_logits(model, TEXTS, answers, "Answer")
    loss = answer_loss(model, TEXTS, answers, "Answer")
    torch.testing.assert_close(loss, -logits.log_softmax(-1)[torch.arange(len(targets)), targets].mean())
    single = [answer_logits(model, [t], [a], "Answer") for t, a in zip(TEXTS, answers, strict=True)]
    assert torch.equal(torch.cat([ids for _, ids in single]), targets)
    torch.testing.assert_close(torch.cat([rows for rows, _ in single]), logits, atol=2e-4, rtol=1e-4)
    loss.backward()


def test_answers_start_where_labels_are_read(pico):
    for architecture in ("gpt2", "llama", "t5"):
        model = open_model(pico(architecture))
        readout = make_readout(model, LABELS, "Answer")
        logits, targets = answer_logits(model, TEXTS[:1], ["positive"], "Answer")
        assert targets[0] == readout.tokens[0]
        scores = label_logits(model, prepare(model, TEXTS[:1], readout), readout)
        torch.testing.assert_close(logits[0, list(readout.tokens)], scores[0], atol=1e-4, rtol=1e-4)


def test_bits_per_byte_counts_bytes(pico):
    model = open_model(pico("llama"))
    text = "the film was good"
    ids = model.tokenizer(text, return_tensors="pt").input_ids
    loss = torch.nn.functional.cross_entropy(model.net(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    assert bits_per_byte(model, [text]) == pytest.approx(loss.item() / math.log(2) / len(text), rel=1e-4)
    many = bits_per_byte(model, TEXTS, batch_size=2)
    assert many == pytest.approx(bits_per_byte(model, TEXTS), rel=1e-4) and many > 0
    assert bits_per_byte(open_model(pico("t5")), TEXTS) > 0


def test_encoders_do_not_write(pico):
    model = open_model(pico("bert"))
    for call in (
        lambda: continuations(model, TEXTS, "Answer"),
        lambda: answer_loss(model, TEXTS, TEXTS, "Answer"),
        lambda: bits_per_byte(model, TEXTS),
    ):
        with pytest.raises(TaskError, match="does not write"):
            call()


def test_an_empty_vocabulary_row_is_reported(pico):
    model = open_model(pico("bert"))
    with pytest.raises(TaskError, match="no token in this vocabulary"):
        label_tokens(model.tokenizer, ["語"])
    with pytest.raises(ProbeError, match="no tokens"):
        encode(replace(open_model(pico("gpt2"))), [""])


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "mixtral"])
def test_the_vocabulary_is_read_at_one_position_of_each_text(pico, architecture):
    model = open_model(pico(architecture))
    batch = encode(model, TEXTS, "Answer")
    head, sizes = model.net.get_output_embeddings(), []
    with torch.no_grad():
        whole = model.net(input_ids=batch.ids, attention_mask=batch.mask).logits
        watch = head.register_forward_hook(lambda module, given, made: sizes.append(tuple(made.shape[:2])))
        found = answer_position(model, batch)
        watch.remove()
    assert sizes == [(len(TEXTS), 1)]
    torch.testing.assert_close(found, whole[torch.arange(len(TEXTS)), batch.last], atol=1e-5, rtol=1e-4)
    assert not head._forward_pre_hooks


def test_a_pass_in_another_thread_is_left_whole(pico, monkeypatch):
    model = open_model(pico("llama"))
    batch, seen = encode(model, TEXTS, "Answer"), []

    def both(model, batch, **more):
        other = threading.Thread(target=lambda: seen.append(forward(model, batch).logits.shape[1]))
        other.start()
        other.join()
        return forward(model, batch, **more)

    monkeypatch.setattr("umaf.readout.scores.forward", both)
    assert answer_position(model, batch).shape[0] == len(TEXTS)
    assert seen == [batch.ids.shape[1]]


def test_a_head_that_is_not_there_or_fails_leaves_nothing_behind(pico, monkeypatch):
    model = open_model(pico("llama"))
    batch, head = encode(model, TEXTS, "Answer"), model.net.get_output_embeddings()
    with torch.no_grad():
        wanted = answer_position(model, batch)
        monkeypatch.setattr(type(model.net), "get_output_embeddings", lambda net: None)
        torch.testing.assert_close(answer_position(model, batch), wanted)
        monkeypatch.undo()
        monkeypatch.setattr("umaf.readout.scores.forward", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            answer_position(model, batch)
    assert not head._forward_pre_hooks
