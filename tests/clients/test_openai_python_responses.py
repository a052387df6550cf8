"""The responses dialect with the official Python SDK, against a running gateway."""

import pytest
from openai import APIError, BadRequestError, InternalServerError, NotFoundError, OpenAI

from app.domain.chat import Delta
from app.domain.errors import UpstreamTimeout
from simulator.live import LiveSimulator
from tests import redis_server as servers
from tests.clients.responses import WEATHER, Scripted, able
from tests.clients.sdk import MODEL, connect
from tests.conftest import StartGateway
from tests.live import BOB_KEY, LiveGateway
from tests.redis_server import RedisServer

shared_redis, redis_server = servers.shared_redis, servers.redis_server


def test_a_response_is_answered_kept_read_and_forgotten(openai_client: OpenAI, site: LiveSimulator) -> None:
    """What `create` returns can be retrieved with the items that it answered, until it is deleted."""
    site.site.update(reply="Hello Ada.")
    response = openai_client.responses.create(model=MODEL, input="I am Ada.", metadata={"a": "b"})
    assert (response.output_text, response.status, response.model) == ("Hello Ada.", "completed", MODEL)
    assert (response.metadata, response.to_dict()["store"]) == ({"a": "b"}, True)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert openai_client.responses.retrieve(response.id) == response
    [item] = openai_client.responses.input_items.list(response.id)
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "I am Ada."}]
    openai_client.responses.delete(response.id)
    with pytest.raises(NotFoundError) as refusal:
        openai_client.responses.retrieve(response.id)
    assert refusal.value.code == "response_not_found"


def test_a_stream_ends_with_the_response_that_is_kept(openai_client: OpenAI, site: LiveSimulator) -> None:
    """The SDK's helper, which insists on the order of events, ends with what `retrieve` returns."""
    site.site.update(reply="One two three. " * 20)
    with openai_client.responses.stream(model=MODEL, input="Count.") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.to_dict()["store"] is True
    assert openai_client.responses.retrieve(final.id).output_text == final.output_text == "One two three. " * 20


def test_a_reader_who_leaves_finds_the_response(start_gateway: StartGateway, site: LiveSimulator) -> None:
    """The response is kept as soon as it is known, however slowly it is typed out."""
    site.site.update(reply="word " * 50)
    with start_gateway(typing_delay_seconds=0.5, typing_max_seconds=60) as gateway, connect(gateway) as client:
        with client.responses.create(model=MODEL, input="Go on.", stream=True) as stream:
            first = next(stream)
            assert first.type == "response.created"
            next(event for event in stream if event.type == "response.output_text.delta")
        assert client.responses.retrieve(first.response.id).output_text == "word " * 50


def test_a_conversation_goes_on_from_a_response(
    openai_client: OpenAI, gateway: LiveGateway, site: LiveSimulator
) -> None:
    """The earlier turns are part of the prompt, their instructions aren't, and nobody else can go on from them."""
    site.site.update(reply="Hello Ada.")
    first = openai_client.responses.create(model=MODEL, input="I am Ada.", instructions="Be brief.")
    second = openai_client.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)
    third = openai_client.responses.create(model=MODEL, input="Sure?", previous_response_id=second.id)
    prompts = [message.message for message in site.site.messages]
    assert prompts[0].startswith("[System]: Be brief.")
    assert prompts[1] == "[User]: I am Ada.\n[Assistant]: Hello Ada.\n[User]: Who am I?"
    assert prompts[2] == f"{prompts[1]}\n[Assistant]: Hello Ada.\n[User]: Sure?"
    listed = openai_client.responses.input_items.list(third.id, order="asc", limit=2)
    assert len(list(listed)) == 5
    with connect(gateway, BOB_KEY) as bob, pytest.raises(BadRequestError) as refusal:
        bob.responses.create(model=MODEL, input="Who is she?", previous_response_id=first.id)
    assert (refusal.value.code, refusal.value.param) == ("previous_response_not_found", "previous_response_id")


def test_any_worker_goes_on_from_a_response_in_redis(
    start_gateway: StartGateway, redis_server: RedisServer, site: LiveSimulator
) -> None:
    """What one worker has kept, another one continues, reads and forgets."""
    site.site.update(reply="Hello Ada.")
    with (
        start_gateway(session_store_url=redis_server.url) as one,
        start_gateway(session_store_url=redis_server.url) as other,
        connect(one) as here,
        connect(other) as there,
    ):
        first = here.responses.create(model=MODEL, input="I am Ada.")
        second = there.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)
        assert here.responses.retrieve(second.id).output_text == "Hello Ada."
        there.responses.delete(first.id)
        with pytest.raises(NotFoundError):
            here.responses.retrieve(first.id)
    assert site.site.messages[-1].message.startswith("[User]: I am Ada.\n[Assistant]: Hello Ada.")


