"""A network on the hub is one commit of it, with verified files; what cannot be had is told with what to do."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from headstart.backbones import hub as client
from headstart.backbones import kept, networks
from headstart.base.errors import HeadstartError, ParamError, UnreachableError
from tests.support.backbones import settings
from tests.support.hub import TOKEN, Hub, card, of_timm
from tests.support.server import Server

NAME = "hf-hub:mine/net"
WEIGHTS = b"weights" * 1000
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": card()}


def ignore(message: str) -> None:
    """Tell nobody."""


def pinned(folder: Path, name: str = NAME) -> client.Pin:
    return client.pinned(name, folder, ignore)


def refusal(folder: Path, name: str = NAME, kind: type[HeadstartError] = ParamError) -> str:
    """Return why neither the commit nor the weights can be had."""
    with pytest.raises(kind) as error:
        client.weights(pinned(folder, name), None, ignore)
    return str(error.value)


def test_a_branch_is_a_commit_from_its_first_use_on_and_later_runs_ask_nobody(hub: Hub, tmp_path: Path) -> None:
    repository, said = hub.publish("mine/net", FILES), []
    first = client.pinned(NAME, tmp_path, said.append)
    path, digest = client.weights(first, None, said.append)
    assert (path.read_bytes(), digest) == (WEIGHTS, hashlib.sha256(WEIGHTS).hexdigest())
    assert first.commit == repository.names["main"]
    assert said[0].startswith(f"mine/net: 'main' is commit {first.commit[:12]}, which {tmp_path}/hf-hub/mine--net@main")
    assert said[0].endswith(f"set backbone.name=hf-hub:mine/net@{first.commit}")
    assert said[1:] == ["downloading model.safetensors of mine/net (0.0 MB)"]
    repository.commit({**FILES, "model.safetensors": b"others"})
    n_asked = len(hub.asked)
    assert client.pinned(NAME, tmp_path, said.append) == first
    assert client.weights(first, None, said.append) == (path, digest)
    assert (len(hub.asked), len(said)) == (n_asked, 2)
    assert pinned(tmp_path / "another project").commit == repository.names["main"] != first.commit


def test_a_tag_a_commit_and_a_pull_request_can_be_named(hub: Hub, tmp_path: Path) -> None:
    repository = hub.publish("mine/net", FILES)
    old = repository.commit({**FILES, "README.md": b"old"}, "v1")
    of_request = repository.commit({**FILES, "README.md": b"converted"}, "refs/pr/1")
    assert pinned(tmp_path, f"{NAME}@v1").commit == old
    assert pinned(tmp_path, f"{NAME}@refs/pr/1").commit == of_request
    assert pinned(tmp_path, f"{NAME}@{old}").commit == old
    assert client.commit_of(f"{NAME}@{'ab' * 20}", tmp_path, ignore) == "ab" * 20  # asks nobody
    assert "has no revision 'v2'. A branch, a tag or a commit of" in refusal(tmp_path, f"{NAME}@v2")


def test_a_note_that_is_cut_off_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", FILES)
    first = pinned(tmp_path)
    (note,) = (tmp_path / "hf-hub").iterdir()
    note.write_bytes(note.read_bytes()[:40])
    assert pinned(tmp_path) == first


@pytest.mark.parametrize(
    "name",
    ["hf-hub:", "hf-hub:a/b/c", "hf-hub:a b/c", "hf-hub:a/b@", "hf-hub:../b", "hf-hub:a/b@../c", "hf-hub:a--b/c"],
)
def test_a_name_that_cannot_be_one_is_told_with_an_example(name: str, tmp_path: Path) -> None:
    assert f"backbone.name is '{name}'. hf-hub:OWNER/NAME, such as hf-hub:timm/resnet18.a1_in1k, was" in refusal(
        tmp_path, name
    )


def test_a_name_that_the_hub_does_not_allow_is_told(hub: Hub, tmp_path: Path) -> None:
    assert "which no repository can have as its name (" in refusal(tmp_path, f"hf-hub:mine/{'x' * 97}")
    assert "which no repository can have as its name (" in refusal(tmp_path, "hf-hub:mine/net.git")


def test_a_missing_or_private_repository_is_told_with_what_to_do(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", FILES, is_private=True)
    assert refusal(tmp_path) == (
        f"hf-hub:mine/net is not on {hub.url}, or it is private. Check the spelling of backbone.name in params.yaml"
        " (OWNER/NAME, as in the address of its page); if it is private, log in by `hf auth login`, or set HF_TOKEN to"
        " a token that may read it."
    )
    assert "hf-hub:mine/nett is not on" in refusal(tmp_path, "hf-hub:mine/nett")


def test_a_gated_repository_is_told_with_where_to_accept_its_terms(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = hub.publish("mine/net", FILES, is_gated=True)
    expected = (
        "hf-hub:mine/net is gated: its owner asks everyone to accept terms first. Accept them on"
        f" {hub.url}/mine/net, then log in by `hf auth login`, or set HF_TOKEN to a token that may read it, and run"
        " again."
    )
    assert refusal(tmp_path) == expected
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refusal(tmp_path) == expected
    repository.accepted.add(TOKEN)
    assert client.weights(pinned(tmp_path), None, ignore)[0].read_bytes() == WEIGHTS


def test_a_token_that_the_hub_does_not_know_is_told(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("mine/net", FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "cannot be read: the hub does not accept your token (HTTP 401). Run `hf auth login` again" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_down_may_heal(hub: Hub, tmp_path: Path, status: int) -> None:
    hub.fails_with = status
    assert f"hf-hub:mine/net cannot be fetched from {hub.url}" in refusal(tmp_path, kind=UnreachableError)


def test_a_server_that_is_no_hub_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for answer in (b"<html>", b"[]", b"{}", b'{"id": "mine/net"}', b'{"id": "mine/net", "sha": "x"}'):
        server.files["/api/models/mine/net/revision/main?blobs=true"] = answer
        server.files["/api/models/mine/net/revision/main?blobs=True"] = answer
        assert f"{server.url} does not answer as a hub does (" in refusal(tmp_path)


def test_without_a_network_the_message_says_how_to_fetch_it_elsewhere(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
    said = refusal(tmp_path, kind=UnreachableError)
    assert "Try again. Without a network, fetch it by `hf download mine/net --revision main` elsewhere" in said


def test_offline_reads_what_is_there_and_tells_what_is_not(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.publish("mine/net", FILES)
    path, digest = client.weights(pinned(tmp_path), None, ignore)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    n_asked = len(hub.asked)
    assert client.weights(pinned(tmp_path), None, ignore) == (path, digest)
    said = refusal(tmp_path, "hf-hub:mine/other", UnreachableError)
    assert "is not in the cache of this machine, and HF_HUB_OFFLINE forbids to ask the hub. Unset it" in said
    assert len(hub.asked) == n_asked


def test_only_safetensors_are_taken(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", {"config.json": b"{}", "pytorch_model.bin": b"pickle", "tf_model.h5": b"keras"})
    assert refusal(tmp_path) == (
        "hf-hub:mine/net has no model.safetensors, and pickles are never read, because that can run code. It has"
        " pytorch_model.bin, tf_model.h5. Choose another backbone.name, or a revision that has it, such as"
        " hf-hub:mine/net@refs/pr/1 where its Community page offers one, in params.yaml."
    )
    assert not any("pytorch_model" in asked for asked in hub.asked)
    hub.publish("mine/big", {"config.json": b"{}", "model.safetensors.index.json": b"{}"})
    assert "its weights are in several files, too large for one ONNX file" in refusal(tmp_path, "hf-hub:mine/big")


def test_weights_with_another_digest_than_the_hub_names_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", FILES)
    pin = pinned(tmp_path)
    hub.storage[hashlib.sha256(WEIGHTS).hexdigest()] = b"tampered" * 875  # of the same size
    said = refusal(tmp_path)
    assert "is not model.safetensors of hf-hub:mine/net: its digest is " in said
    assert f"and the hub names {hashlib.sha256(WEIGHTS).hexdigest()}. Remove " in said
    blob = Path(said.rpartition("Remove ")[2].partition(", and it is downloaded")[0])
    blob.unlink()
    hub.storage.clear()
    assert client.weights(pin, None, ignore)[0].read_bytes() == WEIGHTS


def test_a_configuration_with_another_digest_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", FILES)
    pin = pinned(tmp_path)
    assert client.text(pin, "config.json") == (b"{}", hashlib.sha256(b"{}").hexdigest())
    next((tmp_path / "hf-cache").glob("**/snapshots/*/config.json")).resolve().write_bytes(b"[]")
    with pytest.raises(ParamError, match=r"is not config\.json of hf-hub:mine/net"):
        client.text(pin, "config.json")
    with pytest.raises(ParamError, match=r"has no preprocessor_config\.json, so it is no network of timm or Tr"):
        client.text(pin, "preprocessor_config.json")


def test_a_digest_in_params_yaml_is_held_to(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", FILES)
    pin = pinned(tmp_path)
    with pytest.raises(ParamError, match=f"{'ab' * 32} was expected. Make sure that it is the file you want"):
        client.weights(pin, "ab" * 32, ignore)
    hub.names_digests = False  # as some mirrors
    pin = pinned(tmp_path / "mirror")
    with pytest.raises(ParamError, match=r"the hub names no checksum of model.safetensors"):
        client.weights(pin, None, ignore)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert client.weights(pin, digest, ignore)[1] == digest


@pytest.mark.parametrize(
    ("readme", "expected", "source"),
    [
        (card("apache-2.0"), "Apache-2.0", "the model card of mine/net says 'apache-2.0'"),
        (card("mit"), "MIT", "the model card of mine/net says 'mit'"),
        (card("cc-by-nc-4.0"), "CC-BY-NC-4.0", "the model card of mine/net says 'cc-by-nc-4.0'"),
        (card("openrail"), "LicenseRef-openrail", "the model card of mine/net says 'openrail'"),
        (card("other\nlicense_name: dinov3"), "LicenseRef-dinov3", "the model card of mine/net says 'dinov3'"),
        (card("other"), "unknown", "the model card of mine/net says 'other'"),
        (card("[mit, gpl-3.0]"), "unknown", "the model card of mine/net says ['mit', 'gpl-3.0']"),
        (card(None), "unknown", "the model card of mine/net states none"),
        (b"---\nlicense: [\n---\n", "unknown", "the model card of mine/net cannot be read"),
        (b"---\r\nlicense: mit\r\n---\r\n", "MIT", "the model card of mine/net says 'mit'"),
        (None, "unknown", "mine/net has no model card"),
    ],
)
def test_the_licence_is_what_the_model_card_states(
    hub: Hub, tmp_path: Path, readme: bytes | None, expected: str, source: str
) -> None:
    files = {name: data for name, data in {**FILES, "README.md": readme}.items() if data is not None}
    hub.publish("mine/net", files)
    assert client.licence(pinned(tmp_path)) == (expected, source)


def test_a_licence_that_may_not_ship_ends_the_run_before_weights_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    files, _ = of_timm()
    hub.publish("mine/net", {**files, "README.md": card("cc-by-nc-4.0")})

    def refuse(licence: object) -> None:
        raise ParamError(str(licence))

    with pytest.raises(ParamError, match="CC-BY-NC-4"):
        networks.load(settings(name=NAME, weights="default"), tmp_path, ignore, refuse)
    assert not any("safetensors" in asked for asked in hub.asked)


def test_an_export_is_kept_by_the_commit(hub: Hub, tmp_path: Path) -> None:
    given = settings(name=NAME, weights="default")
    repository = hub.publish("mine/net", FILES)
    first = kept.made_for(given, "crop", tmp_path / "one")
    repository.commit({**FILES, "model.safetensors": b"others"})
    assert kept.made_for(given, "crop") is None
    assert kept.made_for(given, "crop", tmp_path / "one") == first is not None
    assert kept.made_for(given, "crop", tmp_path / "two") not in (first, None)
