"""An upstream with several keys, one of which it refuses, behind the whole gateway."""

from simulator.live import LiveSimulator
from tests.conftest import StartGateway

WRONG, RIGHT = "sk-wrong-51c0de", "sk-right-4711ab"


def test_a_key_that_is_refused_is_named_while_answers_go_on(site: LiveSimulator, start_gateway: StartGateway) -> None:
    """Clients notice nothing; `/ready` says which key it is, and shows none."""
    site.site.update(api_key=RIGHT)
    settings = {"moonshot_api_key": f"{WRONG},{RIGHT}", "moonshot_base_url": site.api_url}
    with start_gateway(**settings) as gateway, gateway.client() as http:
        for stream in (False, True):
            body = {"model": "moonshot/simulated-small", "messages": [{"role": "user", "content": "Hello"}]}
            reply = http.post("/v1/chat/completions", json={**body, "stream": stream})
            assert reply.status_code == 200, reply.text
        ready = http.get("/ready")
    assert "'keys_refused': 'MOONSHOT_API_KEY 1'" in str(ready.json())
    assert WRONG not in ready.text
    assert RIGHT not in ready.text
