"""No secret is ever logged: each test's part of the log is searched when the test ends, which is tried out here."""

from pathlib import Path

import httpx
import pytest

from simulator.live import LiveSimulator
from tests.conftest import RunLog
from tests.live import ALICE_KEY


def test_what_is_searched_is_the_log(client: httpx.Client, run_log: RunLog) -> None:
    """The file that is searched after each test has the line of a request that was just answered."""
    begin = run_log.path.stat().st_size
    client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    run_log.stream.flush()
    assert b'"path":"/v1/chat/completions"' in run_log.path.read_bytes()[begin:]


@pytest.mark.parametrize("kind", ["key", "nonce"])
def test_a_secret_in_the_log_is_found(site: LiveSimulator, client: httpx.Client, tmp_path: Path, kind: str) -> None:
    """A test whose gateway logs a key, or a nonce that the site handed out meanwhile, fails."""
    client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    (nonce,) = site.site.issued_nonces
    log = RunLog(tmp_path / "gateway.log")
    guard = log.keeps_secrets_of(site)
    with log.stream, pytest.raises(AssertionError, match="secrets in the log"), guard:
        log.stream.write(f"innocent words, {ALICE_KEY if kind == 'key' else nonce}")
