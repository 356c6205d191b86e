"""The endpoint, through a live server on this machine and OpenAI's own client."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import httpx
import openai
import pytest
import torch

from tests.unit.dispatch.conftest import make_expert
from umaf.dispatch.adaptive import AdaptiveModel
from umaf.dispatch.chat import Request
from umaf.dispatch.decode import Drawing
from umaf.dispatch.shelf import by_name, open_shelf
from umaf.errors import ConfigError, NumericalError
from umaf.models import open_model
from umaf.serve import worker as worker_module
from umaf.serve.bodies import Completion, read_body
from umaf.serve.faults import Fault
from umaf.serve.run import serve, served
from umaf.serve.settings import ServeSettings

TOKEN = "a-long-enough-token"
ASKED = [{"role": "user", "content": "the film was good"}]


@pytest.fixture(scope="module")
def adaptive(pico):
    base = open_model(pico("llama"))
    shelf = open_shelf(base, [make_expert(base, name) for name in ("good", "bad")])
    return AdaptiveModel(shelf, lambda texts: by_name(shelf, {"bad": 1.0}, rows=len(texts)))


@pytest.fixture(scope="module")
def where(adaptive):
    settings = ServeSettings(
        port=0, token=TOKEN, max_new_tokens=40, max_body=20_000, max_waiting=8, cue="answer"
    )
    with served(adaptive, settings) as address:
        yield address


@pytest.fixture
def client(where):
    with openai.OpenAI(base_url=where, api_key=TOKEN, max_retries=0) as found:
        yield found


def direct(adaptive, prompt, tokens, **more):
    return adaptive.generate([prompt], drawing=Drawing(tokens), **more)[0]


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["umaf", "umaf/good", "umaf/bad", "umaf/base"]
    assert client.models.retrieve("umaf/good").owned_by == "umaf"
    with pytest.raises(openai.NotFoundError, match="There is no model 'gpt'"):
        client.models.retrieve("gpt")


def test_completions_are_those_of_the_model(client, adaptive):
    reply = client.completions.create(model="umaf", prompt="rain fell on", max_tokens=9, temperature=0)
    mine = direct(adaptive, "rain fell on", 9)
    assert reply.choices[0].text == mine.text and reply.choices[0].finish_reason == mine.finish
    assert reply.usage.completion_tokens == mine.tokens
    assert reply.experts == {"good": 0.0, "bad": 1.0} and reply.why == "bad 1.00: asked for by name"


def test_experts_are_chosen_in_the_request(client, adaptive):
    """By the extra field, as a name or as weights, or by the model's name; each differs from the others."""
    texts = {}
    for what, experts in (("good", "good"), ("mixed", {"good": 0.5, "bad": -1.0}), ("base", {})):
        reply = client.completions.create(
            model="umaf", prompt="is", max_tokens=12, temperature=0, extra_body={"experts": experts}
        )
        assert reply.choices[0].text == direct(adaptive, "is", 12, experts=experts).text
        texts[what] = reply.choices[0].text
    assert len(set(texts.values())) == 3
    by_model = client.completions.create(model="umaf/good", prompt="is", max_tokens=12, temperature=0)
    assert by_model.choices[0].text == texts["good"] and by_model.experts["good"] == 1.0
    alone = client.completions.create(model="umaf/base", prompt="is", max_tokens=12, temperature=0)
    assert alone.choices[0].text == texts["base"]


def test_chat_uses_the_cue_and_ends_with_its_line(client, adaptive):
    reply = client.chat.completions.create(model="umaf", messages=ASKED, max_tokens=8, temperature=0)
    mine = adaptive.generate(["the film was good"], cue="answer", drawing=Drawing(8))[0]
    assert reply.choices[0].message.content == mine.text and reply.choices[0].message.role == "assistant"
    assert reply.experts["bad"] == 1.0


def test_content_in_parts_and_no_length(client):
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "the film "}, {"type": "text", "text": "was good"}],
        }
    ]
    reply = client.chat.completions.create(model="umaf", messages=parts, temperature=0)
    same = client.chat.completions.create(
        model="umaf", messages=ASKED, temperature=0, max_completion_tokens=40
    )
    assert reply.choices[0].message.content == same.choices[0].message.content
    assert reply.usage.completion_tokens <= 40
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with pytest.raises(openai.BadRequestError, match="reads text"):
        client.chat.completions.create(model="umaf", messages=picture)


