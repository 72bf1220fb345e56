"""Addresses of this machine: what listens on them, and by which interface processes of several machines talk."""

import errno
import os
import socket
from contextlib import suppress
from typing import Any

import psutil

from surefoot.base import limits
from surefoot.base.errors import UserError
from surefoot.run.processes.wanted import RENDEZVOUS, Place

LOOPBACK = "127.0.0.1"


def listen_at(host: str, port: int = 0) -> socket.socket:
    """A socket that listens at an address of this machine; with port 0 at a free one.

    Raises:
        OSError: it can't; `socket.gaierror` or UnicodeError: there is no such host.
    """
    family, _, _, _, address = _addresses_of(host, port)[0]
    return socket.create_server(address[:2], family=family)


def listen_for_machines(place: Place) -> socket.socket:
    """A socket that listens at the place where machines meet.

    Raises:
        UserError: it is no address of this machine, or one that only this machine reaches; its port is in use.
    """
    try:
        address = _addresses_of(place.host)[0][4][0]
        if interface_of(address) is None:
            raise UserError(f"{RENDEZVOUS}: {place.host} is no address of this machine")
        if address.startswith("127.") and place.host not in (address, "localhost"):  # as Debian has its own name
            raise UserError(
                f"{RENDEZVOUS}: {place.host} is {address} here, which no other machine reaches; take an address"
            )
        return listen_at(*place)
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"port {place.port} is in use; take another one, or end what listens there",
            errno.EADDRNOTAVAIL: f"{place.host} is no address of this machine",
        }.get(error.errno or 0, f"{place}: {limits.system_reason(error)}")
        raise UserError(f"{RENDEZVOUS}: {why}") from None
    except UnicodeError as error:
        raise UserError(f"{RENDEZVOUS}: {place}: {no_host(error)}") from None


def no_host(error: socket.gaierror | UnicodeError) -> str:
    """Why there is no such host; a name with an empty part, or a very long one, isn't even asked for."""
    return "no host can have this name" if isinstance(error, UnicodeError) else error.strerror or str(error)


def interface_of(address: str) -> str | None:
    """The name of the network interface that has an address; None where none has it."""
    for name, found in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address.partition("%")[0] for one in found):
            return str(name)
    # All of 127.0.0.0/8 is the machine itself, and only the first has a name.
    return interface_of(LOOPBACK) if address.startswith("127.") and address != LOOPBACK else None


def talk_by(address: str) -> None:
    """Let the processes that are launched talk to others by the interface of this address, or of this name's, unless
    the user chose one.
    """
    with suppress(OSError):  # where the system doesn't tell
        if name := interface_of(_addresses_of(address)[0][4][0]):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _addresses_of(host: str, port: int = 0) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
