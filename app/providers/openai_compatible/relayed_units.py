"""What an answer that is passed on tells of besides tokens: images, seconds of audio, searches. Pure.

Nobody here reads the whole of it: an answer may have megabytes of images, which go to the client as they come.
"""

import math
import re
from collections.abc import Iterable

from app.domain.units import Unit

# A list of images begins, or an image is there, in one of two forms. Some upstreams tell the same images in both, or in
# two lists.
_IMAGES = re.compile(rb'"(?:(data|images)"\s{0,20}:\s{0,20}\[|(b64_json)"\s{0,20}:\s{0,20}"|(url)"\s{0,20}:\s{0,20}")')
_IMAGE_EVENT = re.compile(rb'"type"\s{0,20}:\s{0,20}"image_(?:generation|edit)\.completed"')
# What the end of a part may have of them.
_LONGEST = 96
_SECONDS = re.compile(rb'"(?:seconds|duration)"\s*:\s*"?(\d{1,9}(?:\.\d{1,30})?)[",}\s]')
# The times of a caption, in SubRip or WebVTT; of the second one, hours, minutes and seconds. A hundred hours of speech
# are no upload.
_CAPTION = re.compile(
    rb"^(?:\d\d:)?[0-5]\d:[0-5]\d[.,]\d{3}[ \t]{1,9}-->[ \t]{1,9}(?:(\d\d):)?([0-5]\d):([0-5]\d[.,]\d{3})\b",
    re.MULTILINE,
)
_SEARCHES = re.compile(rb'"search_units"\s*:\s*(\d{1,9})[,}\s.]')


class ImageCounter:
    """Counts the images of an answer.

    Args:
        is_events: Whether it is a stream of events, of which some have images that aren't done yet.

    Attributes:
        count: Those that have come.
    """

    def __init__(self, *, is_events: bool) -> None:
        self._is_events = is_events
        self._rest = b""
        self._forms = {b"b64_json": 0, b"url": 0}
        self.count = 0

    def feed(self, part: bytes) -> None:
        """Take a part in."""
        if b'"' not in part and b'"' not in self._rest:
            self._rest = b""  # in the middle of an image
            return
        text = self._rest + part
        end = 0
        for found in (_IMAGE_EVENT if self._is_events else _IMAGES).finditer(text):
            end = found.end()
            self._note(found)
        self._rest = text[max(end, len(text) - _LONGEST) :]

    def _note(self, found: re.Match[bytes]) -> None:
        if self._is_events:
            self.count += 1
        elif found[1]:
            self._forms = dict.fromkeys(self._forms, 0)
        else:
            form = found[2] or found[3]
            self._forms[form] += 1
            self.count = max(self.count, self._forms[form])


def amount_in(unit: Unit, windows: tuple[bytes, ...]) -> int:
    """How much of a unit an answer tells of; 0 if it tells nothing.

    Args:
        windows: Parts of the answer, those first that are to be believed first.
    """
    for window in windows:
        if unit == "audio_seconds" and (told := _SECONDS.search(window)) is not None:
            return math.ceil(float(told[1]))
        if unit == "searches" and (told := _SEARCHES.search(window)) is not None:
            return int(told[1])
    return 0


def captions_end(windows: Iterable[bytes]) -> int:
    """The second in which the last caption of a transcript ends, begun ones counting as whole; 0 if it has none.

    What was spoken lasts at least that long: there may be silence behind it.

    Args:
        windows: Parts of the answer.
    """
    ends = [
        int(found[1] or 0) * 3600 + int(found[2]) * 60 + float(found[3].replace(b",", b"."))
        for window in windows
        for found in _CAPTION.finditer(window)
    ]
    return math.ceil(max(ends, default=0.0))
