from __future__ import annotations

import hashlib
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from headstart import params
from headstart.backbones import weights
from headstart.backbones.weights import Published
from headstart.base.errors import HeadstartError, ParamError, UnreachableError
from headstart.base.licences import Licence
from tests.support.backbones import settings
from tests.support.server import Server

DATA = b"weights" * 1000
LICENCE = Licence("CC-BY-NC-4.0", "the library says so")
SHA256 = hashlib.sha256(DATA).hexdigest()


def published(url: str, is_on_hub: bool = False) -> Published:
    return Published("torchvision: NET", LICENCE, url, url.rpartition("/")[2], is_on_hub)


def choose(folder: Path, values: params.Backbone, source: Published | None = None) -> tuple[Published, Path | None]:
    return weights.choose(values, "torchvision/net", source or published(""), folder, ignore, ignore)


def ignore(said: object) -> None:
    """Neither report nor judge."""


def refusal(
    folder: Path,
    values: params.Backbone,
    source: Published | None = None,
    kind: type[HeadstartError] = ParamError,
) -> str:
    with pytest.raises(kind) as error:
        choose(folder, values, source)
    return str(error.value)


def test_default_weights_are_downloaded_once_and_verified_by_the_digest_in_their_name(
    server: Server, tmp_path: Path
) -> None:
    name = f"net-{SHA256[:8]}.pth"
    server.files[f"/models/{name}"] = DATA
    for _ in range(2):
        _, path = choose(tmp_path, settings(weights="default"), published(f"{server.url}/models/{name}"))
        assert path == tmp_path / name
        assert path.read_bytes() == DATA
    assert server.asked == [f"GET /models/{name}"]


def test_a_tampered_download_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    name = f"net-{SHA256[:8]}.pth"
    server.files[f"/{name}"] = DATA[:-1] + b"x"
    message = refusal(tmp_path, settings(weights="default"), published(f"{server.url}/{name}"))
    assert f"{SHA256[:8]} was expected. The download was removed." in message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_altered_after_its_download_is_refused(server: Server, tmp_path: Path) -> None:
    name = f"net-{SHA256[:8]}.pth"
    (tmp_path / name).write_bytes(b"altered")
    message = refusal(tmp_path, settings(weights="default"), published(f"{server.url}/{name}"))
    assert "Remove it, and it is downloaded again" in message
    assert server.asked == []


