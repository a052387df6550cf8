"""`main.py demo`: the gateway in front of a simulated site; needs no network and no settings."""

import argparse
import secrets
import sys
import textwrap
from collections.abc import Mapping

from app.assembly.app import create_app
from app.cli.serve import run_server
from app.cli.supervisor import is_free
from app.providers.openai_compatible.presets import PRESETS, Preset
from app.settings import load_settings
from simulator.behaviour import Behaviour
from simulator.live import running

_SIMULATED_LATENCY = 0.4


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop, and return the exit status."""
    given = load_settings(_env_file=None, auth_disabled=True)
    port = given.cluster.nginx_port if options.port is None else options.port
    if not is_free(f"{options.host or '127.0.0.1'}:{port}"):
        print(f"Port {port} is taken: choose another one with --port.", file=sys.stderr)
        return 1
    with running(Behaviour(latency_s=_SIMULATED_LATENCY)) as site:
        key = given.access.api_keys[0] if given.access.api_keys else f"sk-demo-{secrets.token_hex(12)}"
        settings = load_settings(
            _env_file=None,
            api_master_key=key,
            auth_disabled=False,
            chat_page_url=site.page_url,
            upstream_url=site.ajax_url,
            **simulated_upstreams(site.api_url, given.models.of_site),
            log_format="pretty",
            log_level="WARNING",
            api_host=options.host or "127.0.0.1",
            api_port=port,
        )
        print(_demo_text(f"http://localhost:{settings.listening.port}/v1", key, site.base_url), flush=True)
        return run_server(create_app(settings), settings)


def simulated_upstreams(api_url: str, default_model: str, presets: Mapping[str, Preset] = PRESETS) -> dict[str, object]:
    """Settings with which nothing that the environment names is asked, and a simulator stands in for Moonshot's API."""
    switches = [variable.lower() for preset in presets.values() for variable in preset.variables.values()]
    route = f"kimi-web/{default_model}>moonshot/kimi-k2-0905-preview"
    return {
        **dict.fromkeys(switches, ""),
        "providers_file": None,
        "providers": "",
        "moonshot_api_key": "sk-simulated",
        "moonshot_base_url": api_url,
        # A request without a model asks for the default one.
        "model_routes": ",".join([f"{name}={route}" for name in dict.fromkeys(("kimi", default_model))]),
    }


def _demo_text(base_url: str, key: str, site: str) -> str:
    return textwrap.dedent(f"""\
        kimi-ai-2api demo: the gateway, with a simulator in place of the Kimi site ({site}). Ctrl+C ends it.

          base URL  {base_url}
          API key   {key}

        Try it in another terminal:

          curl -N {base_url}/chat/completions \\
            -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\
            -d '{{"stream": true, "user": "me", "messages": [{{"role": "user", "content": "Hello, my name is Ada."}}]}}'

        Then ask "What is my name?" with the same "user": the session remembers.
        A message too long for the site is answered by a simulated second upstream (X-Provider: moonshot).
        """)
