"""Open WebUI as installed, in a real browser, in front of the site alone: `./dev apps`.

It prints a line for each check and ends with 1 if one fails. The screenshots stay in a temporary folder.
"""

import base64
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import Browser, Error, FilePayload, Page, sync_playwright

from tests.apps.programs import Place, running

LIMIT = 1000
_WAIT_MS = 30_000
_NAME_TOLD = "Hello! My name is Ada."
_NAME_ASKED = "What is my name?"
_NAMED = "Your name is Ada."
_TITLE = "Hello Name"  # the simulator's, of the first message
_PASTED = "Roses like sun, and soil that water leaves quickly. " * 35
# One white pixel.
_PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+ip1sAAAAASUVORK5CYII=")
# Keeps every length that the last answer has had on the page.
_WATCH = """() => {
    window.lengths = [];
    const look = () => {
        const answer = [...document.querySelectorAll('#response-content-container')].at(-1);
        const length = answer ? answer.innerText.length : 0;
        if (length !== window.lengths.at(-1)) window.lengths.push(length);
    };
    window.watcher?.disconnect();
    window.watcher = new MutationObserver(look);
    window.watcher.observe(document.body, {childList: true, subtree: true, characterData: true});
}"""

# Whether the last answer has ended, and is one to this message. The app keeps only what is in view on the page.
_ENDED = """words => {
    const [message, answer] = [...document.querySelectorAll('[class*=message-listitem]')].slice(-2);
    return answer?.querySelector('.chat-assistant') && answer.querySelector('.copy-response-button')
        && message.querySelector('.chat-user')?.innerText.includes(words)
        && !document.querySelector('button[aria-label=Stop]');
}"""


class Chat:
    """A person at the app's page."""

    def __init__(self, page: Page, place: Place, shots: Path) -> None:
        self.page = page
        self.place = place
        self._shots = shots

    def sign_up(self) -> None:
        """Make the first account, as a newcomer does."""
        self.page.goto(self.place.open_webui_url)
        self.page.get_by_role("button", name="Get started").click()
        self.page.locator("input#name").fill("Ada")
        self.page.locator("input#email").fill("ada@example.com")
        self.page.locator("input#password").fill("correct horse battery")
        self.page.locator("button[type=submit]").click()
        self.page.get_by_role("button", name="Okay, Let's Go!").click()

    def choose_model(self) -> None:
        """Pick the site's model from the app's list."""
        self.page.locator("#model-selector-model-button").click()
        self.page.get_by_role("option", name="Select kimi model", exact=True).click()
        self.page.get_by_role("button", name="Selected model: kimi").wait_for()

    def start_anew(self) -> None:
        """Begin another chat with the same model."""
        self.page.goto(f"{self.place.open_webui_url}/?models=kimi")
        self.page.get_by_role("button", name="Selected model: kimi").wait_for()

    def say(self, text: str) -> str:
        """Send a message, and return the answer or the error as the person reads it."""
        self.send(text)
        return self.answer_to(text)

    def send(self, text: str) -> None:
        """Send a message, as pasted."""
        self.page.locator("#chat-input").click()
        self.page.keyboard.insert_text(text)
        self.page.keyboard.press("Enter")

    def answer_to(self, text: str) -> str:
        """The answer to the last message when it has ended."""
        self.page.wait_for_function(_ENDED, arg=text[:40])
        answer: str = self.page.locator(".chat-assistant").last.inner_text()
        return answer

    def shot(self, name: str) -> None:
        """Keep what the page looks like."""
        self.page.screenshot(path=self._shots / f"{name}.png")


def streams(chat: Chat) -> str:
    """An answer grows piece by piece."""
    chat.page.evaluate(_WATCH)
    told = chat.say(_NAME_TOLD)
    lengths: list[int] = chat.page.evaluate("window.lengths")
    growing = [after for before, after in pairwise(lengths) if after > before]
    assert _NAME_TOLD in told, told
    assert len(growing) >= 3, lengths
    return f"seen at {len(growing)} lengths: {lengths}"


def gets_a_title(chat: Chat) -> str:
    """The chat's title is one that the model made, and not the message."""
    chat.page.wait_for_function(f"document.title.startsWith({_TITLE!r})")
    title: str = chat.page.title()
    return title


def remembers_for_ten_turns(chat: Chat) -> str:
    """A name told in the first turn is known in the tenth."""
    for turn in range(2, 10):
        chat.say(f"And what should I do in the garden in month {turn}, if it is as dry as it was last year?")
    answer = chat.say(_NAME_ASKED)
    assert _NAMED in answer, answer
    return _NAMED


