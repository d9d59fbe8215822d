"""What a manifest from elsewhere may hold: paths out of its folder, URLs of every kind, columns of every type."""

from __future__ import annotations

import io
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from headstart.base.errors import DataError
from headstart.base.reading import Limits, NotReadError, is_public, read
from headstart.layout import Layout
from headstart.listing import list_images
from tests.support.images import encoded, photograph
from tests.support.server import Server
from tests.support.validation import quarantine, run

OPEN = Limits(max_bytes=1_000_000, timeout_s=5.0, outside=True)
GUARDED = OPEN._replace(outside=False)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with six images, for a manifest in it."""
    for number in range(6):
        path = tmp_path / "data" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(photograph(number)))
    return tmp_path / "data"


def manifest(folder: Path, *more: str, n_images: int = 6) -> Path:
    """Write a manifest of the images, and of further paths."""
    rows = [(f"{number}.png", "ab"[number % 2]) for number in range(n_images)] + [(path, "a") for path in more]
    file = folder / "list.csv"
    pl.DataFrame(rows, {"path": pl.String, "label": pl.String}, orient="row").write_csv(file)
    return file


def refusal(file: Path, outside: bool = False) -> str:
    with pytest.raises(DataError) as error:
        list_images(file, "list.csv", outside=outside)
    return str(error.value)


# Paths


def out_of_folder(tmp_path: Path) -> list[str]:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(b"x")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "other" / "a.png")
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "other")
    return [
        str(tmp_path / "other" / "a.png"),
        "../other/a.png",
        "../data/../other/a.png",
        "link.png",
        "folder/a.png",
        f"file://{tmp_path}/other/a.png",
        f"local://{tmp_path}/data/../other/a.png",
        "/proc/self/environ",
        "/proc/self/mem",
    ]


def test_paths_out_of_the_folder_are_refused_unless_allowed(folder: Path, tmp_path: Path) -> None:
    paths = out_of_folder(tmp_path)
    for path in paths:
        said = refusal(manifest(folder, path))
        assert said.startswith(
            f"1 of 7 paths in 'list.csv' lead out of its folder ({path}). Paths below the manifest's"
        )
        assert "`headstart set data.allow_outside=true` in a project, `--set data.allow_outside=true` with" in said
    assert len(list_images(manifest(folder, *paths), "list.csv", outside=True).found) == 15


def test_paths_that_stay_in_the_folder_may_be_written_in_any_way(folder: Path) -> None:
    (folder / "own.png").symlink_to("0.png")
    kept = ["./0.png", "../data/1.png", str(folder / "2.png"), f"file://{folder}/3.png", "own.png"]
    assert len(list_images(manifest(folder, *kept), "list.csv").found) == 11


def test_a_row_that_is_no_file_is_refused_and_not_opened(folder: Path, layout: Layout) -> None:
    os.mkfifo(folder / "fifo.png")
    (folder / "folder.png").mkdir()
    said = refusal(manifest(folder, "fifo.png", "folder.png"))
    assert said.startswith("2 of 8 paths in 'list.csv' are no files (fifo.png, folder.png).")


@pytest.mark.parametrize("path", ["nowhere.png", "a" * 300 + ".png", "a/" * 3000, "nul\0.png", "0.png/"])
def test_a_path_that_cannot_be_is_absent(folder: Path, path: str) -> None:
    assert "1 of 7 paths in 'list.csv' do not exist" in (said := refusal(manifest(folder, path)))
    assert len(said) < 700
    assert said.isprintable()


def test_memory_of_a_process_ends_at_the_limit_where_it_is_allowed(folder: Path, layout: Layout) -> None:
    run(manifest(folder, "/proc/self/mem", "/dev/../proc/self/pagemap"), layout, allow_outside=True)
    assert sorted(quarantine(layout)) == ["/dev/../proc/self/pagemap", "/proc/self/mem"]


def test_a_file_that_becomes_a_fifo_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "fifo.png")
    open_files = len([*Path("/proc/self/fd").iterdir()])
    for name, said in (("fifo.png", "a FIFO"), (".", "a folder"), ("/dev/null", "a device")):
        with pytest.raises(NotReadError, match=f"{said}, no regular file"):
            read(name, folder, GUARDED)
    assert len([*Path("/proc/self/fd").iterdir()]) == open_files


# Schemes and addresses


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/a.png",
        "sftp://example.org/a.png",
        "smb://server/a.png",
        "github://o:r@main/a.png",
        "simplecache::http://example.org/a.png",
        "zip://a.png::file:///tmp/a.zip",
    ],
)
def test_schemes_that_reach_further_are_refused_unless_allowed(folder: Path, url: str) -> None:
    assert "1 of 7 paths in 'list.csv' lead out of its folder" in refusal(manifest(folder, url))
    assert len(list_images(manifest(folder, url), "list.csv", outside=True).found) == 7


@pytest.mark.parametrize(
    "url", ["gopher://a/b.png", "FILE:///etc/hostname", "HTTP://a/b.png", "javascript://a", "://x"]
)
def test_schemes_that_nobody_knows_are_refused(folder: Path, url: str) -> None:
    for outside in (False, True):
        said = refusal(manifest(folder, url), outside)
        assert said.startswith(f"1 of 7 paths in 'list.csv' have a scheme that is not known here ({url}).")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *(
            (address, False)
            for address in ("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1")
        ),
        *(
            (address, False)
            for address in ("169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::")
        ),
        *((address, False) for address in ("fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::")),
        *((address, True) for address in ("1.1.1.1", "151.101.0.223", "2606:4700::1111", "::ffff:1.1.1.1")),
    ],
)
def test_addresses_of_the_public_network(address: str, expected: bool) -> None:
    assert is_public(address) == expected


def test_a_server_on_this_machine_is_asked_only_where_allowed(folder: Path, server: Server, layout: Layout) -> None:
    server.files["/a.png"] = encoded(photograph(50))
    port = server.http.server_port
    urls = [f"http://{host}:{port}/a.png" for host in ("127.0.0.1", "localhost", "2130706433", "127.1")]
    run(manifest(folder, *urls), layout)
    assert server.asked == []
    reasons = quarantine(layout)
    assert sorted(reasons) == sorted(urls)
    assert reasons[urls[0]] == (
        "it leads to 127.0.0.1, an address of this machine or its own network; set data.allow_outside to true if it may"
    )
    assert run(manifest(folder, urls[0]), layout, allow_outside=True).height == 7
    assert server.asked == ["GET /a.png"]


def test_a_redirect_to_this_machine_is_not_followed(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public server sends the reader on to a private one: here the first of two addresses counts as public."""
    from headstart.base import reading

    inner = Server()
    threading.Thread(target=inner.http.serve_forever, daemon=True).start()
    try:
        inner.files["/secret"] = b"secret"
        server.redirects["/a.png"] = f"{inner.url.replace('127.0.0.1', '127.0.0.2')}/secret"
        monkeypatch.setattr(reading, "is_public", lambda address: address == "127.0.0.1")
        with pytest.raises(NotReadError, match=r"it leads to 127\.0\.0\.2, an address of this machine"):
            read(f"{server.url}/a.png", folder, GUARDED._replace(timeout_s=6.0))
        assert server.asked == ["GET /a.png"]
        assert inner.asked == []
    finally:
        inner.http.shutdown()
        inner.http.server_close()


