"""What may lie in a folder beside images: each ends in a row of the quarantine or in an error that names it."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.base.errors import DataError
from headstart.image_files import below
from headstart.layout import Layout
from headstart.listing import check_files
from tests.support.images import ROOT, encoded, photograph
from tests.support.validation import Folders, quarantine, run


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


@pytest.fixture
def photos(class_folders: Folders) -> Path:
    return class_folders(ants=3, bees=3)


def picture(path: Path, number: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photograph(number)))


def fifo(place: Path) -> None:
    os.mkfifo(place)


def bound_socket(place: Path) -> None:
    before = Path.cwd()
    os.chdir(place.parent)  # its address may have 108 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(place.name)
    finally:
        os.chdir(before)


def dangling(place: Path) -> None:
    place.symlink_to("nowhere.jpg")


def loop(place: Path) -> None:
    place.symlink_to(place.name)


def link_to_device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def not_utf8(place: Path) -> None:
    picture(place.parent / os.fsdecode(b"\xff\xfe.jpg"))


SPECIAL = {
    fifo: "ants/x.jpg: a FIFO",
    bound_socket: "ants/x.jpg: a socket",
    dangling: "ants/x.jpg: a link that leads nowhere",
    loop: "ants/x.jpg: a link that leads nowhere",
    link_to_device: "ants/x.jpg: a link to a device",
    not_utf8: r"ants/\xff\xfe.jpg: a name that is not UTF-8",
}


@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
def test_what_dvc_cannot_read_is_named_and_never_opened(
    photos: Path, layout: Layout, make: Callable[[Path], None]
) -> None:
    make(photos / "ants" / "x.jpg")
    with pytest.raises(DataError) as error:
        run(photos, layout)
    assert f"1 name in '{photos}' is neither a file nor a folder that can be read ({SPECIAL[make]})." in str(
        error.value
    )
    with pytest.raises(DataError):
        check_files(photos, "photos")  # as the flow does before DVC looks


def test_headstart_run_refuses_a_fifo_in_a_line_and_does_not_wait(photos: Path) -> None:
    os.mkfifo(photos / "bees" / "x.jpg")
    project = photos.parent / "project"
    project.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (project / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "headstart", "run", "--data", str(photos)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "bees/x.jpg: a FIFO" in done.stderr
    assert "Traceback" not in done.stderr
    assert (project / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_a_folder_that_is_called_like_an_image_is_a_folder(photos: Path, layout: Layout) -> None:
    (photos / "ants" / "x.jpg").mkdir()
    assert run(photos, layout, max_quarantined_fraction=0.0).height == 6


@pytest.mark.parametrize(
    "name",
    [
        "new\nline.png",
        "\"double\" 'single'.png",
        "-rf.png",
        "=1+1.png",
        "ant \U0001f41c.png",
        "caf\u00e9.png",
        "cafe\u0301.png",
        "\u202egnp.png",
        "a" * 251 + ".png",
        "tab\tand\x1b[31mred.png",
    ],
)
def test_odd_names_are_names(photos: Path, layout: Layout, name: str) -> None:
    picture(photos / "ants" / name)
    assert run(photos, layout).filter(path=f"ants/{name}").height == 1


def test_odd_names_of_bad_images_come_back_from_the_quarantine(photos: Path, layout: Layout) -> None:
    from headstart.base import validation

    names = ["ants/new\nline.png", "=cmd.png", "ants/'=1.png", 'ants/"a,b".png', "ants/\ttab.png"]
    for name in names:
        (photos / name).write_bytes(b"x")
    run(photos, layout)
    assert sorted(path for path, _ in validation.quarantined(layout)) == sorted(names)


def test_names_in_messages_cannot_move_the_cursor(photos: Path, layout: Layout) -> None:
    (photos / "ants" / "a\x1b[2J\n.png").write_bytes(b"x")
    with pytest.raises(DataError) as error:
        run(photos, layout, max_quarantined_fraction=0.0)
    assert r"ants/a\x1b[2J\n.png" in str(error.value)
    assert "\x1b" not in str(error.value)


def test_twins_in_case_and_in_form_are_two_files(photos: Path, layout: Layout) -> None:
    for number, name in enumerate(("Ant.png", "ant.png", "caf\u00e9.png", "cafe\u0301.png")):
        picture(photos / "ants" / name, 70 + number)
    assert run(photos, layout).height == 10


# Links


def test_a_link_to_the_parent_is_followed_once(photos: Path, layout: Layout) -> None:
    (photos / "ants" / "up").symlink_to("..")
    (photos / "bees" / "ants").symlink_to("../ants")
    assert run(photos, layout, max_quarantined_fraction=0.0).height == 6
    assert quarantine(layout) == {
        "ants/up": "a link to a folder that is read as '.'",
        "bees/ants": "a link to a folder that is read as 'ants'",
    }


def test_folders_that_all_link_to_each_other_take_no_longer_than_their_files(tmp_path: Path) -> None:
    for one in range(30):
        picture(tmp_path / f"c{one}" / "a.png")
        for other in range(30):
            (tmp_path / f"c{one}" / f"to{other}").symlink_to(f"../c{other}")
    there = below(tmp_path, follows_out=True)
    assert len(there.files) == 30
    assert len(there.again) == 900


def test_a_linked_file_outside_is_set_aside_unless_allowed(
    photos: Path, layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "private" / "me.png")
    (photos / "ants" / "x.png").symlink_to(tmp_path / "private" / "me.png")
    assert run(photos, layout).height == 6
    assert quarantine(layout) == {
        "ants/x.png": f"a link to the file {tmp_path}/private/me.png, which is not in data.root; set data.allow_outside"
        " to true if it is yours"
    }
    assert run(photos, layout, allow_outside=True).height == 7
    assert "set aside" not in capsys.readouterr().out


def test_a_linked_folder_outside_stops_the_run_unless_allowed(
    photos: Path, layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        picture(tmp_path / "disk" / f"{number}.png", 80 + number)
    (tmp_path / "disk" / "back").symlink_to(photos.parent)  # a way round: nothing is read twice
    (photos / "wasps").symlink_to(tmp_path / "disk")
    with pytest.raises(DataError) as error:
        run(photos, layout)
    assert str(error.value) == (
        f"1 folder in '{photos}' lies elsewhere (wasps: a link to the folder {tmp_path}/disk). Folders inside data.root"
        " were expected. If these are yours, set data.allow_outside to true: `headstart set data.allow_outside=true` in"
        " a project, `--set data.allow_outside=true` with `headstart new`."
    )
    (tmp_path / "disk" / "back").unlink()
    capsys.readouterr()
    assert sorted(set(run(photos, layout, allow_outside=True)["label"])) == ["ants", "bees", "wasps"]
    assert "1 folder in" in (told := capsys.readouterr().err)
    assert "(wasps). DVC does not look there: after a change in it, run `headstart run --force validate`" in told


def test_a_way_round_over_a_folder_outside_ends(photos: Path, tmp_path: Path) -> None:
    (photos / "ants" / "out").symlink_to(tmp_path)  # which holds photos
    there = below(photos, follows_out=True)
    assert len(there.files) == 6
    assert [each.path for each in there.again] == ["ants/out/photos"]


@pytest.mark.parametrize("store", [".dvc/cache/files/md5/ab", ".git/annex/objects/x"])
def test_links_into_the_stores_of_dvc_and_git_annex_are_files(
    photos: Path, layout: Layout, tmp_path: Path, store: str
) -> None:
    picture(tmp_path / store / "cd")
    (photos / "ants" / "x.png").symlink_to(tmp_path / store / "cd")
    assert run(photos, layout, max_quarantined_fraction=0.0).height == 7


def test_the_root_itself_may_be_a_link(photos: Path, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    assert run(tmp_path / "link", layout, max_quarantined_fraction=0.0).height == 6


def test_a_closed_folder_is_told(photos: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    list_of = os.scandir

    def closed(path: Path) -> object:  # nothing is closed to root, who may run the tests
        if Path(path).name == "bees":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return list_of(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match="bees: a folder that cannot be read: Permission denied"):
        run(photos, layout)


# Sizes


def test_a_file_that_is_too_large_is_not_read(photos: Path, layout: Layout) -> None:
    with (photos / "ants" / "sparse.jpg").open("wb") as file:
        file.truncate(6_000_000_000)
    assert run(photos, layout).height == 6
    assert quarantine(layout) == {"ants/sparse.jpg": "more than 1000 MB, which validate.max_mb allows"}


def test_a_known_file_is_looked_at_again_where_the_limit_is_lower(photos: Path, layout: Layout) -> None:
    (photos / "ants" / "large.bmp").write_bytes(encoded(photograph(7, 600, 600), "BMP"))
    for _ in range(2):
        assert run(photos, layout).height == 7
    assert run(photos, layout, max_mb=1).height == 6
    assert quarantine(layout) == {"ants/large.bmp": "more than 1 MB, which validate.max_mb allows"}


@pytest.mark.parametrize("root", ["a" * 300, "b/" * 3000, "nul\0.csv"])
def test_an_impossible_root_is_told(layout: Layout, root: str) -> None:
    with pytest.raises(DataError, match=r"^data\.root is "):
        run(root, layout)
