from __future__ import annotations

import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from umaf.errors import NumericalError, TaskError
from umaf.evaluation import assess as room
from umaf.evaluation.assess import Result, assess
from umaf.evaluation.change import Asked, ask, change_numbers, measure_change, result_row
from umaf.evaluation.compare import Comparison, compare, holm, mcnemar
from umaf.models import open_model
from umaf.readout.likelihood import answer_likelihood, text_likelihood
from umaf.tasks.door import load_measured
from umaf.tasks.measured import Answers, Choices, Corpus, Pair, Pairs, Question, pieces_of

FILMS = ("the film was good", "the music was bad", "rain fell on the hills")


@pytest.fixture
def known(monkeypatch):
    """Makes the model find a text likely by a rule, so that what is measured is the scoring."""
    model = open_model("zoo:llama-1m")

    def like(rule):
        def texts(_model, each, **_more):
            return room_likelihood([rule(one) for one in each], each)

        def answers(_model, _texts, each, _cue, **_more):
            return room_likelihood([rule(one) for one in each], each)

        monkeypatch.setattr(room, "text_likelihood", texts)
        monkeypatch.setattr(room, "answer_likelihood", answers)
        return model

    return like


def room_likelihood(nats, texts):
    from umaf.readout.likelihood import Likelihood

    size = tuple(len(text.encode()) for text in texts)
    return Likelihood(tuple(nats), size, size)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "bert"])
def test_likelihoods_are_log_probabilities(pico, kind):
    model = open_model(pico(kind))
    words = ("good", "bad", "the film")
    answers = answer_likelihood(model, [FILMS[0]] * 3, words, "sentiment")
    whole = text_likelihood(model, FILMS)
    for read in (answers, whole):
        assert all(value < 0 for value in read.nats) and all(read.tokens)
    assert whole.size == tuple(len(text) for text in FILMS)
    few = answer_likelihood(model, [FILMS[0]] * 3, words, "sentiment", batch_size=1)
    assert few.nats == pytest.approx(answers.nats, abs=1e-3)


def test_the_likelihood_of_a_text_adds_up_over_its_tokens(pico):
    model = open_model(pico("llama"))
    ids = model.tokenizer(FILMS[0], add_special_tokens=False)["input_ids"]
    row = torch.tensor([[model.tokenizer.bos_token_id, *ids]])
    with torch.inference_mode():
        logs = model.net(row).logits[0, :-1].log_softmax(-1)
    wanted = float(logs[torch.arange(len(ids)), torch.tensor(ids)].sum())
    assert text_likelihood(model, FILMS[:1]).nats[0] == pytest.approx(wanted, abs=1e-3)


def test_a_text_longer_than_the_window_is_read_whole(pico):
    model = open_model(pico("gpt2"))
    long = "the film was good and the music bad " * 20
    read = text_likelihood(model, [long])
    ids = model.tokenizer(long, add_special_tokens=False)["input_ids"]
    assert model.window is not None and len(ids) > model.window
    assert read.tokens == (len(ids),) and read.size == (len(long),)
    assert -read.nats[0] / len(ids) < 2 * math.log(384)


def test_choices_are_scored_per_byte_and_say_what_the_sum_would_give(known):
    model = known(lambda text: -3.0 if text == "ok" else -4.0)
    questions = (Question("which?", ("ok", "a very long one"), 1), Question("which?", ("ok", "it"), 0))
    found = assess(model, Choices("toy", questions))
    assert found.items == (1.0, 1.0) and found.also == {"accuracy by sum": 0.5}
    assert found.chance == 0.5 and found.normalised is not None and found.normalised.value == 1.0
    assert found.predictions == ("a very long one", "ok")


def test_a_blank_is_filled_and_the_whole_sentence_read(known):
    model = known(lambda text: -1.0 if text == "The cup fits, the box is large." else -2.0)
    question = Question("The cup fits, the _ is large.", ("box", "cup"), 0)
    assert assess(model, Choices("toy", (question,))).value == 1.0


def test_pairs_are_right_where_the_good_sentence_is_likelier(known):
    model = known(lambda text: -1.0 if text.endswith("s bark") else -2.0)
    pairs = (Pair("dogs bark", "dogs barks", "verb"), Pair("a cat", "dogs bark", "other"))
    found = assess(model, Pairs("toy", (*pairs, Pair("same", "same", "tie"))))
    # The last pair is as likely both ways round: a tie is not right.
    assert found.items == (1.0, 0.0, 0.0)
    assert set(found.also) == {"verb", "other", "tie"} and found.also["tie"] == 0.0


