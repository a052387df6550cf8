"""When a form is passed on while it comes, and when it is kept first."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.relay import bodies
from app.api.relay.bodies import FormBody, JsonBody
from app.domain.errors import ClientClosedRequest, GatewayOverloaded, InvalidRequest, RequestTimeout

KILOBYTE = 1024
TYPE = "multipart/form-data; boundary=xyz"
MODEL = b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\near\r\n'
FILE = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
AUDIO = bytes(300 * KILOBYTE)
END = b"\r\n--xyz--\r\n"
MODEL_FIRST, MODEL_LAST = [MODEL, FILE, AUDIO, END], [FILE, AUDIO, b"\r\n", MODEL[:-2], END]


class Client:
    """Sends a form in pieces; then it is silent, unless it leaves."""

    def __init__(self, pieces: Iterable[bytes], *, leaves: bool = False, stays_away: bool = False) -> None:
        whole = b"".join(pieces)
        self.length = len(whole)
        size = 64 * KILOBYTE
        self._pieces = [whole[place : place + size] for place in range(0, len(whole), size)]
        self._leaves = leaves
        self._stays_away = stays_away
        self.sent = 0

    async def receive(self) -> Message:
        """The next piece."""
        left = len(self._pieces) - self.sent
        if left == 2 and self._leaves:
            return {"type": "http.disconnect"}
        if left == 0 or (left == 2 and self._stays_away):
            await asyncio.Event().wait()
        self.sent += 1
        return {"type": "http.request", "body": self._pieces[self.sent - 1], "more_body": left > 1}


@asynccontextmanager
async def form(client: Client, *, tells_length: bool = True) -> AsyncGenerator[FormBody, None]:
    """A form that has been read as far as it must be."""
    with FormBody(client.receive, TYPE, "xyz", client.length if tells_length else None) as body:
        await body.read()
        yield body


async def sent(body: FormBody, model: str = "upstream-s-ear") -> bytes:
    """What an upstream gets."""
    payload = body.payload(model, 10)
    assert payload.pieces is not None
    whole = b"".join([piece async for piece in payload.pieces()])
    assert len(whole) == payload.length
    return whole


@pytest.mark.parametrize("pieces", [MODEL_FIRST, MODEL_LAST], ids=["model first", "model last"])
async def test_nothing_but_the_model_is_changed(pieces: Sequence[bytes]) -> None:
    """Byte for byte, wherever the model stands; and all of it is sent again as often as it has come as a whole."""
    async with form(Client(pieces)) as body:
        assert body.model == "ear"
        expected = b"".join(pieces).replace(b"\r\near\r\n", b"\r\nupstream-s-ear\r\n")
        assert await sent(body) == expected
        assert body.can_be_sent == body.is_whole == (pieces is MODEL_LAST)
        if body.is_whole:
            assert await sent(body) == expected


async def test_a_form_without_a_model_gets_one() -> None:
    """As its first part; the rest is as it was."""
    pieces = [FILE, b"RIFF", END]
    async with form(Client(pieces)) as body:
        assert body.model is None
        assert await sent(body, "ear") == MODEL + b"".join(pieces)


async def test_the_rest_follows_while_it_comes() -> None:
    """With the model before the file, and a client that is quick: the upstream gets the beginning at once."""
    client = Client(MODEL_FIRST)
    async with form(client) as body:
        payload = body.payload("ear", 10)
        assert payload.pieces is not None
        pieces = payload.pieces()
        assert await anext(pieces)
        assert (client.sent, body.is_whole, body.can_be_sent) == (2, False, False)
        assert sum([len(piece) async for piece in pieces]) > len(AUDIO)


@pytest.mark.parametrize("reason", ["model last", "no length", "slow client", "small"])
async def test_it_is_kept_first(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the model behind the file, without a length, from a slow client, or if it is small anyway."""
    if reason == "slow client":
        monkeypatch.setattr(bodies, "_QUICK_SECONDS", 0.0)
    pieces = MODEL_LAST if reason == "model last" else [MODEL, FILE, END] if reason == "small" else MODEL_FIRST
    async with form(Client(pieces), tells_length=reason != "no length") as body:
        assert body.is_whole


async def test_a_client_that_stops_is_not_the_upstream_s_fault() -> None:
    """When the time for the upload is over, that is the client's 408."""
    async with form(Client(MODEL_FIRST, stays_away=True)) as body:
        payload = body.payload("ear", 0.05)
        assert payload.pieces is not None
        with pytest.raises(RequestTimeout):
            async for _ in payload.pieces():
                pass


async def test_a_client_that_leaves() -> None:
    """Before its form can be sent on nothing is sent; afterwards what is sent ends."""
    with pytest.raises(ClientDisconnect):
        async with form(Client(MODEL_LAST, leaves=True)):
            pass
    async with form(Client(MODEL_FIRST, leaves=True)) as body:
        with pytest.raises(ClientClosedRequest):
            await sent(body)


async def test_whoever_waits_for_the_client_to_leave_waits_for_the_form_first() -> None:
    """Its pieces are for the upstream; what comes after them tells of the client."""
    client = Client(MODEL_FIRST)
    async with form(client) as body:
        watching = asyncio.create_task(body.receive_after())
        await asyncio.sleep(0)
        assert client.sent == 2
        await sent(body)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        assert client.sent == 5


async def test_a_full_disk_is_said() -> None:
    """A form that finds no room is refused for now."""

    def write(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    client = Client(MODEL_LAST)
    with FormBody(client.receive, TYPE, "xyz", client.length) as body:
        body._file.write = write  # type: ignore[method-assign, assignment]
        with pytest.raises(GatewayOverloaded, match="no room"):
            await body.read()


def test_json_is_passed_on_whole() -> None:
    """All fields stay, the model is another; what counts is counted."""
    body = JsonBody.read('{"model": "a", "input": ["abcd", "efgh"], "user": "u", "x": 1.50, "y": "é"}'.encode())
    assert (body.model, body.end_user, body.wants_stream, body.tokens("input")) == ("a", "u", False, 2)
    sent = body.payload("b", 1).data
    assert sent == '{"model":"b","input":["abcd","efgh"],"user":"u","x":1.5,"y":"é"}'.encode()
    assert JsonBody.read(b'{"input": [1, 2, 3]}').tokens("input") == 3
    nested: object = "abcd"
    for _ in range(5000):
        nested = [nested]
    assert JsonBody({"input": nested}).tokens("input") == 1
    assert JsonBody.read(b'{"query": "abcd", "documents": [{"text": "abcd"}, 7]}').tokens("query", "documents") == 3


@pytest.mark.parametrize(
    "text", [b"", b"7", b"[]", b'{"x": NaN}', b'{"x": "\xff"}', b"{", b'{"model": "a", "Model": "b"}']
)
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    """So is what can't be passed on as JSON, or names what other readers could take for the model."""
    with pytest.raises(InvalidRequest):
        JsonBody.read(text)


@pytest.mark.parametrize("name", ["models", "Fallback_Models", "fallbac\u212a\u017f", "providerOptions"])
def test_no_other_models_are_passed_on(name: str) -> None:
    """What an upstream could take for a list of other models is refused by its name; contents may have any names."""
    value = {"gateway": {"models": ["b"]}}
    for form in (value, [value], json.dumps(value)):
        with pytest.raises(InvalidRequest) as refused:
            JsonBody.read(json.dumps({"model": "a", name: form}).encode())
        assert refused.value.param == name
    JsonBody.read(b'{"model": "a", "documents": [{"model": "T", "models": []}], "providerOptions": {"only": ["x"]}}')
