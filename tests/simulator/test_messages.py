import httpx
import pytest

from simulator.answers import EMOJI_TEXT
from simulator.live import LiveSimulator
from simulator.site import ACTION
from tests.simulator.client import fetch_nonce, form, open_client, send


def test_a_message_is_answered_as_php_prints_it(live: LiveSimulator, client: httpx.Client) -> None:
    """A success is ASCII JSON with escaped slashes, and decodes to the answer."""
    live.site.update(reply=f"{EMOJI_TEXT} a/b")
    answer = send(client, live)
    assert answer.content.isascii()
    assert b"a\\/b" in answer.content
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert answer.json() == {"success": True, "data": {"message": f"{EMOJI_TEXT} a/b"}}
    assert live.site.counters.accepted == 1


def test_the_answer_is_composed_from_the_prompt(live: LiveSimulator, client: httpx.Client) -> None:
    """Without a fixed reply the site recalls what the prompt holds."""
    answer = send(client, live, "[User]: My name is Ada.\n[User]: What is my name?")
    assert answer.json()["data"]["message"] == "Your name is Ada."


def test_a_script_may_answer(live: LiveSimulator, client: httpx.Client) -> None:
    """A script makes the answer from the prompt, until a reset; the knob `reply` goes first."""
    live.site.play(str.upper)
    assert send(client, live, "loud").json()["data"]["message"] == "LOUD"
    live.site.update(reply="fixed")
    assert send(client, live, "loud").json()["data"]["message"] == "fixed"
    live.site.reset()
    assert "You wrote: loud" in send(client, live, "loud").json()["data"]["message"]


@pytest.mark.parametrize(
    ("fields", "status", "body"),
    [
        ({"action": "other"}, 400, "0"),
        ({"action": ""}, 400, "0"),
        ({"nonce": "0000000000"}, 403, "-1"),
        ({"nonce": ""}, 403, "-1"),
        ({"message": " "}, 200, '{"success":false,"data":{"message":"Message cannot be empty"}}'),
        (
            {"message": "😀" * 1001},
            200,
            '{"success":false,"data":"Message is too long. Maximum 1000 characters allowed."}',
        ),
        ({"model": "gpt-4"}, 200, '{"success":false,"data":"Invalid model selected."}'),
    ],
)
def test_wordpress_refuses_what_is_wrong(
    live: LiveSimulator, client: httpx.Client, fields: dict[str, str], status: int, body: str
) -> None:
    """A wrong form field is refused with the status and body of genuine WordPress."""
    answer = client.post(live.ajax_url, data=form(fetch_nonce(client, live)) | fields)
    assert (answer.status_code, answer.text) == (status, body)
    assert live.site.counters.accepted == 0


def test_the_limit_counts_code_points_and_can_be_lifted(live: LiveSimulator, client: httpx.Client) -> None:
    """A message of exactly the limit passes, whatever its bytes; with a limit of 0 any length does."""
    assert send(client, live, "😀" * 1000).json()["success"] is True
    live.site.update(char_limit=0, any_model=True)
    assert send(client, live, "x" * 3_000_000, model="other").json()["success"] is True
    assert live.site.messages[-1].characters == 3_000_000


def test_one_character_is_no_characters(live: LiveSimulator, client: httpx.Client) -> None:
    """In the refusal of a longer message, and in what is told of the prompt."""
    live.site.update(char_limit=1)
    assert send(client, live, "xx").json()["data"] == "Message is too long. Maximum 1 character allowed."
    assert send(client, live, "x").json()["data"]["message"].endswith("The prompt has 1 character.")


def test_a_json_body_is_no_form(live: LiveSimulator, client: httpx.Client) -> None:
    """WordPress finds no action in a JSON body."""
    answer = client.post(live.ajax_url, json={"action": ACTION})
    assert (answer.status_code, answer.text) == (400, "0")


def test_an_unreadable_form_is_an_empty_one(live: LiveSimulator, client: httpx.Client) -> None:
    """A body that is not what its type says gets WordPress's answer, not a crash."""
    answer = client.post(live.ajax_url, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, answer.text) == (400, "0")


def test_nonces_can_be_bound_to_the_cookie(live: LiveSimulator, client: httpx.Client) -> None:
    """A nonce works with the cookie of its own page only."""
    live.site.update(require_cookie=True)
    nonce = fetch_nonce(client, live)
    with open_client() as stranger:
        assert stranger.post(live.ajax_url, data=form(nonce)).text == "-1"
        fetch_nonce(stranger, live)
        assert stranger.post(live.ajax_url, data=form(nonce)).text == "-1"
    assert client.post(live.ajax_url, data=form(nonce)).json()["success"] is True
    assert live.site.messages[-1].cookies == ("kimi_visitor",)


def test_messages_can_be_bound_to_the_user_agent(live: LiveSimulator, client: httpx.Client) -> None:
    """A message from a User-Agent that never fetched the page meets a challenge."""
    live.site.update(require_same_user_agent=True)
    nonce = fetch_nonce(client, live)
    challenged = client.post(live.ajax_url, data=form(nonce), headers={"User-Agent": "another"})
    assert (challenged.status_code, challenged.headers["cf-mitigated"]) == (403, "challenge")
    assert client.post(live.ajax_url, data=form(nonce)).json()["success"] is True


def test_nonces_can_be_worthless(live: LiveSimulator, client: httpx.Client) -> None:
    """With the knob on, even a fresh nonce is refused, and counted as such."""
    live.site.update(nonces_never_valid=True)
    assert send(client, live).text == "-1"
    assert live.site.counters.refused_nonce == 1
