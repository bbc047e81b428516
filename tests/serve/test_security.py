"""Who is let in, and what browsers are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from monai_fedlora.serve.security import PAGE_KEY
from tests.serve.conftest import ADDRESS, send, stranger

TOKEN = "a-token.of_23~characters"
Make = Callable[..., FastAPI]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:9000", "127.0.0.1"])
def test_server_answers_to_the_names_of_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/api/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "192.168.1.7",
        "a@127.0.0.1",
        "",
        "[",
        "localhost.x",
    ],
)
def test_foreign_host_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/api/model", "/static/page.css"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "this server is not called" in answer.json()["error"]


def test_host_has_to_be_the_one_that_is_served(make_app: Make) -> None:
    with TestClient(make_app(host="192.168.1.7", token=TOKEN), base_url=ADDRESS) as browser:
        allowed = {"Authorization": f"Bearer {TOKEN}"}
        assert browser.get("/api/model", headers={"Host": "192.168.1.7:8000", **allowed}).status_code == 200
        for host in ("192.168.1.8", "127.0.0.1", "localhost"):
            assert browser.get("/api/model", headers={"Host": host, **allowed}).status_code == 421


def test_every_address_may_be_asked_where_all_are_served_but_no_foreign_name(make_app: Make) -> None:
    with TestClient(make_app(host="0.0.0.0", token=TOKEN), base_url=ADDRESS) as browser:
        allowed = {"Authorization": f"Bearer {TOKEN}"}
        assert browser.get("/api/model", headers={"Host": "10.1.2.3:8000", **allowed}).status_code == 200
        assert browser.get("/api/model", headers={"Host": "evil.example", **allowed}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://[::1"},
        {"Origin": "http://[127.0.0.1:8000]"},
        {"Origin": "http://127.0.0.1:8000\u2100".encode()},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_page_of_another_site_changes_nothing(client: TestClient, headers: dict[str, Any]) -> None:
    for method, path in (("POST", "/api/studies"), ("DELETE", "/api/session"), ("DELETE", "/api/studies/x")):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.json()["error"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(text=st.text(st.characters(max_codepoint=255, blacklist_characters="\r\n\0"), max_size=20), scheme=st.booleans())
def test_no_origin_or_host_is_more_than_refused(client: TestClient, text: str, scheme: bool) -> None:
    value = (f"http://{text}" if scheme else text).encode("latin-1")
    assert client.delete("/api/session", headers={"Origin": value}).status_code == 403
    assert client.get("/api/model", headers={"Host": value}).status_code in (200, 421)


def test_own_page_and_programs_are_let_in(client: TestClient) -> None:
    for headers in ({"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}, {}):
        assert client.delete("/api/session", headers=headers).status_code == 204


@pytest.fixture
def locked(make_app: Make) -> Any:
    with TestClient(make_app(token=TOKEN), base_url=ADDRESS) as browser:
        yield browser


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \xff".encode("latin-1")},
        {"Cookie": "monai-fedlora-access-8000="},
        {"Cookie": f"monai-fedlora-access-8000={TOKEN}"},
    ],
)
def test_nothing_is_given_without_the_token(locked: TestClient, headers: dict[str, Any]) -> None:
    for method, path in (
        ("GET", "/"), ("GET", "/api/model"), ("GET", "/static/page.css"), ("GET", "/nowhere"),
        ("POST", "/api/studies"), ("GET", "/api/studies/x"), ("DELETE", "/api/session"),
        ("GET", "/api/model?token=" + TOKEN),
    ):  # fmt: skip
        answer = locked.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert "token" in answer.json()["error"]
        assert answer.headers["www-authenticate"] == "Bearer"


def test_token_in_a_header_opens_everything(locked: TestClient) -> None:
    assert locked.get("/api/model", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_token_in_the_address_leaves_it_for_a_cookie(locked: TestClient) -> None:
    answer = locked.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/api/model").status_code == 200
    assert stranger(locked).get("/api/model").status_code == 401


def test_wrong_token_in_the_address_is_refused_also_with_a_cookie(locked: TestClient) -> None:
    locked.get(f"/?token={TOKEN}")
    answer = locked.get("/?token=wrong", follow_redirects=False)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_access_of_one_server_opens_no_other(make_app: Make, locked: TestClient) -> None:
    locked.get(f"/?token={TOKEN}")
    with TestClient(make_app(token=TOKEN), base_url=ADDRESS) as other:
        other.cookies.update(locked.cookies)
        assert other.get("/api/model").status_code == 401


def test_session_that_another_program_chose_gets_no_study(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cookies of a host are those of all its ports: another user's server can plant the name of its own session."""
    monkeypatch.setattr(client.app.state.worker, "put", lambda *args: None)
    content = bytes(128) + b"DICM"
    attacker = stranger(client)
    attacker.get("/")
    unused = dict(attacker.cookies)
    for planted in (unused, None):
        if planted is None:
            send(attacker, ("IM1", content))
            planted = dict(attacker.cookies)
        victim = stranger(client, cookies=planted, headers={PAGE_KEY: "5" * 63 + str(len(planted))})
        identity = send(victim, ("IM1", content)).json()["id"]
        assert attacker.get(f"/api/studies/{identity}").status_code == 404
        assert stranger(client, cookies=planted).get(f"/api/studies/{identity}").status_code == 404
        assert victim.get(f"/api/studies/{identity}").status_code == 200
        victim.cookies.clear()
        victim.cookies.update(planted)  # planted again
        renewed = victim.get(f"/api/studies/{identity}")
        assert renewed.status_code == 200
        assert "set-cookie" in renewed.headers  # for images, which show the cookie alone
        assert victim.delete("/api/session").status_code == 204
        assert victim.get(f"/api/studies/{identity}").status_code == 404


def test_studies_that_a_page_sends_at_once_share_a_session(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.app.state.worker, "put", lambda *args: None)
    pages = [stranger(client, headers={PAGE_KEY: "a" * 64}) for _ in range(3)]
    ids = [send(page, ("IM1", bytes(128) + b"DICM")).json()["id"] for page in pages]
    assert [pages[0].get(f"/api/studies/{identity}").status_code for identity in ids] == [200] * 3
    other = stranger(client, headers={PAGE_KEY: "b" * 64})
    assert [other.get(f"/api/studies/{identity}").status_code for identity in ids] == [404] * 3


@pytest.mark.parametrize("key", ["x", "a" * 63, "a" * 65, "A" * 64, "g" * 64])
def test_key_that_no_page_draws_is_refused(client: TestClient, key: str) -> None:
    for method, path in (("POST", "/api/studies"), ("GET", "/api/studies/x"), ("DELETE", "/api/studies/x")):
        assert client.request(method, path, headers={PAGE_KEY: key}).status_code == 400


def test_every_answer_forbids_foreign_content(client: TestClient) -> None:
    foreign = client.get("/api/model", headers={"Host": "evil.example"})
    for answer in (
        client.get("/"),
        client.get("/api/model"),
        client.get("/nowhere"),
        client.post("/api/studies"),
        foreign,
    ):
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
        assert not any("http" in sources or "*" in sources or "unsafe-inline" in sources for sources in policy.values())
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers


def test_answers_about_studies_are_not_kept_by_browsers(client: TestClient) -> None:
    for answer in (client.get("/api/model"), client.get("/api/studies/x"), send(client, ("a.exe", b"x"))):
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/api", "/api/studies", "/static/", "/static"])
def test_there_is_nothing_beside_the_interface(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]