def test_streams_give_the_whole_reply(client):
    asked = {"model": "umaf", "max_tokens": 30, "temperature": 0}
    whole = client.completions.create(prompt="rain fell on", **asked)
    options = {"include_usage": True}
    chunks = list(
        client.completions.create(prompt="rain fell on", stream=True, stream_options=options, **asked)
    )
    assert (
        "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).strip() == whole.choices[0].text
    )
    assert chunks[0].experts == {"good": 0.0, "bad": 1.0}
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage == whole.usage and len(chunks) > 4
    chat = list(client.chat.completions.create(messages=ASKED, stream=True, **asked))
    assert chat[0].choices[0].delta.role == "assistant" and chat[0].experts["bad"] == 1.0
    said = client.chat.completions.create(messages=ASKED, **asked).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chat).strip() == said


def test_several_prompts_and_copies(client):
    reply = client.completions.create(
        model="umaf", prompt=["is", "of joy"], max_tokens=6, n=2, seed=3, temperature=1.2
    )
    again = client.completions.create(
        model="umaf", prompt=["is", "of joy"], max_tokens=6, n=2, seed=3, temperature=1.2
    )
    texts = [choice.text for choice in reply.choices]
    assert texts == [choice.text for choice in again.choices] and len(texts) == 4
    assert len(set(texts)) > 2 and [choice.index for choice in reply.choices] == [0, 1, 2, 3]


def test_stops(client):
    whole = client.completions.create(model="umaf", prompt="is", max_tokens=20, temperature=0).choices[0].text
    stop = whole[3:5]
    reply = client.completions.create(
        model="umaf", prompt="is", max_tokens=20, temperature=0, stop=[stop]
    ).choices[0]
    assert reply.text == whole[: whole.index(stop)].strip() and reply.finish_reason == "stop"


def test_requests_at_once_are_answered_as_alone(where, adaptive):
    """Six clients with three choices of experts, some of them in one batch."""
    experts = ["good", {"bad": 0.7}, {}] * 2
    found = {}

    def ask(which):
        with openai.OpenAI(base_url=where, api_key=TOKEN, max_retries=0) as client:
            reply = client.completions.create(
                model="umaf",
                prompt="is",
                max_tokens=15,
                temperature=0,
                extra_body={"experts": experts[which]},
            )
            found[which] = reply.choices[0].text

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which, choice in enumerate(experts):
        assert found[which] == direct(adaptive, "is", 15, experts=choice).text


