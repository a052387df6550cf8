"""A client on a socket of its own: it sends, and then listens to the end, or leaves."""

import json
import socket
import struct
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, Literal

Leaving = Literal["politely", "rudely"]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client got.

    Args:
        status: Of HTTP.
        code: The error's, whether it came as the answer or as an event.
        retry_after: The header's seconds.
        text: The assistant's words.
        complete: Did the answer end as one that is whole?
    """

    status: int
    code: str | None
    retry_after: int | None
    text: str
    complete: bool


class Call:
    """A request that has been sent, in either mode."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._response: HTTPResponse | None = None

    def opened(self) -> "Call":
        """Wait for the head of the answer."""
        self._response = HTTPResponse(self._connection, method="POST")
        self._response.begin()
        return self

    def read(self, size: int) -> bytes:
        """The next bytes of an opened answer."""
        assert self._response is not None
        return self._response.read(size)

    def hear(self) -> Heard:
        """The answer to its end."""
        if self._response is None:
            self.opened()
        response = self._response
        assert response is not None
        with self._connection, response:
            body = response.read()
        header = response.getheader("retry-after")
        retry_after = None if header is None else int(header)
        if response.getheader("content-type", "").startswith("text/event-stream"):
            events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
            texts, code = _streamed(events)
            return Heard(response.status, code, retry_after, texts, events[-1:] == ["[DONE]"])
        document = json.loads(body)
        if "error" in document:
            return Heard(response.status, document["error"]["code"], retry_after, "", complete=False)
        text = document["choices"][0]["message"]["content"]
        return Heard(response.status, None, retry_after, text, complete=True)

    def leave(self, how: Leaving = "politely") -> None:
        """Close the connection, politely (FIN) or as a client that has crashed (RST)."""
        if how == "rudely":
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self._response is not None:
            self._response.close()
        self._connection.close()


def hear_all(calls: list[Call]) -> list[Heard]:
    """What came of calls, in their order."""
    return [call.hear() for call in calls]


def _streamed(events: list[str]) -> tuple[str, str | None]:
    """The text of a stream, and the code of the error that it ended with."""
    documents: list[Any] = [json.loads(event) for event in events if event != "[DONE]"]
    codes = [document["error"]["code"] for document in documents if "error" in document]
    choices = [choice for document in documents for choice in document.get("choices", [])]
    return "".join(choice["delta"].get("content", "") for choice in choices), codes[0] if codes else None
