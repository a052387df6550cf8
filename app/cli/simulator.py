"""`main.py simulator`: the simulated site alone."""

import argparse
import asyncio
import contextlib

from simulator.live import serve
from simulator.openai_api import API_PATH
from simulator.site import Site


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop, and return the exit status."""
    host, port = options.host or "127.0.0.1", 8090 if options.port is None else options.port
    print(f"CHAT_PAGE_URL=http://{host}:{port}/chat/")
    print(f"MOONSHOT_BASE_URL=http://{host}:{port}{API_PATH}\nMOONSHOT_API_KEY=sk-simulated", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(serve(Site(), host, port))
    return 0