def test_bits_per_byte_of_a_model_that_knows_nothing_are_chance(known):
    model = known(lambda text: -len(text) * math.log(256))
    found = assess(model, Corpus("toy", ("abc", "defgh")))
    assert found.value == pytest.approx(8.0) and found.normalised is not None
    assert found.normalised.value == pytest.approx(0.0) and found.metric == "bits per byte"


@pytest.mark.parametrize(
    ("compared", "said", "right", "value"),
    [
        ("number", "48 + 24 = 72 apples", "72.0", 1.0),
        ("number", "1,200", "1200", 1.0),
        ("number", "none", "7", 0.0),
        ("words", "The Answer.", "the answer", 1.0),
        ("words", "the question", "the answer", 0.0),
        ("overlap", "a red fox", "the red fox", 2 / 3),
        ("overlap", "", "the red fox", 0.0),
    ],
)
def test_written_answers(monkeypatch, compared, said, right, value):
    monkeypatch.setattr(room, "continuations", lambda *_args, **_more: [said])
    task = Answers("toy", (("how many?", right),), compared)
    assert assess(open_model("zoo:llama-1m"), task).value == pytest.approx(value)


def test_every_generated_form_is_asked_and_a_record_holds_it():
    model = open_model("zoo:gpt2-1m")
    for name in ("made/which_kind", "made/sums", "made/agreement", "made/prose", "made/tense"):
        (found,) = ask(model, name, Asked(limit=4))
        assert found.n == 4 and found.low <= found.value <= found.high
        row = json.loads(json.dumps(result_row(found)))
        assert len(row["items"]) == 4 and row["task"] == name
    assert ask(model, "made/sums", Asked(limit=4, seed=1)) != ask(model, "made/sums", Asked(limit=4))


def test_a_masked_model_has_no_bits_and_writes_no_sums():
    model = open_model("zoo:bert-1m")
    for name in ("made/prose", "made/sums"):
        with pytest.raises(TaskError, match="does not write"):
            ask(model, name, Asked(limit=2))


def _result(items, *, weights=(), perfect=1.0, chance=0.0, name="m"):
    value = float(np.sum(items) / (np.sum(weights) if weights else len(items)))
    return Result(name, "t", "x", value, 0, 1, len(items), chance, perfect, tuple(items), tuple(weights))


def test_a_difference_is_found_where_there_is_one_and_not_where_there_is_none():
    draw = np.random.default_rng(0)
    right = (draw.random(300) < 0.5).astype(float)
    better = np.maximum(right, (draw.random(300) < 0.3).astype(float))
    again = draw.permutation(right)
    assert compare(_result(right), _result(better)).p < 0.001
    assert compare(_result(right), _result(right)).p == 1.0
    assert compare(_result(right), _result(again)).p > 0.05
    found = compare(_result(right), _result(better))
    assert found.test == "McNemar" and found.low < found.gain < found.high and found.lost == -found.gain


def test_fewer_bits_are_a_gain():
    sizes = [100.0] * 40
    many, few = (
        _result([bits] * 39 + [bits + 1], weights=sizes, perfect=0.0, chance=8.0) for bits in (300.0, 200.0)
    )
    found = compare(many, few)
    assert found.gain == pytest.approx(1.0) and found.lost == pytest.approx(-1 / 8)
    assert found.test == "bootstrap" and found.p < 0.01 and found.low <= found.gain <= found.high
    with pytest.raises(NumericalError, match="item by item"):
        compare(many, _result([1.0]))


def test_mcnemar_is_the_binomial_of_the_items_that_differ():
    assert mcnemar([1, 1, 0, 0], [1, 1, 0, 0]) == 1.0
    assert mcnemar([0] * 10 + [1] * 5, [1] * 10 + [1] * 5) == pytest.approx(2 / 2**10)


def test_holm_never_lets_a_larger_p_go_first():
    rows = [Comparison("t", "a", "b", 0, 0, 0, 0, 9, p, "McNemar", p) for p in (0.9, 0.01, 0.02, 0.5)]
    assert [round(one.corrected, 3) for one in holm(rows)] == [1.0, 0.04, 0.06, 1.0]
    assert holm([]) == []


