"""Downloads, against a server of this machine: resumed, verified, put in place when whole."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslnet.errors import RunError
from sslnet.sources.download import download

BODY = bytes(range(256)) * 1000
MD5 = hashlib.md5(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves /file (with ranges), /whole (without), /short (breaks off), /other (another file)."""

    log: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.log.append((self.path, wanted))
        body = {"/other": b"something else", "/file": BODY, "/whole": BODY, "/short": BODY}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.path != "/whole" else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + 100_000] if self.path == "/short" else body[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.log = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def test_file_is_fetched_whole_and_verified(server: str, tmp_path: Path) -> None:
    seen = []
    download([server + "/file"], tmp_path / "f", MD5, lambda done, total: seen.append((done, total)))
    assert (tmp_path / "f").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_broken_download_is_taken_up_where_it_ended(server: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the connection ended after 100000 of 256000 bytes"):
        download([server + "/short"], tmp_path / "f", MD5)
    assert (tmp_path / "f.part").stat().st_size == 100_000
    assert not (tmp_path / "f").exists()
    download([server + "/file"], tmp_path / "f", MD5)
    assert Handler.log[-1] == ("/file", "bytes=100000-")
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("place", ["/file", "/whole"])
@pytest.mark.parametrize("remains", [BODY[:5], b"wrong", BODY, BODY + b"x"])
def test_remains_of_any_kind_do_no_harm(server: str, tmp_path: Path, place: str, remains: bytes) -> None:
    (tmp_path / "f.part").write_bytes(remains)
    download([server + place], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == BODY


def test_other_mirrors_are_tried_and_all_failures_told(server: str, tmp_path: Path) -> None:
    download([server + "/no", server + "/other", server + "/file"], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == BODY
    with pytest.raises(RunError) as caught:
        download([server + "/no", server + "/other"], tmp_path / "g", MD5)
    text = str(caught.value)
    assert "cannot download g:" in text
    assert f"{server}/no: Not Found" in text
    assert f"{server}/other: the file has the md5 {hashlib.md5(b'something else').hexdigest()}, not {MD5}" in text
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
