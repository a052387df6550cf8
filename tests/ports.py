"""Ports for programs that have to be told theirs before they listen."""

import secrets
import socket

# Below what systems hand out for outgoing connections, so that nobody takes a port between its choice and its use.
_FIRST = 20_000
_LAST = 32_000


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports at which nobody listens. Chosen at random: test runs may overlap."""
    while True:
        first = _FIRST + secrets.randbelow(_LAST - _FIRST - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