def test_damage_is_forgetting():
    before, after = open_model("zoo:llama-1m"), open_model("zoo:llama-1m")
    same = measure_change(before, after, ["made/tense"], Asked(limit=6))
    assert same.forgotten is not None and same.forgotten.value == 0.0 and len(same.elsewhere) == 6
    with torch.no_grad():
        for parameter in after.net.parameters():
            parameter.mul_(-0.5)
    found = measure_change(before, after, ["made/tense"], Asked(limit=6))
    assert found.forgotten is not None and found.forgotten.value > 0.05
    numbers = json.loads(json.dumps(change_numbers(found)))
    assert numbers["forgotten"]["n"] == 6 and len(numbers["results"]) == 14
    with pytest.raises(TaskError, match="at least one"):
        measure_change(before, after, [], Asked())


def test_what_a_kind_of_model_cannot_be_asked_is_said():
    model = open_model("zoo:bert-1m")
    found = measure_change(model, model, ["made/tense"], Asked(limit=4))
    assert list(found.unasked) == ["made/prose"] and "does not write" in found.unasked["made/prose"]


def test_pieces_hold_the_whole_text():
    text = "".join(f"line {number} of a story\n" for number in range(200)) + "x" * 50
    pieces = pieces_of(text, size=300)
    assert "".join(pieces) == text and max(map(len, pieces)) <= 300


def test_a_text_file_is_a_corpus(tmp_path):
    (tmp_path / "a.txt").write_text("Once upon a time there was a little girl.")
    (found,) = ask(open_model("zoo:llama-1m"), f"text:{tmp_path / 'a.txt'}", Asked())
    assert found.task == "text:a.txt" and 0 < found.value < 8 and math.isnan(found.low)
    (tmp_path / "b.txt").write_text(" ")
    with pytest.raises(TaskError, match="empty"):
        load_measured(f"text:{tmp_path / 'b.txt'}")


def test_published_sets_are_read(real_data):
    blanks = load_measured("reasoning/winogrande", data=real_data)
    letters = load_measured("reasoning/aqua", data=real_data)
    numbers = load_measured("reasoning/gsm8k", data=real_data)
    assert isinstance(blanks, Choices) and "_" in blanks.questions[0].text
    assert isinstance(letters, Choices) and letters.questions[0].choices[0] == "40.8"
    assert isinstance(numbers, Answers) and numbers.compared == "number" and numbers.questions[0][1] == "3"
    for name in ("pairs/blimp", "lm/darwin", "instruct/instruct_1100"):
        (found,) = ask(open_model("zoo:llama-1m"), name, Asked(limit=2, data=str(real_data)))
        assert found.n == 2
    with pytest.raises(TaskError, match="Did you mean"):
        load_measured("reasoning/arc_eazy", data=real_data)


@pytest.mark.skipif(find_spec("lm_eval") is None, reason="the harness is not installed")
def test_a_local_harness_task_gives_our_own_likelihoods(tmp_path, monkeypatch):
    rows = [
        {"question": f"What is a {word}?", "choices": ["an animal", "a tool"], "right": right}
        for word, right in (("cat", 0), ("saw", 1), ("dog", 0))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "kinds.yaml").write_text(
        f"""task: tiny_kinds
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "rows.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: right
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model = open_model("zoo:llama-1m")
    (found,) = ask(model, f"lm-eval:{tmp_path / 'kinds.yaml'}", Asked(limit=3))
    own = assess(
        model, Choices("own", tuple(Question(r["question"], tuple(r["choices"]), r["right"]) for r in rows))
    )
    assert found.task == "lm-eval:tiny_kinds" and found.metric == "acc" and found.n == 3
    # The harness's accuracy is by the plain sum; both read the same likelihoods.
    assert found.value == pytest.approx(own.also["accuracy by sum"]) and found.chance == 0.5
    with pytest.raises(TaskError, match="no readable YAML"):
        ask(model, f"lm-eval:{tmp_path / 'none.yaml'}", Asked())
    with pytest.raises(TaskError, match="a model that writes"):
        ask(open_model("zoo:bert-1m"), "lm-eval:arc_easy", Asked())
