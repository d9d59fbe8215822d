"""What a candidate is called, and what of it the winner keeps."""

from __future__ import annotations

from pathlib import Path

from headstart.backbones import hub as on_hub
from headstart.ranking import candidates
from tests.support.backbones import settings
from tests.support.hub import Hub


def test_a_network_on_a_hub_is_compared_and_wins_by_its_commit(hub: Hub, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    repository = hub.publish("mine/net", files)
    commit = repository.names["main"]
    found = candidates._settled(settings(name="hf-hub:mine/net", weights="auto"), tmp_path)
    assert (found.name, found.weights) == (f"hf-hub:mine/net@{commit}", "default")
    repository.commit({**files, "README.md": b"another"})
    hub.asked.clear()
    assert on_hub.pinned(found.name, tmp_path, print).commit == commit
    assert hub.asked == []  # the branch was resolved to it before
    assert candidates._settled(found, tmp_path) == found


def test_a_url_gives_a_candidate_the_name_of_its_file_and_none_of_its_secrets() -> None:
    given = [
        "https://me:SECRET@host/folder/m.pth?X-Amz-Signature=SECRET#SECRET",
        "https://host/a/m.pth?next=/SECRET",
        "https://me:SECRET@host/?key=SECRET",
        "folder/which?#1.pth",
    ]
    named = candidates.labels([settings(name="resnet18", weights=each) for each in given])
    assert named == ["resnet18 (m.pth) #1", "resnet18 (m.pth) #2", "resnet18 (host)", "resnet18 (which?#1.pth)"]