def test_a_connection_that_closes_early_leaves_nothing(server: Server, tmp_path: Path) -> None:
    name = f"net-{SHA256[:8]}.pth"
    server.files[f"/{name}"] = DATA
    server.promise_more = 5
    message = refusal(tmp_path, settings(weights="default"), published(f"{server.url}/{name}"), UnreachableError)
    assert "cannot be fetched" in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_says_which_file_to_put_where_and_then_it_works(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/net-{SHA256[:8]}.pth"
        source = published(url)
    message = refusal(tmp_path, settings(weights="default"), source, UnreachableError)
    place = tmp_path / f"net-{SHA256[:8]}.pth"
    assert message.startswith(f"{url} cannot be fetched (")
    assert f"put it at {place}" in message
    place.write_bytes(DATA)
    assert choose(tmp_path, settings(weights="default"), source)[1] == place


def test_a_missing_file_on_the_server_is_told(server: Server, tmp_path: Path) -> None:
    message = refusal(tmp_path, settings(weights="default"), published(f"{server.url}/net-{SHA256[:8]}.pth"))
    assert "cannot be fetched (HTTP Error 404" in message


def test_weights_on_a_hub_are_verified_by_the_digest_in_its_header(server: Server, tmp_path: Path) -> None:
    path = "/timm/net/resolve/main/model.safetensors"
    server.files["/storage/abc"] = DATA
    server.redirects[path] = f"{server.url}/storage/abc"
    server.headers[path] = {"X-Linked-ETag": f'"{SHA256}"'}
    for _ in range(2):
        _, found = choose(tmp_path, settings(weights="default"), published(f"{server.url}{path}", is_on_hub=True))
        assert found is not None
        assert found.read_bytes() == DATA
    assert server.asked == [f"HEAD {path}", f"GET {path}", "GET /storage/abc"]
    (tmp_path / found.name).write_bytes(b"altered")
    message = refusal(tmp_path, settings(weights="default"), published(f"{server.url}{path}", is_on_hub=True))
    assert f"{SHA256} was expected" in message


def test_a_renamed_repository_on_a_hub_is_followed(server: Server, tmp_path: Path) -> None:
    old, new = "/timm/old/resolve/main/model.safetensors", "/timm/new/resolve/main/model.safetensors"
    server.redirects[old] = new
    server.files[new] = DATA
    server.headers[new] = {"X-Linked-ETag": SHA256}
    _, found = choose(tmp_path, settings(weights="default"), published(f"{server.url}{old}", is_on_hub=True))
    assert found is not None
    assert found.read_bytes() == DATA


def test_weights_that_nothing_vouches_for_are_not_downloaded(server: Server, tmp_path: Path) -> None:
    server.files["/net.pth"] = DATA
    source = published(f"{server.url}/net.pth")
    assert "No checksum is published" in refusal(tmp_path, settings(weights="default"), source)
    _, found = choose(tmp_path, settings(weights="default", sha256=SHA256), source)
    assert found == tmp_path / "net.pth"


def test_a_model_without_published_weights_is_told(tmp_path: Path) -> None:
    assert "there are no pretrained weights" in refusal(tmp_path, settings(weights="default"))


def test_a_url_needs_a_digest_and_is_verified(server: Server, tmp_path: Path) -> None:
    server.files["/mine/model.safetensors"] = DATA
    url = f"{server.url}/mine/model.safetensors"
    assert "verified against a known digest" in refusal(tmp_path, settings(weights=url))
    assert server.asked == []
    _, found = choose(tmp_path, settings(weights=url, sha256=SHA256))
    assert found is not None
    assert found.name == f"model-{SHA256[:8]}.safetensors"
    other = "ab" * 32
    assert f"{other} was expected" in refusal(tmp_path, settings(weights=url, sha256=other))
    assert [path.name for path in tmp_path.iterdir()] == [found.name]


def test_a_file_needs_its_digest_and_is_verified(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    file.write_bytes(DATA)
    assert f"to its digest: {SHA256}" in refusal(tmp_path, settings(weights=str(file)))
    assert "Make sure that it is the file you want" in refusal(tmp_path, settings(weights=str(file), sha256="ab" * 32))
    source, found = choose(tmp_path, settings(weights=str(file), sha256=SHA256))
    assert found == file
    assert source.weights == "file: mine.pth"


def test_a_misspelt_kind_of_weights_is_told_with_the_nearest(tmp_path: Path) -> None:
    assert "there is no such file. Did you mean 'bundled'?" in refusal(tmp_path, settings(weights="bundeld"))


def test_bundled_weights_are_for_one_network(tmp_path: Path) -> None:
    assert "'torchvision/net', which has no bundled weights" in refusal(tmp_path, settings(name="net"))


def test_random_weights_have_no_digest_to_check(tmp_path: Path) -> None:
    assert choose(tmp_path, settings(weights="random"))[1] is None
    assert "there is no file to verify" in refusal(tmp_path, settings(weights="random", sha256=SHA256))


def test_a_licence_that_is_refused_stops_the_download(server: Server, tmp_path: Path) -> None:
    name = f"net-{SHA256[:8]}.pth"
    server.files[f"/{name}"] = DATA

    def refuse(licence: Licence) -> None:
        raise ParamError(licence.name)

    with pytest.raises(ParamError, match="CC-BY-NC"):
        weights.choose(
            settings(weights="default"), "torchvision/net", published(f"{server.url}/{name}"), tmp_path, ignore, refuse
        )
    assert server.asked == []
    file = tmp_path / "mine.pth"
    file.write_bytes(DATA)
    own = settings(weights=str(file), sha256=SHA256)
    with pytest.raises(ParamError, match="unknown"):
        weights.choose(own, "torchvision/net", published(""), tmp_path, ignore, refuse)


@pytest.mark.parametrize("kind", ["default", "bundled", "file"])
def test_the_user_may_name_the_licence_and_what_the_publisher_says_is_kept(kind: str, tmp_path: Path) -> None:
    changed = {"weights": str(tmp_path / "mine.pth") if kind == "file" else kind}
    known = {"default": LICENCE, "bundled": LICENCE}
    own = known.get(kind, Licence("unknown", "they are a file that you gave"))
    assert weights.licence_of(settings(**changed), LICENCE) == own
    stated = weights.licence_of(settings(**changed, licence="MIT"), LICENCE)
    assert stated == (
        "MIT",
        f"backbone.licence in params.yaml; without it {own.name}, for {own.source}",
    )


def test_random_weights_have_no_licence(tmp_path: Path) -> None:
    assert weights.licence_of(settings(weights="random"), LICENCE).name == "none"
    assert "these have no licence" in refusal(tmp_path, settings(weights="random", licence="MIT"))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any) -> None:
    monkeypatch.chdir(tmp_path)
    save({"weight": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(ParamError, match="Nothing is ever unpickled"):
        weights.read(tmp_path / "evil.pth")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_state_dict_is_read_wherever_it_stands(tmp_path: Path, wrap: Any) -> None:
    state = {"module.weight": torch.ones(2), "module.bias": torch.zeros(2)}
    torch.save(wrap(state), tmp_path / "a.pth")
    assert set(weights.read(tmp_path / "a.pth")) == {"weight", "bias"}
    save_file(state, tmp_path / "a.safetensors")
    assert set(weights.read(tmp_path / "a.safetensors")) == {"weight", "bias"}


def test_a_file_without_a_state_dict_is_told(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(ParamError, match="holds no state dict"):
        weights.read(tmp_path / "a.pth")
