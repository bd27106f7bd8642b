"""A store at a URL, from real servers that stop, come back or stay away: the same bits, or an error that says where."""

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest

from dsr.config import Data
from dsr.data import cache, source
from dsr.data.features import Features
from dsr.data.store import Store
from dsr.data.stream import Stream
from dsr.errors import UserError
from tests.stores import write_four_samples


class Server:
    """A process that listens on a port of its own, and can be stopped and started again."""

    def __init__(self, command: Callable[[int], list[str]], folder):
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as taken:
            self.port = taken.server_port
        self.url, self.command, self.folder = f"http://127.0.0.1:{self.port}", command(self.port), folder

    def start(self) -> None:
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return  # an answer all the same
            except OSError:
                assert time.monotonic() < until and self.process.poll() is None
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(command, folder) -> Iterator[Server]:
    server = Server(command, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def http(tmp_path, tiny_store) -> Iterator[tuple[Server, str]]:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(tiny_store.parent)]

    with running(command, tmp_path) as server:
        yield server, f"{server.url}/{tiny_store.name}"


RELAY = """
import asyncio, sys

async def pass_on(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

async def meet(reader, writer):
    there = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    await asyncio.gather(pass_on(reader, there[1]), pass_on(there[0], writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(meet, "127.0.0.1", int(sys.argv[2])) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def s3(tmp_path, tiny_store, monkeypatch) -> Iterator[tuple[Server, str]]:
    """moto keeps all that it holds in memory, so that what stops is a relay in front of it."""
    for package in ("s3fs", "moto", "flask_cors"):
        pytest.importorskip(package)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")

    def moto(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    with running(moto, tmp_path) as keeper:

        def relay(port: int) -> list[str]:
            return [sys.executable, "-c", RELAY, str(keeper.port), str(port)]

        with running(relay, tmp_path) as server:
            monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.url})
            there = fsspec.filesystem("s3")
            there.mkdir("bucket")
            there.put(str(tiny_store), "bucket/tiny.zarr", recursive=True)
            yield server, "s3://bucket/tiny.zarr"


def stream(store: Store) -> Stream:
    return Stream(store, Features.of(store, Data()), Data(), "train", 5)


def epoch(store: Store, interrupt: Callable[[], None] = lambda: None) -> list[bytes]:
    """Every batch of an epoch; the interruption comes with the fifth."""
    found = []
    for _, _, batches in stream(store).slots(0, 3, 12, 1, range(12)):
        for batch in batches:
            found.append(batch.low.tobytes() + batch.truth.tobytes())
            if len(found) == 5:
                interrupt()
    return found


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(source, "PAUSES", (0.05, 0.2))
    return lambda seconds: monkeypatch.setattr(source, "PATIENCE", seconds)


@pytest.mark.parametrize("kind", ["http", pytest.param("s3", marks=pytest.mark.slow)])
def test_an_epoch_goes_on_when_a_stopped_server_is_back(kind, request, tiny_store, capfd, patient):
    server, url = request.getfixturevalue(kind)

    def away() -> None:
        server.stop()
        threading.Timer(2, server.start).start()

    patient(60)
    assert epoch(Store(url), away) == epoch(Store(tiny_store))
    told = capfd.readouterr().err
    if kind == "http":  # S3's client tries again itself before it gives up
        assert f"{url}: " in told and "the source does not answer" in told


def test_a_server_that_stays_away_is_an_error_within_the_bound(http, patient):
    server, url = http
    patient(1.5)
    begun = []

    def away() -> None:
        server.stop()
        begun.append(time.monotonic())

    with pytest.raises(OSError, match=r"tiny\.zarr: (low|high)/field/c/\d+/.*: the source does not answer, for 1.5 s"):
        epoch(Store(url), away)
    assert time.monotonic() - begun[0] < 15
    with pytest.raises(OSError, match=r"tiny\.zarr: zarr\.json: the source does not answer"):
        Store(url)


def test_a_store_that_is_not_there_is_said_at_once(http):
    with pytest.raises(UserError, match="no store there"):
        Store(f"{http[0].url}/none.zarr")
    with pytest.raises(UserError, match=r"nosuch://a/b.zarr: Protocol not known"):
        Store("nosuch://a/b.zarr")


def test_a_rotten_and_a_missing_chunk_are_named_and_not_waited_for(tmp_path):
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "-d", str(tmp_path)]

    path = write_four_samples(tmp_path / "a.zarr").path
    with running(command, tmp_path) as server:
        store = Store(f"{server.url}/a.zarr")
        (path / "low/field/c/1/0/0/0").unlink()
        (path / "high/field/c/2/0/0/0").write_bytes(b"other")
        with pytest.raises(UserError, match=r"a\.zarr: row 1 of low/field \(valid 1970-01-01T01:00\)"):
            store.low[:]
        with pytest.raises(UserError, match=r"a\.zarr: row 2 of high/field"):
            store.high[:]


def test_a_remote_store_is_fetched_once(http, tiny_store, tmp_path, monkeypatch, patient):
    server, url = http
    monkeypatch.setenv("DSR_CACHE", str(tmp_path / "cache"))
    first, second = Store(url), Store(url)
    assert cache.attach(first, 1) == cache.attach(second, 1) == ""
    high, low = first.high[:], first.low[:]
    assert np.array_equal(high, Store(tiny_store).high[:])
    assert (second.high.shape, second.low.shape) == (high.shape, low.shape)
    server.stop()
    patient(0.5)
    assert np.array_equal(second.high[:], high) and np.array_equal(second.low[:], low)


class Flaky(BaseHTTPRequestHandler):
    """Answers each path with an error at first, as `server.answers` lists them, and then with the file."""

    def do_GET(self):
        answers = self.server.left.setdefault(self.path, list(self.server.answers))
        status = answers.pop(0) if answers else 200
        self.server.asked += 1
        body = b"" if status != 200 else (self.server.folder / self.path.lstrip("/")).read_bytes()
        if status == 0:  # no answer at all
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_which_answers_are_tried_again(tmp_path, patient):
    patient(60)
    path = write_four_samples(tmp_path / "a.zarr").path
    with ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        server.folder, server.answers, server.left, server.asked = tmp_path, [503, 429, 0, 500], {}, 0
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/a.zarr"
            assert np.array_equal(Store(url).low[:], Store(path).low[:])
            server.answers, server.left, server.asked = [403], {}, 0
            with pytest.raises(OSError, match=r"a\.zarr: zarr\.json cannot be read \(403"):
                Store(url)
            assert server.asked == 1
        finally:
            server.shutdown()
            thread.join()


def test_a_forked_process_reads_an_open_store(http):
    store = Store(http[1])
    whole = store.low[:3]
    if (child := os.fork()) == 0:
        os._exit(not np.array_equal(store.low[:3], whole))
    assert os.waitpid(child, 0)[1] == 0
