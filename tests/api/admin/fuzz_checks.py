"""What must be true of every response of the admin API, said to schemathesis, which loads this module by its name."""

import json
import os
import re
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from app.domain.caller import caller_of_key
from tests.fuzzing import KEY, OWN_KEY, PERSON
from tests.live import ALICE_KEY

# What made-up names are replaced by, for every second request.
_KNOWN = {"scope": "gateway", "name": "kimi-web"}
_FIXED: dict[str, Any] = {
    "limits": "60 requests/minute",
    "last": "1h",
    "grace": "1h",
    "expires_at": None,
    "data": [],
    "key_id": caller_of_key(ALICE_KEY).id,  # which can't be revoked meanwhile
    "duration": "1h",
}
# Made-up upstreams are at no other address, whatever else is said of them, and are asked once.
_NOWHERE = {"base_url": "http://127.0.0.1:9/v1", "preset": None, "retries": 0}


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Leads every second made-up request, as it is counted by its size, past the first refusal."""
    given = case.path_parameters or {}
    # schemathesis also takes ids from answers: with its own it would shut itself out.
    if "key_id" in given and (len(str(given["key_id"])) % 2 == 0 or given["key_id"] == os.environ[OWN_KEY]):
        given["key_id"] = os.environ[KEY]
    for name, known in {**_KNOWN, "person_id": os.environ[PERSON]}.items():
        if name in given and len(str(given[name])) % 2 == 0:
            given[name] = known
    body: Any = case.body
    if isinstance(body, dict) and case.path.endswith(("/upstreams", "/upstreams/{name}", "/probe")):
        case.body = body = {**body, **_NOWHERE}
    if isinstance(body, dict) and len(str(body)) % 2 == 0:
        body = {name: _FIXED.get(name, value) for name, value in body.items()}
        case.body = body
    if isinstance(body, dict) and body.get("disabled") is True:
        body["disabled"] = False  # no link could be made any more


# Where what is made up isn't there, or only if it was recorded.
_OF_SOME = ("_id}", "name}", "/texts", "/stop")


def _header(response: Response, name: str) -> str:
    return ", ".join(response.headers.get(name, []))


@schemathesis.check
def errors_come_in_the_envelope(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Whatever is not a success is the error object and nothing else."""
    if response.status_code < 300 or case.method == "HEAD":
        return
    assert _header(response, "content-type") == "application/json"
    document = json.loads(response.content)
    assert list(document) == ["error"]
    assert list(document["error"]) == ["message", "type", "param", "code"]
    assert document["error"]["message"]
    assert document["error"]["type"] == "invalid_request_error"


@schemathesis.check
def every_response_has_an_id_and_is_nobody_else_s(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Every response says by which id it is found in the log, and is kept by no cache."""
    assert len(_header(response, "x-request-id")) >= 8
    assert _header(response, "cache-control") == "no-store"


@schemathesis.check
def secrets_are_shown_by_who_makes_them_only(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Only the answers that make a key, a secret or a link have one."""
    if response.status_code < 300 and not (case.method == "POST" and case.path.endswith(("/keys", "/rotate"))):
        assert not re.search(rb"sk-kimi-\w{38}", response.content)
    if response.status_code < 300 and not case.path.endswith("/link"):
        assert b"/console/sign-in#" not in response.content


@schemathesis.check
class everything_was_reached:  # noqa: N801 - named like the other checks in the report
    """The run was worth something: all addresses have answered well."""

    def __init__(self) -> None:
        self._tested: set[str] = set()
        self._reached: set[str] = set()

    def after_response(self, _: CheckContext, response: Response, case: Case[Any]) -> None:
        """Note what was answered."""
        self._tested.add(case.operation.label)
        # A made-up request, session, login, recording or upstream isn't there.
        if response.status_code < 300 or (response.status_code == 404 and case.path.endswith(_OF_SOME)):
            self._reached.add(case.operation.label)

    def after_run(self, _: CheckContext) -> None:
        """Look whether anything is missing."""
        if missing := self._tested - self._reached:
            raise AssertionError(f"never seen: {', '.join(sorted(missing))}")
