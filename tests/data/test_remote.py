"""No credential of a URL is written down, and no two URLs share a local copy: against a real server."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
import xarray as xr
from fsspec.implementations.dirfs import DirFileSystem

from dsr import __version__
from dsr.data.output import export_forecast
from dsr.data.prepare import prepare_from_options
from dsr.data.remote import cached
from dsr.data.store import Store
from dsr.errors import UserError
from dsr.run.provenance import environment
from dsr.urls import cleaned, without_credentials

from .archives import analysis


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("https://host/a/b.nc", "https://host/a/b.nc"),
        ("https://me:hunter2@host:8443/a.nc", "https://host:8443/a.nc"),
        ("https://ghp_0123@host/a.nc", "https://host/a.nc"),
        ("ftp://me:p/w?x#y@host/a.nc", "ftp://host/a.nc"),
        ("https://host:8080/runs@12/a.nc", "https://host:8080/runs@12/a.nc"),
        ("s3://AKIA:secret@bucket/key.zarr", "s3://bucket/key.zarr"),
        ("abfs://container@account.dfs.core.windows.net/a.zarr", "abfs://container@account.dfs.core.windows.net/a.zarr"),
        ("https://x.blob.core.windows.net/c/a.nc?sp=r&sv=2022&sig=Ab%2Fc%3D", "https://x.blob.core.windows.net/c/a.nc?sp=r&sv=2022"),
        ("https://b.s3.amazonaws.com/a.nc?X-Amz-Credential=AK&X-Amz-Signature=0f", "https://b.s3.amazonaws.com/a.nc"),
        ("https://host/a.nc?token=abc", "https://host/a.nc"),
        ("https://host/a.nc?step=6&api_key=abc&level=850", "https://host/a.nc?step=6&level=850"),
        ("https://host/a.nc?date=20200101#access_token=abc", "https://host/a.nc?date=20200101"),
        ("https://host/a.nc?Password=abc;user=me", "https://host/a.nc?user=me"),
        ("simplecache::https://me:hunter2@host/a.nc", "simplecache::https://host/a.nc"),
        ("s3://bucket/t?_*.nc", "s3://bucket/t?_*.nc"),
        ("no URL: me:word@host, token=abc", "no URL: me:word@host, token=abc"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_url(given, left):
    assert without_credentials(given) == left
    assert without_credentials(f"403 of url='{given}'; see {given} too").count("hunter2") == 0
    assert cleaned({"files": [given, 3], "at": (given,)}) == {"files": [left, 3], "at": [left]}


def test_a_refusal_names_no_password():
    assert str(UserError("https://me:hunter2@host/a.nc?sig=abc: no such file")) == "https://host/a.nc: no such file"


class Handler(BaseHTTPRequestHandler):
    """Answers with a file of `server.files`, else with user, path and query; /short promises more than it sends."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        user = base64.b64decode(self.headers.get("Authorization", "Basic ")[6:])
        body = self.server.files.get(self.path.partition("?")[0], user + b" " + self.path.encode())
        missing = self.path.startswith("/none")
        self.send_response(404 if missing else 200)
        self.send_header("Content-Length", str(len(body) + (5 if self.path.startswith("/short") else 0)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.files = [], {}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetched(url):
    return cached(*fsspec.core.url_to_fs(url))


def test_every_url_has_its_own_copy(server):
    at = f"127.0.0.1:{server.server_port}"
    urls = [f"http://{at}/a/b_c.nc", f"http://{at}/a_b/c.nc", f"http://{at}/a/b_c.nc?member=1"]
    urls += [f"http://{at}/a/b_c.nc?member=2", f"http://one:x@{at}/a/b_c.nc", f"http://two:y@{at}/a/b_c.nc"]
    copies = [fetched(url) for url in urls]
    told = [copy.read_text() for copy in copies]
    assert told == [
        " /a/b_c.nc",
        " /a_b/c.nc",
        " /a/b_c.nc?member=1",
        " /a/b_c.nc?member=2",
        "one:x /a/b_c.nc",
        "two:y /a/b_c.nc",
    ]
    assert [copy.name for copy in copies] == ["b_c.nc", "c.nc", *["b_c.nc"] * 4]
    server.asked.clear()
    assert [fetched(url) for url in urls] == copies and not server.asked  # not fetched again


def test_hosts_whose_paths_are_alike_are_told_apart(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nc").write_text(name)
    systems = [DirFileSystem(path=str(tmp_path / name), fs=fsspec.filesystem("file")) for name in ("one", "two")]
    assert [cached(system, "a.nc").read_text() for system in systems] == ["one", "two"]


def test_a_copy_is_whole_or_not_there(server):
    url = f"http://me:hunter2@127.0.0.1:{server.server_port}"
    for path in ("short/a.nc?token=abc", "none/a.nc?token=abc"):
        for _ in range(2):
            with pytest.raises(OSError, match=r"a\.nc: cannot be downloaded") as refusal:
                fetched(f"{url}/{path}")
            assert "hunter2" not in str(refusal.value) and "abc" not in str(refusal.value)


def test_nothing_that_is_written_holds_a_password(tmp_path, monkeypatch, server):
    """A store, a file's history, a run's environment: of a recipe and a command line that hold them."""
    analysis(60).to_netcdf(tmp_path / "a.nc")
    server.files["/a.nc"] = (tmp_path / "a.nc").read_bytes()
    url = f"http://me:hunter2@127.0.0.1:{server.server_port}/a.nc?sig=hunter3"
    monkeypatch.setattr("sys.argv", ["dsr", "data", "prepare", "--high", url])
    told = prepare_from_options(recipe=None, output=tmp_path / "s.zarr", high=[url], factor=4)
    store = Store(tmp_path / "s.zarr")
    export_forecast(store, "test", tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc") as written:
        attributes = dict(written.attrs)
    assert attributes["history"].endswith(f": written by dsr {__version__}")  # and no word of the command line
    assert store.attributes["provenance"]["files"] == ["a.nc"]
    made = environment("CPU", "", 1, "")
    for text in (told, json.dumps([store.attributes, attributes, made["command"]])):
        assert "hunter" not in text