def stops(chat: Chat) -> str:
    """The button ends an answer where it is, and the chat goes on."""
    chat.start_anew()
    chat.say(_NAME_TOLD)
    chat.send("Count to 5000")
    chat.page.wait_for_function("[...document.querySelectorAll('.chat-assistant')].at(-1)?.innerText.includes('1 2 3')")
    # A click would wait until the button keeps still, which it does when the answer has ended.
    chat.page.locator("button[aria-label=Stop]").dispatch_event("click")
    stopped = chat.answer_to("Count to 5000")
    assert "5000" not in stopped, stopped[-100:]
    answer = chat.say(_NAME_ASKED)
    assert _NAMED in answer, answer
    return f"after {len(stopped)} characters; then: {_NAMED}"


def regenerates(chat: Chat) -> str:
    """Another answer to the same message takes the place of the last one."""
    chat.page.get_by_role("button", name="Regenerate").last.dispatch_event("click")
    chat.page.get_by_text("Try Again").click()
    chat.page.get_by_text("2/2").wait_for()
    answer = chat.answer_to(_NAME_ASKED)
    assert _NAMED in answer, answer
    return f"2/2: {_NAMED}"


def edits(chat: Chat) -> str:
    """An edited message is answered as it now is, with what was said before it."""
    edited = "Please tell me once more: what is my name?"
    # The button shows up when the pointer is near.
    chat.page.locator(".edit-user-message-button").last.dispatch_event("click")
    chat.page.locator("textarea[id^=message-edit]").fill(edited)
    chat.page.locator("#confirm-edit-message-button").click()
    answer = chat.answer_to(edited)
    assert _NAMED in answer, answer
    return _NAMED


def refuses_what_is_too_long(chat: Chat) -> str:
    """The error for a long paste says how long it is, what fits and what to do; and the chat goes on."""
    error = chat.say(_PASTED)
    for words in (f"{len(_PASTED.strip())} characters", f"{LIMIT}", "smaller parts"):
        assert words in error, error
    chat.shot("too-long-error")
    answer = chat.say(_NAME_ASKED)
    assert _NAMED in answer, answer
    return error.replace("\n", " ")


def refuses_an_image(chat: Chat) -> str:
    """The error for an image says that only text is read; and the chat goes on."""
    picture: FilePayload = {"name": "white.png", "mimeType": "image/png", "buffer": _PNG}
    chat.page.set_input_files("input[type=file][multiple]", files=[picture])
    chat.page.get_by_role("button", name="Remove").wait_for(state="attached")
    error = chat.say("What is in this picture?")
    assert "text only, not images" in error, error
    chat.shot("image-error")
    answer = chat.say(_NAME_ASKED)
    assert _NAMED in answer, answer
    return error.replace("\n", " ")


def keeps_within_the_limit(chat: Chat) -> str:
    """Nothing that the site was sent is longer than it takes."""
    sizes = [prompt["characters"] for prompt in chat.place.prompts()]
    refused = [prompt for prompt in chat.place.prompts() if prompt["outcome"] not in ("accepted", "abandoned")]
    assert max(sizes) <= LIMIT, sizes
    assert refused == [], refused
    return f"{len(sizes)} prompts, the longest of {max(sizes)} characters"


_CHECKS: Sequence[Callable[[Chat], str]] = (
    *(streams, gets_a_title, remembers_for_ten_turns, stops, regenerates, edits),
    *(refuses_what_is_too_long, refuses_an_image, keeps_within_the_limit),
)


@dataclass(frozen=True, slots=True)
class _Result:
    passed: bool
    told: str


def _try(check: Callable[[Chat], str], chat: Chat) -> _Result:
    try:
        return _Result(passed=True, told=check(chat))
    except (AssertionError, Error) as error:
        return _Result(passed=False, told=f"{check.__doc__}\n     {error}")
    finally:
        chat.shot(check.__name__)


def _chat_with(browser: Browser, place: Place, shots: Path) -> Chat:
    page = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-US").new_page()
    page.set_default_timeout(_WAIT_MS)
    return Chat(page, place, shots)


def main() -> int:
    """Check everything, and return the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="open-webui-"))
    print(f"Open WebUI {version('open-webui')}; screenshots, logs and data are in {folder}", flush=True)
    began = time.monotonic()
    with (
        running(folder) as place,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"]) as browser,
    ):
        chat = _chat_with(browser, place, folder)
        chat.sign_up()
        chat.choose_model()
        chat.shot("new-chat")
        print(f"started in {place.open_webui_seconds:.0f} s, ready to chat after {time.monotonic() - began:.0f} s")
        failed = 0
        for check in _CHECKS:
            result = _try(check, chat)
            failed += not result.passed
            print(f"{'ok  ' if result.passed else 'FAIL'} {check.__name__}: {result.told}", flush=True)
    print(f"{len(_CHECKS) - failed} passed, {failed} failed in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
