"""No secret is ever logged. Runs last, over the log of the whole test run."""

from typing import TextIO

import httpx

from simulator.live import LiveSimulator
from tests.conftest import RunLog
from tests.live import ALICE_KEY, BOB_KEY, UPSTREAM_KEY


def test_the_log_of_the_whole_run_holds_no_key_and_no_nonce(
    client: httpx.Client, site: LiveSimulator, run_log: RunLog, log_stream: TextIO
) -> None:
    """Neither API keys nor nonces are in anything that the gateways of this test run have logged at level DEBUG."""
    client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    log_stream.flush()
    text = run_log.path.read_text(encoding="utf-8")
    assert '"path":"/v1/chat/completions"' in text
    secrets = {ALICE_KEY, BOB_KEY, UPSTREAM_KEY, *run_log.nonces, *site.site.issued_nonces}
    assert len(secrets) > 2
    assert [secret for secret in secrets if secret in text] == []
