"""Finds the fields of a multipart form in what passes by of it, and keeps nothing else of it. Pure.

The form is passed on byte for byte, but for the name of the model. So what is read here has to be what any upstream
reads: whatever two readers could take differently is refused, and so is a second model.
"""

import re
from typing import Literal

from msgspec import Struct

from app.api.wire.other_models import may_hold_models, other_models_refused
from app.domain.errors import InvalidRequest

_TYPE = re.compile(r'multipart/form-data\s*;\s*boundary=(?:"([^"\\]{1,70})"|([^\s;,"]{1,70}))\s*', re.IGNORECASE)
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=?-]{1,70}")
_DISPOSITION = re.compile(
    rb'content-disposition[ \t]*:[ \t]*form-data[ \t]*;[ \t]*name="([^"\\%\s]{1,200})"'
    rb'(?P<file>[ \t]*;[ \t]*filename=(?:"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"|[^\s";]+))?'
    rb'(?:[ \t]*;[ \t]*filename\*=[^\s";]+)?[ \t]*',
    re.IGNORECASE,
)
_OTHER_HEADER = re.compile(
    rb"content-(?:(?:type|length)[ \t]*:[^\r\n]*|transfer-encoding[ \t]*:[ \t]*(?:7bit|8bit|binary)[ \t]*)",
    re.IGNORECASE,
)
_OTHER_CHARSET = re.compile(rb'charset[ \t]*+=[ \t]*+(?!"?(?:utf-?8|us-ascii))', re.IGNORECASE)
_LONGEST_HEAD = 8 * 1024
_LONGEST_FIELD = 1024
_MOST_PARTS = 200
# What is looked at, without regard to case: an upstream may have none either.
_READ = ("model", "stream")


class Span(Struct, frozen=True):
    """Where in a form the value of a field is."""

    begin: int
    end: int


class FormScanner:
    """Reads a form as it comes.

    Args:
        boundary: Between its parts.

    Attributes:
        values: The values of the fields that are looked at, as far as they have come.
        model: Where the model's name is; None while it has not come.
        in_file: Whether a file has begun: what comes from here on may be large.
        ended: Whether the form's end has come.
    """

    def __init__(self, boundary: str) -> None:
        self._delimiter = f"\r\n--{boundary}".encode()
        # The first boundary has no line before it.
        self._rest = b"\r\n"
        self._at = -2
        self._state: Literal["first", "line", "head", "data", "end"] = "first"
        self._field = ""
        self._value = b""
        self._begin = 0
        self._parts = 0
        self.values: dict[str, str] = {}
        self.model: Span | None = None
        self.in_file = False
        self.ended = False

    def feed(self, piece: bytes) -> None:
        """Take more of the form in.

        Raises:
            InvalidRequest: It is no form, or one that could be taken differently.
        """
        self._rest += piece
        while self._step():
            pass

    def finish(self) -> None:
        """Check that the form has come to its end.

        Raises:
            InvalidRequest: It hasn't.
        """
        if not self.ended:
            raise _malformed("it ends before its last boundary")

    def _step(self) -> bool:
        """Read on; False if that takes more of the form."""
        match self._state:
            case "first":
                return self._read_first()
            case "line":
                return self._read_line()
            case "head":
                return self._read_head()
            case "data":
                return self._read_data()
            case _:
                if self._rest.strip(b"\r\n\t "):
                    raise _malformed("something follows its end")
                self._drop(len(self._rest))
                return False

    def _read_first(self) -> bool:
        if len(self._rest) < len(self._delimiter):
            return False
        if not self._rest.startswith(self._delimiter):
            raise _malformed("it doesn't begin with its boundary")
        self._drop(len(self._delimiter))
        self._state = "line"
        return True

    def _read_line(self) -> bool:
        """Read what follows a boundary: the end of its line, or of the form."""
        if len(self._rest) < 2:
            return False
        if self._rest.startswith(b"--"):
            self._state, self.ended = "end", True
        elif self._rest.startswith(b"\r\n"):
            self._state = "head"
            self._parts += 1
            if self._parts > _MOST_PARTS:
                raise _malformed(f"it has more than {_MOST_PARTS} parts")
        else:
            raise _malformed("a boundary is not the end of its line")
        self._drop(2)
        return True

    def _read_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
        if end < 0:
            if len(self._rest) >= _LONGEST_HEAD:
                raise _malformed("a part has too many headers")
            return False
        head = self._rest[:end]
        name, is_file = _named(head)
        self._drop(end + 4)
        field = name.lower().partition("[")[0]
        if field == "model" and (is_file or "model" in self.values or _OTHER_CHARSET.search(head)):
            raise InvalidRequest("The form must name one model, in one field of plain text.", param="model")
        if may_hold_models(field):
            raise other_models_refused(name)
        self._field = field if field in _READ and not is_file else ""
        self.in_file = self.in_file or is_file
        self._value, self._begin, self._state = b"", self._at, "data"
        return True

    def _read_data(self) -> bool:
        # Some readers take it for a boundary wherever it stands.
        place = self._rest.find(self._delimiter[2:])
        if place >= 0 and not self._rest.startswith(self._delimiter, max(place - 2, 0)):
            raise _malformed("its boundary stands within a part")
        end = place - 2 if place >= 0 else -1
        size = end if end >= 0 else max(len(self._rest) - len(self._delimiter) + 1, 0)
        if self._field:
            self._value += self._rest[:size]
            if len(self._value) > _LONGEST_FIELD:
                raise InvalidRequest(f"The field {self._field} is too long.", param=self._field)
        self._drop(size)
        if end < 0:
            return False
        if self._field:
            self.values[self._field] = self._value.decode("utf-8", "replace")
            if self._field == "model":
                self.model = Span(self._begin, self._at)
        self._drop(len(self._delimiter))
        self._state = "line"
        return True

    def _drop(self, size: int) -> None:
        self._rest = self._rest[size:]
        self._at += size


def boundary_of(content_type: str) -> str:
    """The boundary that a form's type names.

    Raises:
        InvalidRequest: It is no form's type, or names none.
    """
    found = _TYPE.fullmatch(content_type.strip())
    boundary = (found[1] or found[2]) if found else ""
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("The request must be a form: Content-Type: multipart/form-data with a boundary.")
    return boundary


def _named(head: bytes) -> tuple[str, bool]:
    """The name of a part, and whether it is a file."""
    found = None
    for line in head.split(b"\r\n"):
        if not line.strip():
            continue
        disposition = _DISPOSITION.fullmatch(line)
        if disposition is not None and found is None:
            found = disposition
        elif not _OTHER_HEADER.fullmatch(line):
            raise _malformed("a part has headers that it can't have")
    if found is None:
        raise _malformed("a part has no name")
    return found[1].decode("utf-8", "replace"), found["file"] is not None


def _malformed(reason: str) -> InvalidRequest:
    return InvalidRequest(f"The request body could not be read as a form: {reason}.")
