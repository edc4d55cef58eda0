"""What every server of lite needs: an address to listen on, and the names by which it may be asked for."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from lite.schema import LiteError

LOCAL = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: any that is free.

    Raises:
        LiteError: The address is taken, or is not one of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise cannot_listen(host, port, error) from error


def cannot_listen(host: str, port: int, error: OSError) -> LiteError:
    reason = error.strerror or "another program has taken it"  # Gradio's has no strerror
    return LiteError(f"Cannot listen on {host}:{port} ({reason}). Give another --port, or a --host of this machine.")


def url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def own_names(host: str) -> set[str]:
    """What a server that listens on `host` is called, lower-case."""
    name = socket.gethostname().lower()
    return {*LOCAL, host.lower()} if host in LOCAL else {*LOCAL, host.lower(), name, f"{name}.local"}


def name_of(host: str) -> str:
    """The name or address in a Host header, lower-case, without brackets and port; empty where it is none."""
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:[0-9]{1,5})?", host):
        return ""
    return urlsplit(f"//{host}").hostname or ""


def is_address(name: str) -> bool:
    """Whether it is written as numbers, not as a name that somebody could point here."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an Origin header is that of a page of this server, by the same name and port as the Host header."""
    scheme, _, rest = origin.partition("://")
    default = ":443" if scheme == "https" else ":80"
    same = rest.lower().removesuffix(default) == host.lower().removesuffix(default)
    return scheme in ("http", "https") and same
