"""Who is let in, and what a browser is told."""

from __future__ import annotations

import signal

import pytest
from pydantic import ValidationError

from tests.made_web import made_client
from umaf.cli import main
from umaf.web.settings import WebSettings

TOKEN = "a long enough token"


def sentence(answer):
    said = answer.json()["error"]["message"]
    assert said.endswith(".") and "\n" not in said
    return said


def test_every_answer_forbids_other_sites(client):
    for path in ("/", "/static/app.js", "/api/about", "/nowhere"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_asks_for_nothing_elsewhere(client):
    page = client.get("/").text
    for name in ("report.css", "web.css", "app.js"):
        assert f"/static/{name}" in page and client.get(f"/static/{name}").status_code == 200
    from importlib.resources import files

    for file in files("umaf.web").joinpath("static").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert "http://" not in text and "https://" not in text and "innerHTML" not in text


@pytest.mark.parametrize(
    "name", ["..%2f..%2fapp.py", "%2e%2e/app.py", "nowhere.js", "__init__.py", "..%5capp.py"]
)
def test_only_the_pages_own_files_are_given(client, name):
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 404 and sentence(answer)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8322", "127.0.0.1.evil.example", "", "192.168.0.4"]
)
def test_another_host_is_refused(client, host):
    answer = client.get("/api/about", headers={"host": host})
    assert answer.status_code == 403 and "is not this machine" in sentence(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8322.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8322"},
    ],
)
def test_what_another_page_sends_is_refused(client, headers):
    answer = client.post("/api/search", json={"by": "words", "words": "film"}, headers=headers)
    assert answer.status_code == 403 and "send it from this page" in sentence(answer)


def test_this_pages_own_requests_pass(client):
    headers = {"origin": "http://127.0.0.1:8322", "sec-fetch-site": "same-origin"}
    answer = client.post("/api/search", json={"by": "words", "words": "sentiment"}, headers=headers)
    assert answer.status_code == 200 and answer.json()["hits"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_of_another_site_is_no_request(client, kind):
    answer = client.post("/api/jobs", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415 and "JSON" in sentence(answer)


def test_a_large_request_is_refused(client):
    answer = client.post("/api/search", json={"by": "words", "words": "x" * 60_000})
    assert answer.status_code == 413 and "50000 bytes" in sentence(answer)


@pytest.mark.parametrize("body", [b"{", b"[" * 20_000, b"\xff", b""])
def test_what_is_no_json_is_said(client, body):
    answer = client.post("/api/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400 and "is not JSON" in sentence(answer)


def test_other_methods_and_places_are_said(client):
    assert "There is no DELETE" in sentence(client.delete("/api/jobs"))
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_another_address_needs_a_token(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValidationError, match="give a token"):
        WebSettings(host="0.0.0.0")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.delenv("UMAF_WEB_TOKEN", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["web", "--host", "0.0.0.0", "--records", str(tmp_path)])
    said = capsys.readouterr().err.strip()
    assert end.value.code == 1 and "give a token" in said and "\n" not in said
    with pytest.raises(SystemExit):
        main(["web", "--records", str(tmp_path / "nowhere")])
    assert "is not there" in capsys.readouterr().err


def test_a_token_is_asked_for_once(tmp_path):
    with made_client(tmp_path, token=TOKEN, host="0.0.0.0") as client:
        client.headers["host"] = "somewhere.example"
        assert client.get("/api/about").status_code == client.get("/static/app.js").status_code == 401
        asked = client.get("/", headers={"accept": "text/html"})
        assert asked.status_code == 401 and 'type="password"' in asked.text and TOKEN not in asked.text
        assert client.get("/api/about", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/api/about", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        wrong = client.post("/login", data={"token": "wrong"})
        assert wrong.status_code == 401 and "set-cookie" not in wrong.headers
        elsewhere = client.post("/login", data={"token": TOKEN}, headers={"origin": "http://evil.example"})
        assert elsewhere.status_code == 403
        right = client.post("/login", data={"token": TOKEN}, follow_redirects=False)
        cookie = right.headers["set-cookie"]
        assert right.status_code == 303 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        given = {"cookie": cookie.split(";")[0]}
        assert client.get("/api/about", headers=given).status_code == 200
        assert client.get("/api/about", headers={"cookie": "umaf="}).status_code == 401
