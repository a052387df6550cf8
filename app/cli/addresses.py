"""Addresses as browsers on this machine see them."""

# Where everybody can be reached who listens at all of a machine's addresses, or at its own.
_LOCAL_HOSTS = frozenset({"", "0.0.0.0", "127.0.0.1", "::", "::1"})  # noqa: S104 - compared, not listened at


def shown_host(host: str) -> str:
    """A host as it stands in URLs."""
    if host in _LOCAL_HOSTS:
        return "localhost"
    return f"[{host}]" if ":" in host else host