def test_items_that_are_kept_can_be_referred_to(openai_client: OpenAI, site: LiveSimulator) -> None:
    """Some SDKs send an item's id in place of the item; an unknown one is named."""
    site.site.update(reply="Hello Ada.")
    first = openai_client.responses.create(model=MODEL, input="I am Ada.")
    openai_client.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": "I am Ada."},
            {"type": "item_reference", "id": first.output[0].id or ""},
            {"role": "user", "content": "Who am I?"},
        ],
    )
    assert site.site.messages[-1].message == "[User]: I am Ada.\n[Assistant]: Hello Ada.\n[User]: Who am I?"
    with pytest.raises(BadRequestError) as refusal:
        openai_client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": "msg_1"}])
    assert refusal.value.param == "input[0].id"


def test_what_is_not_to_be_kept_is_not(openai_client: OpenAI) -> None:
    """`store=False` leaves nothing behind, and the response says so."""
    response = openai_client.responses.create(model=MODEL, input="Hello", store=False)
    assert response.to_dict()["store"] is False
    with pytest.raises(NotFoundError):
        openai_client.responses.retrieve(response.id)


def test_an_answer_comes_also_while_nothing_can_be_kept(start_gateway: StartGateway) -> None:
    """With the store away the response says that it isn't kept; what depends on the store gets a 503."""
    with start_gateway(session_store_url="redis://127.0.0.1:1/0") as gateway, connect(gateway) as client:
        response = client.responses.create(model=MODEL, input="Hello")
        assert response.status == "completed"
        assert response.to_dict()["store"] is False
        with client.responses.stream(model=MODEL, input="Hello") as stream:
            assert stream.get_final_response().to_dict()["store"] is False
        with pytest.raises(InternalServerError) as refusal:
            client.responses.create(model=MODEL, input="Hello", previous_response_id=response.id)
        assert (refusal.value.status_code, refusal.value.code) == (503, "session_store_unavailable")


def test_an_answer_that_is_cut_off_says_so(openai_client: OpenAI, site: LiveSimulator) -> None:
    """`max_output_tokens` makes the response incomplete, plain and streamed."""
    site.site.update(reply="Forty bytes of text, or just ten tokens. And more.")
    plain = openai_client.responses.create(model=MODEL, input="Hello", max_output_tokens=10)
    *_, last = openai_client.responses.create(model=MODEL, input="Hello", max_output_tokens=10, stream=True)
    assert last.type == "response.incomplete"
    for response in (plain, last.response):
        assert response.output_text == "Forty bytes of text, or just ten tokens."
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"


def test_a_session_remembers_responses_too(openai_client: OpenAI, site: LiveSimulator) -> None:
    """X-Session-Id works as in every dialect; `user` opens no session here."""
    for text in ("I am Ada.", "Who am I?"):
        openai_client.responses.create(model=MODEL, input=text, extra_headers={"X-Session-Id": "s1"})
    assert site.site.messages[1].message.startswith("[User]: I am Ada.\n[Assistant]: ")
    raw = openai_client.responses.with_raw_response.create(model=MODEL, input="Hello", user="u1")
    assert raw.headers["x-session-action"] == "stateless"


def test_an_input_can_be_counted(openai_client: OpenAI) -> None:
    """The estimate grows with what is sent, tools included."""
    count = openai_client.responses.input_tokens.count
    few, more = count(input="x" * 40), count(input="x" * 40, tools=[WEATHER])
    assert (few.input_tokens, few.object) == (10, "response.input_tokens")
    assert more.input_tokens > 30


def test_a_stream_that_breaks_off_raises(scripted: Scripted) -> None:
    """The events say that the response failed, and the SDK raises what happened; nothing is kept."""
    provider = able([Delta("half of"), UpstreamTimeout("Too late.")])
    kinds = []
    with scripted(provider) as client:
        stream = client.responses.create(model="able-model", input="Hello", stream=True)
        created = next(stream)
        with pytest.raises(APIError, match=r"Too late\."):
            kinds += [event.type for event in stream]
        assert created.type == "response.created"
        with pytest.raises(NotFoundError):
            client.responses.retrieve(created.response.id)


def test_what_is_too_long_is_named_as_the_input(openai_client: OpenAI) -> None:
    """The error speaks of the field that was sent, streamed or not."""
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refusal:
            openai_client.responses.create(model=MODEL, input="x" * 2000, stream=stream)
        assert (refusal.value.param, refusal.value.code) == ("input", "context_length_exceeded")


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=msg_0", "after")]
)
def test_a_page_that_cant_be_is_refused(openai_client: OpenAI, gateway: LiveGateway, query: str, param: str) -> None:
    """Faults of the listing are named like all others."""
    response = openai_client.responses.create(model=MODEL, input="Hello")
    with gateway.client() as http:
        refused = http.get(f"/v1/responses/{response.id}/input_items?{query}")
        again = http.get(f"/v1/responses/{response.id}?stream=true")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert (again.status_code, again.json()["error"]["param"]) == (400, "stream")
