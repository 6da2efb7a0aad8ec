"""Object stores on this machine alone, for tests: the hub's files, and S3's where the packages for
it are installed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import fsspec
import pytest

from tests.hub_server import hub_server

HAS_S3 = find_spec("s3fs") is not None and find_spec("moto") is not None
STORES = [
    "hf",
    pytest.param(
        "s3", marks=pytest.mark.skipif(not HAS_S3, reason="s3fs and moto are not installed")
    ),
]


@dataclass(frozen=True)
class Store:
    """A store that holds what a test puts there."""

    root: str
    """The address of its folder, without a slash at the end."""
    put: Callable[[Mapping[str, bytes]], None]
    """Takes the place of all that is there."""
    num_asked: Callable[[str], int]
    """How often a file's bytes were asked for, by its name; -1 where the store does not say."""


@contextmanager
def store(kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Serve a store of a kind until the block ends; fsspec is told where it is."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with (_hub if kind == "hf" else _s3)(monkeypatch) as served:
        yield served


def forget_listings() -> None:
    """Let fsspec ask again, as a later process does."""
    for protocol in ("hf", "s3"):
        try:
            fsspec.get_filesystem_class(protocol).clear_instance_cache()
        except ImportError:
            continue


@contextmanager
def _hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with hub_server() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": hub.address, "token": False})
        forget_listings()

        def put(files: Mapping[str, bytes]) -> None:
            hub.files = dict(files)
            forget_listings()

        def num_asked(name: str) -> int:
            return sum("/resolve/" in asked and asked.endswith(f"/{name}") for asked in hub.asked)

        yield Store("hf://datasets/owner/name", put, num_asked)


@contextmanager
def _s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        forget_listings()
        files = fsspec.filesystem("s3")
        files.makedirs("shelf", exist_ok=True)  # this process keeps it from server to server

        def put(content: Mapping[str, bytes]) -> None:
            if found := files.find("shelf"):
                files.rm(found)
            for name, data in content.items():
                files.pipe_file(f"shelf/{name}", data)
            forget_listings()

        yield Store("s3://shelf", put, lambda _: -1)
    finally:
        server.stop()
