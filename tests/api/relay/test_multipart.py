"""What is read of a form while it passes by."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.relay.multipart import FormScanner, boundary_of
from app.domain.errors import InvalidRequest
from tests.domain.strategies import UNTIMED

MODEL = b'Content-Disposition: form-data; name="model"'
FILE = (
    b'Content-Disposition: form-data; name="file"; filename="a \\"b\\"; name=\\"model\\".wav"\r\n'
    b"Content-Type: audio/wav"
)
STREAM = b'content-disposition:form-data;name="stream"'


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """A form of these heads and values."""
    return b"".join([b"--xyz\r\n%b\r\n\r\n%b\r\n" % part for part in parts]) + b"--xyz--\r\n"


def scanned(text: bytes, *cuts: int) -> FormScanner:
    """What is read of a form that comes in pieces."""
    scanner = FormScanner("xyz")
    places = [0, *sorted(cuts), len(text)]
    for begin, end in itertools.pairwise(places):
        scanner.feed(text[begin:end])
    scanner.finish()
    return scanner


values = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n--xy", b"-xyz", b"\r\n", b"\r\n-", b"\r\r\n--xyZ"])
# Real boundaries are in no file: they are made up for the form.
values = values.filter(lambda value: b"--xyz" not in value)


@UNTIMED
@given(st.data(), values, st.booleans())
def test_pieces_make_no_difference(data: st.DataObject, file: bytes, model_first: bool) -> None:
    """However a form is cut, the model is found at the same place, and it is what stands there."""
    parts = [(MODEL, b"whisper-1"), (FILE, file), (STREAM, b"true")]
    text = form(*(parts if model_first else parts[::-1]))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    scanner = scanned(text, *cuts)
    assert scanner.values == {"model": "whisper-1", "stream": "true"}
    assert scanner.model is not None
    assert text[scanner.model.begin : scanner.model.end] == b"whisper-1"
    assert (scanner.in_file, scanner.ended) == (True, True)


def test_a_large_file_is_not_kept() -> None:
    """Of a file no more stays in memory than might be the beginning of a boundary."""
    scanner = FormScanner("xyz")
    scanner.feed(b"--xyz\r\n%b\r\n\r\n" % FILE)
    for _ in range(100):
        scanner.feed(bytes(65536))
        assert len(scanner._rest) < 10


REFUSED = {
    "no form": b"hello",
    "another boundary": b"--abc\r\n\r\n",
    "no end": form((MODEL, b"x"))[:-6],
    "more behind a boundary": b"--xyz \r\n" + form()[5:],
    "a part without a head": b"--xyz\r\n\r\nx\r\n--xyz--",
    "a part without a name": form((b"Content-Type: text/plain", b"x")),
    "two names": form((MODEL + b"\r\n" + MODEL, b"x")),
    "a name twice in one line": form((MODEL + b'; name="file"', b"x")),
    "an odd name": form((b'Content-Disposition: form-data; name="mod%65l"', b"x")),
    "a folded head": form((b'Content-Disposition: form-data;\r\n name="model"', b"x")),
    "another coding": form((MODEL + b"\r\nContent-Transfer-Encoding: base64", b"eA==")),
    "another character set": form((MODEL + b"\r\nContent-Type: text/plain; charset=utf-16", b"x\0")),
    "two models": form((MODEL, b"x"), (FILE, b""), (MODEL, b"x")),
    "a second model in capitals": form((MODEL, b"x"), (MODEL.replace(b"model", b"MODEL"), b"y")),
    "a list of models": form((MODEL, b"x"), (MODEL.replace(b"model", b"model[]"), b"y")),
    "a list of other models": form((MODEL, b"x"), (MODEL.replace(b"model", b"Models[]"), b"y")),
    "a field that may hold other models": form((MODEL, b"x"), (MODEL.replace(b"model", b"extra_body[a][b]"), b"y")),
    "a file as a model": form((MODEL + b'; filename="x"', b"x")),
    "a long model": form((MODEL, b"x" * 2000)),
    "a long head": b"--xyz\r\nContent-Type: " + b"x" * 9000,
    "its boundary within a part": form((MODEL, b"x"), (FILE, b"a\n--xyz\n\n\ny")),
    "something behind its end": form((MODEL, b"x")) + b"--xyz\r\n",
    "a line's end in a file's name": form((MODEL, b"x"), (FILE.replace(b"a ", b"a\n"), b"")),
    "many parts": form(*[(STREAM, b"")] * 300),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_two_readers_could_take_differently_is_refused(text: bytes) -> None:
    """No upstream shall read another model than the one whose use was allowed."""
    for cuts in ((), range(len(text)) if len(text) < 1000 else ()):
        with pytest.raises(InvalidRequest):
            scanned(text, *cuts)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=xyz", "xyz"),
        ('Multipart/Form-Data;BOUNDARY="x y z"', None),
        ('multipart/form-data; boundary="a/b=c"', "a/b=c"),
        ("multipart/form-data; boundary=xyz; charset=utf-8", None),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=" + "x" * 71, None),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_boundary(content_type: str, boundary: str | None) -> None:
    """It is what the type names; any other type, and any other parameter, is refused."""
    if boundary is not None:
        assert boundary_of(content_type) == boundary
        return
    with pytest.raises(InvalidRequest):
        boundary_of(content_type)