@pytest.mark.parametrize(
    ("more", "kind", "sentence"),
    [
        ({"extra_body": {"experts": "sums"}}, openai.BadRequestError, "the shelf has good, bad"),
        ({"extra_body": {"experts": {"good": "much"}}}, openai.BadRequestError, "experts"),
        ({"prompt": "rain fell " * 300}, openai.BadRequestError, "has room for"),
        ({"max_tokens": 41}, openai.BadRequestError, "replies here have 40 at most"),
        ({"model": "gpt"}, openai.NotFoundError, "There is no model 'gpt'"),
        ({"prompt": ""}, openai.BadRequestError, "A prompt is empty"),
        ({"n": 17}, openai.BadRequestError, "less than or equal to 16"),
        ({"logprobs": 2}, openai.BadRequestError, "'logprobs' was asked for"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        (
            {"n": 9, "temperature": 1},
            openai.BadRequestError,
            "9 replies were asked for, but one request may ask for 8",
        ),
        ({"stop": ["x"] * 17}, openai.BadRequestError, "at most 16 items"),
        ({"stop": "x" * 300}, openai.BadRequestError, "at most 256 characters"),
    ],
)
def test_what_cannot_be_answered(client, more, kind, sentence):
    asked = {"model": "umaf", "prompt": "is", "max_tokens": 4, **more}
    with pytest.raises(kind) as caught:
        client.completions.create(**asked)
    assert sentence in caught.value.message
    with pytest.raises(kind):
        list(client.completions.create(stream=True, **asked))


@pytest.fixture
def worker(adaptive):
    found = worker_module.Worker(adaptive, batch=4, waiting=4)
    yield found
    found.close()


@pytest.mark.parametrize(
    "wild", [{"experts": {"good": 1e30}}, {"temperature": 1e-300, "experts": "good"}, {"experts": "sums"}]
)
def test_a_request_at_fault_leaves_its_neighbours_alone(adaptive, worker, wild):
    """What one client asks for, however wild, is not answered for by those whose requests are in the same batch."""
    asked = {"model": "umaf", "prompt": "is", "max_tokens": 5, "temperature": 0}
    told = [[], [], []]
    jobs = []
    for at, more in enumerate([{"experts": "bad"}, wild, {"experts": "base"}]):
        body = read_body(Completion, {**asked, **more})
        experts = {} if body.experts == "base" else body.experts
        drawing = body.drawing(5, 0)
        jobs.append(
            worker_module.Job(Request("is", "is"), drawing, experts, told[at].append, time.monotonic() + 60)
        )
    worker._serve(jobs)  # by hand, so that it is one batch
    for at, experts in ((0, "bad"), (2, {})):
        begun, *written = told[at]
        assert isinstance(begun, worker_module.Begun)
        assert "".join(piece.text for piece in written) == direct(adaptive, "is", 5, experts=experts).text
        assert [piece.finish for piece in written if piece.finish] == ["length"]
    last = told[1][-1]
    assert isinstance(last, Fault) or last.finish == "length"


def test_a_fault_in_the_middle_is_told_to_those_who_have_read_something(worker, monkeypatch):
    """A reply that is half read cannot be begun again; one of which nothing was read is written by itself."""
    told, whole = [[], []], AdaptiveModel.stream

    def breaking(self, requests, decision, **more):
        for at, piece in enumerate(whole(self, requests, decision, **more)):
            if len(requests) > 1 and at == 1:
                raise NumericalError("the second row broke")
            yield replace(piece, text="x") if len(requests) > 1 else piece

    monkeypatch.setattr(AdaptiveModel, "stream", breaking)
    jobs = [
        worker_module.Job(Request("is", "is"), Drawing(3), "bad", one.append, time.monotonic() + 60)
        for one in told
    ]
    worker._serve(jobs)  # by hand, so that it is one batch
    assert isinstance(told[0][-1], Fault) and "the second row broke" in told[0][-1].message
    assert [type(one).__name__ for one in told[1]].count("Begun") == 1
    assert told[1][-1].finish == "length"


def test_the_coldest_temperature_takes_the_likeliest_token(client, adaptive):
    cold = client.completions.create(model="umaf", prompt="is", max_tokens=6, temperature=1e-300)
    assert cold.choices[0].text == direct(adaptive, "is", 6).text


@pytest.mark.parametrize("field", ["n", "stream", "stop", "seed", "top_p", "temperature", "stream_options"])
def test_null_is_as_good_as_left_out(where, field):
    body = {"model": "umaf", "prompt": "is", "max_tokens": 3, field: None}
    assert post(where, "/completions", json.dumps(body).encode()).status_code == 200


@pytest.mark.parametrize(
    ("path", "more", "param", "sentence"),
    [
        ("/completions", {"prompt": [1, 2]}, "prompt", "give a text, or a list of texts"),
        ("/completions", {"experts": ["good"]}, "experts", "give an expert's name, or weights by name"),
        (
            "/completions",
            {"experts": {"good": "much"}},
            "experts",
            "give an expert's name, or weights by name",
        ),
        (
            "/chat/completions",
            {"messages": [{"role": "user", "content": None}]},
            "messages.0.content",
            "give a text, or parts that hold text",
        ),
    ],
)
def test_a_field_of_the_wrong_form_is_told_what_it_may_be(where, path, more, param, sentence):
    body = {"model": "umaf", "prompt": "is", **more}
    error = post(where, path, json.dumps(body).encode()).json()["error"]
    assert error["param"] == param and error["message"] == f"{param}: {sentence}."


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/completions", {"prompt": "half a \ud800"}),
        ("/completions", {"stop": "\ud800"}),
        ("/completions", {"experts": "\ud800"}),
        ("/completions", {"experts": {"\ud800": 1.0}}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "\udfff"}]}),
    ],
)
def test_half_characters_are_no_text(where, path, more):
    body = {"model": "umaf", "prompt": "is", "messages": [{"role": "user", "content": "is"}], **more}
    response = post(where, path, json.dumps(body).encode())
    assert response.status_code == 400
    assert "half of a character" in response.json()["error"]["message"]