# Servers that never end


Answer = Callable[[socket.socket], None]


@pytest.fixture
def rude() -> Iterator[Callable[[Answer], str]]:
    """Return a function that starts a server with one way to answer, and gives its URL."""
    listeners: list[socket.socket] = []
    stop = threading.Event()

    def start(answer: Answer) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    try:
                        answer(connection)
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"

    yield start
    stop.set()
    for each in listeners:
        each.close()


HEADER = b"HTTP/1.1 200 OK\r\n"


def silence(connection: socket.socket) -> None:
    connection.settimeout(20)
    connection.recv(1)


def drip(connection: socket.socket) -> None:
    connection.sendall(HEADER + b"Content-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)  # no wait for anything: it is what this server does


def header_without_end(connection: socket.socket) -> None:
    connection.sendall(HEADER)
    while True:
        connection.sendall(b"X-A: 1\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [silence, drip, header_without_end], ids=lambda answer: answer.__name__)
def test_a_server_that_never_answers_in_full_is_left(
    folder: Path, rude: Callable[[Answer], str], answer: Answer
) -> None:
    began = time.monotonic()
    with pytest.raises(NotReadError, match=r"not answered in full within 0\.7 s, which validate\.timeout_s allows"):
        read(rude(answer), folder, OPEN._replace(timeout_s=0.7))
    assert time.monotonic() - began < 5


def body_without_end(connection: socket.socket) -> None:
    connection.sendall(HEADER + b"\r\n")
    while True:
        connection.sendall(bytes(65536))


def lying_length(connection: socket.socket) -> None:
    connection.sendall(HEADER + b"Content-Length: 9000000000000\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def packed_bomb(connection: socket.socket) -> None:
    import gzip

    packed = gzip.compress(bytes(50_000_000))
    connection.sendall(HEADER + f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed)


@pytest.mark.parametrize("answer", [body_without_end, lying_length, packed_bomb], ids=lambda answer: answer.__name__)
def test_a_body_without_end_is_cut_at_the_limit(folder: Path, rude: Callable[[Answer], str], answer: Answer) -> None:
    with pytest.raises(NotReadError, match=r"more than 1 MB, which validate\.max_mb allows"):
        read(rude(answer), folder, OPEN)


def test_what_a_server_cannot_give_is_set_aside(folder: Path, server: Server, layout: Layout) -> None:
    server.files["/cut.png"] = b"x" * 100
    server.promise_more = 10
    run(manifest(folder, f"{server.url}/none.png", f"{server.url}/cut.png"), layout, allow_outside=True)
    reasons = quarantine(layout)
    assert reasons[f"{server.url}/none.png"] == "its server answered 404"
    assert reasons[f"{server.url}/cut.png"].startswith("cannot be read: ")


# Columns


TABLES = {
    "a list of labels": (
        pl.DataFrame({"path": ["0.png"], "label": [["a", "b"]]}),
        "hold no text (label: List(String))",
    ),
    "binary paths": (pl.DataFrame({"path": [b"0.png\xff"], "label": ["a"]}), "hold no text (path: Binary)"),
    "numbers as paths": (pl.DataFrame({"path": [1], "label": ["a"]}), "hold no text (path: Int64)"),
    "structs": (pl.DataFrame({"path": [{"a": "0.png"}], "label": ["a"]}), "hold no text (path: Struct"),
    "a list of groups": (
        pl.DataFrame({"path": ["0.png"], "label": ["a"], "group": [[1]]}),
        "hold no text (group: List(Int64))",
    ),
    "NaN": (pl.DataFrame({"path": ["0.png", "1.png"], "label": [1.0, float("nan")]}), "1 rows of 'list' have no label"),
    "a long label": (
        pl.DataFrame({"path": ["0.png"], "label": ["x" * 10_000]}),
        f"1 labels in 'list' are longer than 255 characters ({'x' * 40}... of 10000 characters)",
    ),
    "no rows": (pl.DataFrame({"path": [], "label": []}), "'list' has no rows."),
    "a thousand columns": (pl.DataFrame({f"c{n}": [1] for n in range(1000)}), "lacks 2 columns (path, label)"),
}


@pytest.mark.parametrize("name", TABLES)
def test_columns_of_other_types_are_refused(folder: Path, name: str) -> None:
    table, expected = TABLES[name]
    table.write_parquet(folder / "list.parquet")
    with pytest.raises(DataError) as error:
        list_images(folder / "list.parquet", "list")
    assert expected in str(error.value)
    assert len(str(error.value)) < 900


BYTES = {
    "latin-1": b"path,label\n0.png,caf\xe9\n",
    "zeros": bytes(1000),
    "random": bytes(range(256)) * 4,
    "ragged": b"path,label\n0.png,a\n1.png,b,c,d\n",
    "an open quote": b'path,label\n"0.png,a\n1.png,b\n',
    "empty": b"",
    "one column": b"\xef\xbb\xbf\n",
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_table_are_refused(folder: Path, name: str, suffix: str) -> None:
    file = folder / f"list.{suffix}"
    file.write_bytes(BYTES[name])
    assert "list." in refusal(file)


def test_a_parquet_file_that_ends_its_reader_is_refused(folder: Path) -> None:
    """The lengths of a page's header lie: Polars then asks for 2 million terabytes, and the process is aborted."""
    file = folder / "list.parquet"
    shutil.copy(Path(__file__).parent / "aborts.parquet", file)
    said = refusal(file)
    assert said.startswith("data.root is 'list.csv', which cannot be read as parquet (it is damaged: its reader died)")


def test_cuts_and_flips_of_a_parquet_manifest_are_tables_or_refused(folder: Path) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"path": ["0.png", "1.png"], "label": ["a", "b"]}).write_parquet(buffer)
    data, file = buffer.getvalue(), folder / "list.parquet"
    outcomes = []
    for place in (4, len(data) // 2, len(data) - 12):
        for broken in (data[:place], data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]):
            file.write_bytes(broken)
            try:
                outcomes.append(len(list_images(file, "list").found))
            except DataError:
                outcomes.append(-1)
    assert -1 in outcomes
