"""One answer of a web server: within a deadline, and from a public address.

In: an address and when to give up. Out: the response, its body still to be read. The deadline holds
for all of it: connecting, each header, each redirect, each piece of the body, however they drip.
A name is resolved here, and the connection made to the very address that was looked at, at each
redirect anew: no server can lead to what only this machine or its network can reach. A proxy that
the environment names is trusted; it resolves names itself.
"""

import io
import ipaddress
import socket
import time
import urllib.parse
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
    getproxies,
    proxy_bypass,
)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_SCHEMES = ("http", "https")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotPublicError(Exception):
    """An address that only this machine or its network can reach."""


class WrongRedirectError(Exception):
    """A redirect to another protocol, to nowhere, or in a circle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """When an answer is given up."""

    deadline: float
    """By `time.monotonic`."""
    silence_s: float
    """Longest wait for anything to come."""

    @property
    def next_s(self) -> float:
        """How long may still be waited for the next piece.

        Raises:
            TimeoutError: no longer.
        """
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline is past")
        return min(remaining, self.silence_s)

    @property
    def is_past(self) -> bool:
        return time.monotonic() >= self.deadline


def open_url(url: str, patience: Patience, *, allow_private: bool) -> HTTPResponse:
    """Return what an address answers, redirects followed.

    Args:
        url: http or https, in ASCII.
        patience: when to give up.
        allow_private: whether addresses may be asked that are not public.

    Raises:
        HTTPError: a status that is no success.
        NotPublicError, WrongRedirectError: of this address, or of one that it leads to.
        OSError, HTTPException: no connection, or no proper answer; TimeoutError: too slow.
    """
    for _ in range(_MAX_REDIRECTS):
        request = Request(url, headers={"User-Agent": "smolvlm"})
        is_proxied = _is_proxied(request)
        if is_proxied and not allow_private:
            _check_name(urllib.parse.urlsplit(url).hostname or "")
        opener = _opener(patience, allow_private=allow_private or is_proxied)
        try:
            return opener.open(request, timeout=patience.next_s)
        except HTTPError as error:
            target = error.headers.get("Location") if error.code in _REDIRECTS else None
            if target is None:
                raise
            error.close()
            url = _redirected(url, target)
    raise WrongRedirectError(f"more than {_MAX_REDIRECTS} redirects")


def _redirected(url: str, target: str) -> str:
    target = urllib.parse.quote(target, safe="%/:=&?~#+!$,;'@()*[]|")
    joined = urllib.parse.urljoin(url, target)
    scheme = urllib.parse.urlsplit(joined).scheme
    if scheme not in _SCHEMES:
        raise WrongRedirectError(f"a redirect to another protocol, {scheme[:40]!r}")
    return joined


def _is_proxied(request: Request) -> bool:
    return request.type in getproxies() and not proxy_bypass(request.host)


def _opener(patience: Patience, *, allow_private: bool) -> OpenerDirector:
    """Return an opener that speaks http and https alone, through the environment's proxies; a
    redirect is an `HTTPError` to it."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        _PatientHTTPHandler(patience, allow_private=allow_private),
        _PatientHTTPSHandler(patience, allow_private=allow_private),
        UnknownHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _PatientHTTPHandler(HTTPHandler):
    def __init__(self, patience: Patience, *, allow_private: bool) -> None:
        super().__init__()
        self._connects = _connection(HTTPConnection, patience, allow_private=allow_private)

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connects, req)


class _PatientHTTPSHandler(HTTPSHandler):
    def __init__(self, patience: Patience, *, allow_private: bool) -> None:
        super().__init__()
        self._connects = _connection(HTTPSConnection, patience, allow_private=allow_private)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connects, req)


def _connection(kind: type[HTTPConnection], patience: Patience, *, allow_private: bool) -> Any:
    """Return what makes connections of a kind, for `do_open`."""

    def connection(host: str, **arguments: Any) -> HTTPConnection:
        made: Any = kind(host, **arguments)
        made._create_connection = partial(_connect, patience=patience, allow_private=allow_private)
        made.response_class = partial(_response, patience=patience)
        return made

    return connection


def _connect(
    address: tuple[str, int], *_: object, patience: Patience, allow_private: bool, **__: object
) -> socket.socket:
    """Connect to the first address of a name that answers, of those that may be asked.

    Raises:
        NotPublicError: none may be.
        OSError: none answers.
    """
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    usable = [entry for entry in found if allow_private or _is_public(str(entry[4][0]))]
    if not usable:
        raise NotPublicError(f"{host} is {found[0][4][0]}, no public address")
    failure: OSError | None = None
    for family, kind, protocol, _name, place in usable:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(patience.next_s)
            connection.connect(place)
        except OSError as error:
            connection.close()
            failure = error
            continue
        return connection
    assert failure is not None, "there is an address"
    raise failure


def _check_name(host: str) -> None:
    """Refuse a host that is not public by its name alone, which a proxy would resolve.

    Raises:
        NotPublicError: it is not.
    """
    name = host.rstrip(".").lower()
    is_local = name.endswith((".localhost", ".local", ".internal")) or "." not in name
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        found = []
        is_literal = False
    else:
        is_literal = True
    if (is_local and not is_literal) or not all(_is_public(str(entry[4][0])) for entry in found):
        raise NotPublicError(f"{host} is no public address")


def _is_public(text: str) -> bool:
    """Say whether an address is one of the whole internet's, also where it holds an older one."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if address.teredo is not None:
            inner = address.teredo[1]
        if inner is not None:
            return _is_public(str(inner))
    return address.is_global and not address.is_multicast


class _PatientReader(io.RawIOBase):
    """Reads a socket for as long as patience lasts."""

    def __init__(self, connection: socket.socket, patience: Patience) -> None:
        self._connection = connection
        self._raw = connection.makefile("rb", buffering=0)
        self._patience = patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(self._patience.next_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


@dataclass(frozen=True, slots=True)
class _PatientSocket:
    """As much of a socket as a response asks for."""

    connection: socket.socket
    patience: Patience

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_PatientReader(self.connection, self.patience))


def _response(connection: socket.socket, *, patience: Patience, **arguments: Any) -> HTTPResponse:
    as_socket: Any = _PatientSocket(connection, patience)
    return HTTPResponse(as_socket, **arguments)
