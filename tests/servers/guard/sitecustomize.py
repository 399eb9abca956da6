"""Writes down whatever a process connects to or looks up, in the file ``$VACC_TEST_CONNECTIONS``: put it on PYTHONPATH."""

import os
import sys

_WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_file = os.open(os.environ["VACC_TEST_CONNECTIONS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(event: str, arguments: tuple) -> None:
    if event in _WATCHED:
        address = arguments[:2] if event == "socket.getaddrinfo" else arguments[-1]
        os.write(_file, f"{event} {address!r}\n".encode())


sys.addaudithook(_note)
