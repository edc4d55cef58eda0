"""Notes every connection and name look-up of a Python process that has this folder in PYTHONPATH.

Each line of the file that CONNECTIONS names is `event <tab> address <tab> the innermost calls`. Sockets of this machine
(loopback addresses, files) are left out. Child processes inherit the environment, so they are watched, too.
"""

import ipaddress
import os
import sys
import traceback

EVENTS = {
    "socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0,
}  # fmt: skip


def is_local(address) -> bool:
    host = address[0] if isinstance(address, tuple) else address
    if host is None or not isinstance(address, tuple | str | bytes):
        return True  # the wildcard, or the connected end of a pair
    if not isinstance(address, tuple) and not isinstance(host, str):
        return True  # a path of a Unix socket
    host = host.decode() if isinstance(host, bytes) else host
    if host in ("", "localhost") or host.startswith(("/", "\0")):
        return True
    try:
        found = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return found.is_loopback or found.is_unspecified


def note(event: str, arguments: tuple) -> None:
    if event not in EVENTS or is_local(arguments[EVENTS[event]]):
        return
    calls = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[-12:-1][::-1])
    with open(os.environ["CONNECTIONS"], "a", encoding="utf-8") as file:
        file.write(f"{event}\t{arguments[EVENTS[event]]}\t{calls}\n")


if "CONNECTIONS" in os.environ:
    sys.addaudithook(note)