def test_a_token_is_needed(where):
    with pytest.raises(openai.AuthenticationError, match="The token is missing or wrong"):
        openai.OpenAI(base_url=where, api_key="another", max_retries=0).models.list()
    assert httpx.get(f"{where}/models").status_code == 401


def test_only_own_addresses_go_without_a_token():
    with pytest.raises(ValueError, match="give a token, or listen on"):
        ServeSettings(host="0.0.0.0")
    assert ServeSettings(host="0.0.0.0", token=TOKEN).host == "0.0.0.0"
    assert TOKEN not in repr(ServeSettings(token=TOKEN))


def post(where, path, content, **headers):
    known = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    return httpx.post(f"{where}{path}", content=content, headers={**known, **headers})


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/completions", b"{", {}, 400),
        ("/completions", b"[]", {}, 400),
        ("/completions", b"[" * 10_000, {}, 400),
        ("/completions", b"\xff", {}, 400),
        ("/completions", b"{}", {}, 400),
        ("/completions", b'{"model": "umaf", "prompt": [1, 2]}', {}, 400),
        ("/chat/completions", b'{"model": "umaf", "messages": []}', {}, 400),
        ("/chat/completions", b'{"model": "umaf", "messages": [{"role": "robot", "content": "x"}]}', {}, 400),
        ("/completions", b"{}", {"content-type": "text/plain"}, 415),
        ("/completions", b'{"prompt": "' + b"x" * 30_000 + b'"}', {}, 413),
        ("/embeddings", b"{}", {}, 404),
        ("/models", b"{}", {}, 405),
    ],
)
def test_malformed_requests_get_an_error_in_openais_form(where, path, content, headers, status):
    response = post(where, path, content, **headers)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["message"].count("\n") == 0


def test_a_body_without_a_length_is_bounded_too(where):
    response = post(where, "/completions", (b"x" * 4096 for _ in range(20)))
    assert response.status_code == 413


def test_what_is_no_http_gets_json(where):
    host, port = where.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(b"\x00\x01nonsense\r\n\r\n")
        answer = b""
        while part := raw.recv(4096):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"400" in head.split(b"\r\n")[0] and json.loads(body)["error"]["code"] == "invalid_http"


def test_a_page_of_another_site_is_refused_without_a_token(adaptive):
    """A name that a browser was made to resolve to this machine is not this machine's."""
    with served(adaptive, ServeSettings(port=0)) as where:
        assert httpx.get(f"{where}/models").status_code == 200
        assert httpx.get(f"{where}/models", headers={"host": "evil.example:80"}).status_code == 403


def slowed(monkeypatch, seconds=0.05):
    """Let every step take a while; gives the list of steps taken."""
    steps, inner = [], AdaptiveModel.stream

    def slow(self, *args, **more):
        for piece in inner(self, *args, **more):
            steps.append(piece)
            time.sleep(seconds)
            yield piece

    monkeypatch.setattr(AdaptiveModel, "stream", slow)
    return steps


def settle(steps):
    """Wait until no more steps are taken; give how many there were."""
    before = -1
    while before != len(steps):
        before = len(steps)
        time.sleep(0.4)
    return before


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_written_for_no_longer(where, client, monkeypatch, stream):
    steps = slowed(monkeypatch, seconds=0.1)
    host, port = where.removeprefix("http://").removesuffix("/v1").split(":")
    body = {"model": "umaf", "prompt": "is", "max_tokens": 40, "temperature": 0, "stream": stream}
    raw = http.client.HTTPConnection(host, int(port), timeout=5)
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    raw.request("POST", "/v1/completions", json.dumps(body), headers)
    while len(steps) < 3:
        time.sleep(0.01)
    raw.sock.shutdown(socket.SHUT_RDWR)
    raw.close()
    assert settle(steps) < 30
    monkeypatch.undo()
    assert client.completions.create(model="umaf", prompt="is", max_tokens=3).choices[0].text is not None


def test_a_reply_that_runs_out_of_time_ends_and_says_so(adaptive, monkeypatch):
    with served(adaptive, ServeSettings(port=0, seconds=1.5, max_new_tokens=100)) as where:
        slowed(monkeypatch)
        with openai.OpenAI(base_url=where, api_key="none", max_retries=0) as client:
            reply = client.completions.create(model="umaf", prompt="is", max_tokens=100, temperature=0)
        choice = reply.choices[0]
        assert choice.finish_reason == "length" and choice.timed_out is True
        assert 0 < reply.usage.completion_tokens < 60


