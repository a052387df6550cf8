"""`main.py doctor`: checks settings, site, nonce and one message."""

import argparse
import asyncio

from app import doctor
from app.settings import load_settings


def run(options: argparse.Namespace) -> int:
    """Say what works; returns the exit status."""
    return asyncio.run(doctor.run(load_settings(), find_limit=options.limit))