def test_a_full_queue_turns_requests_away(adaptive, monkeypatch):
    """One reply is written, one waits, a third is refused; when the second client leaves, there is room again."""
    steps = slowed(monkeypatch, seconds=0.1)
    asked = {"model": "umaf", "prompt": "is", "max_tokens": 30, "temperature": 0}
    with (
        served(adaptive, ServeSettings(port=0, max_waiting=1, batch=1)) as where,
        httpx.Client(base_url=where) as client,
    ):
        with client.stream("POST", "/completions", json={**asked, "stream": True}):
            while not steps:
                time.sleep(0.01)
            refused = []

            def third():
                time.sleep(0.5)
                refused.append(httpx.post(f"{where}/completions", json=asked))

            thread = threading.Thread(target=third)
            thread.start()
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{where}/completions", json=asked, timeout=1.2)
            thread.join()
            assert refused[0].status_code == 503 and refused[0].headers["retry-after"] == "1"
            assert refused[0].json()["error"]["code"] == "busy"
            time.sleep(0.4)
            with pytest.raises(httpx.ReadTimeout):  # it waits, so it was let in
                httpx.post(f"{where}/completions", json=asked, timeout=0.2)


def test_too_many_connections_get_json_too(adaptive):
    """More connections than the queue could ever use are turned away in OpenAI's form, and those before them served."""
    with served(adaptive, ServeSettings(port=0, max_waiting=1)) as where, ExitStack() as stack:
        host, port = where.removeprefix("http://").removesuffix("/v1").split(":")
        first = stack.enter_context(httpx.Client(base_url=where))
        assert first.get("/models").status_code == 200
        there = (host, int(port))
        idle = [stack.enter_context(socket.create_connection(there, timeout=5)) for _ in range(80)]
        with openai.OpenAI(base_url=where, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match="Too many connections") as caught:
                client.models.list()
        assert caught.value.status_code == 503 and caught.value.code == "busy"
        assert caught.value.response.headers["retry-after"] == "1"
        for one in idle:
            one.close()
        while (found := httpx.get(f"{where}/models")).status_code == 503:
            time.sleep(0.05)
        assert found.status_code == 200


def test_a_fault_of_the_model_does_not_end_the_server(where, client, monkeypatch):
    def broken(self, *args, **more):
        raise RuntimeError("a bug")
        yield

    monkeypatch.setattr(AdaptiveModel, "stream", broken)
    monkeypatch.setattr(worker_module._LOG, "exception", lambda *args: None)
    with pytest.raises(openai.InternalServerError, match="its log says how"):
        client.completions.create(model="umaf", prompt="is", max_tokens=3)
    monkeypatch.undo()
    assert client.completions.create(model="umaf", prompt="is", max_tokens=3).object == "text_completion"


def test_out_of_numbers_is_a_server_error(pico):
    base = open_model(pico("llama"))
    shelf = open_shelf(base, [make_expert(base, "good")])
    with served(AdaptiveModel(shelf), ServeSettings(port=0)) as where:
        with openai.OpenAI(base_url=where, api_key="none", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError, match="NaN or infinity"):
                experts = {"good": 1e38}
                client.completions.create(model="umaf", prompt="is", extra_body={"experts": experts})
            assert client.completions.create(model="umaf", prompt="is").choices[0].text is not None
    assert torch.isfinite(base.net.get_input_embeddings().weight).all()


def test_an_address_that_is_taken(adaptive):
    with served(adaptive, ServeSettings(port=0)) as where:
        port = int(where.removesuffix("/v1").rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match="cannot be listened on"):
            serve(adaptive, ServeSettings(port=port))


def test_without_the_extra_it_is_one_sentence(adaptive, monkeypatch):
    def missing(name):
        raise ImportError(name, name="uvicorn")

    monkeypatch.setattr("umaf.serve.run.import_module", missing)
    with pytest.raises(ConfigError, match=r'uvicorn is not installed; pip install "umaf\[serve\]"'):
        serve(adaptive, ServeSettings(port=0))
