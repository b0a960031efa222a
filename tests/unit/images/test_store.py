"""The content store: names, IDs, transactions, garbage, damage."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ctr.errors import (
    ConflictError,
    DigestError,
    ImageError,
    InvalidError,
    NotFoundError,
    StateError,
)
from ctr.images import digest as digests
from ctr.images.build_image import _canonical, publish
from ctr.images.manifest import MAX_DOCUMENT, OCI_LAYER, OCI_MANIFEST, Descriptor, parse_manifest
from ctr.images.reference import parse
from ctr.images.store import ContentStore, Entry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "state" / "content"))


def add(store: ContentStore, *names: str, layers: tuple[bytes, ...] = (b"one", b"two")) -> str:
    """An image whose layers hold anything; returns its ID."""
    with store.ingest() as ingest:
        descriptors = [Descriptor(OCI_LAYER, *ingest.add(layer)) for layer in layers]
        config = {"rootfs": {"type": "layers", "diff_ids": [item.digest for item in descriptors]}}
        publish(ingest, config, descriptors, [str(parse(name)) for name in names])
    return store.resolve(names[0]).id


def blobs(store: ContentStore) -> set[str]:
    return set(os.listdir(os.path.join(store.root, "blobs", "sha256")))


def test_nothing_there(store: ContentStore) -> None:
    assert store.entries() == []
    assert store.gc() == []
    with pytest.raises(NotFoundError, match="cannot find image 'base'"):
        store.resolve("base")
    assert not os.path.exists(store.root)


def test_resolve(store: ContentStore) -> None:
    identity = add(store, "base")
    image = store.resolve("base")
    assert image == store.resolve("docker.io/library/base:latest") == store.resolve(identity)
    assert image == store.resolve(identity[7:11]) == store.resolve(identity[7:])
    assert image == store.resolve(f"base@{image.manifest_digest}")
    assert image == store.resolve(f"base:latest@{image.manifest_digest}")
    one, two = (f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (b"one", b"two"))
    chain = hashlib.sha256(f"{one} {two}".encode()).hexdigest()
    assert image.reference == "docker.io/library/base:latest"
    assert [layer.digest for layer in image.layers] == [one, two]
    assert [layer.diff_id for layer in image.layers] == [one, two]
    assert image.chain_ids == (one, f"sha256:{chain}")
    assert (image.top, image.size) == (f"sha256:{chain}", 6)
    for missing in ("base:1", f"other@{image.manifest_digest}", f"base:1@{image.manifest_digest}"):
        with pytest.raises(NotFoundError):
            store.resolve(missing)
    with pytest.raises(NotFoundError):
        store.resolve(identity[7:10])  # too short for an ID
    with pytest.raises(InvalidError):
        store.resolve("No Name")


def test_an_image_without_layers_has_a_key_for_nothing(store: ContentStore) -> None:
    add(store, "empty", layers=())
    image = store.resolve("empty")
    assert image.chain_ids == ()
    assert image.top == f"sha256:{hashlib.sha256().hexdigest()}" == digests.EMPTY


def test_ambiguous_id(store: ContentStore) -> None:
    by_prefix: dict[str, dict[str, Any]] = {}
    for number in itertools.count():  # four digits of two of many meet before long
        config = {"number": number, "rootfs": {"diff_ids": []}}
        prefix = digests.of_bytes(_canonical(config))[7:11]
        if prefix in by_prefix:
            break
        by_prefix[prefix] = config
    for name, which in (("first", by_prefix[prefix]), ("second", config)):
        with store.ingest() as ingest:
            publish(ingest, which, [], [str(parse(name))])
    with pytest.raises(InvalidError, match="ambiguous"):
        store.resolve(prefix)
    for name in ("first", "second"):
        assert store.resolve(store.resolve(name).id).reference == str(parse(name))


def test_layout_is_private_and_an_oci_layout(store: ContentStore) -> None:
    add(store, "base")
    for folder, folders, files in os.walk(os.path.dirname(store.root)):
        for name in [".", *folders]:
            assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o700
        for name in files:
            assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600
    with open(os.path.join(store.root, "oci-layout"), "rb") as file:
        assert json.load(file) == {"imageLayoutVersion": "1.0.0"}
    with open(os.path.join(store.root, "index.json"), "rb") as file:
        index = json.load(file)
    (entry,) = index["manifests"]
    assert index["schemaVersion"] == 2
    assert entry["mediaType"] == OCI_MANIFEST
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "docker.io/library/base:latest"
    }
    for name in blobs(store):
        with open(store.path(f"sha256:{name}"), "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == name


def test_names_move_and_leave_a_nameless_image(store: ContentStore) -> None:
    old = add(store, "base", layers=(b"old",))
    new = add(store, "base", layers=(b"new",))
    assert store.resolve("base").id == new
    assert store.resolve(old).reference == ""
    store.tag(old, parse("back:1"))
    assert store.resolve(old).reference == "docker.io/library/back:1"
    assert [entry.reference for entry in store.entries()].count("") == 0
    store.tag("base", parse("back:1"))
    assert store.resolve("back:1").id == new
    assert store.resolve(old).reference == ""


def test_remove(store: ContentStore) -> None:
    identity = add(store, "a", "b")
    removed = store.remove("a")
    assert (removed.references, removed.manifest_digest) == (("docker.io/library/a:latest",), "")
    assert store.gc() == []
    store.tag("b", parse("c"))
    with pytest.raises(ConflictError, match="more than one name"):
        store.remove(identity)
    manifest = store.resolve("b").manifest_digest
    removed = store.remove(identity[:20], force=True)
    assert len(removed.references) == 2
    assert removed.manifest_digest == manifest
    assert store.entries() == []
    with pytest.raises(NotFoundError):
        store.remove("b")


def test_gc_removes_what_nothing_needs(store: ContentStore) -> None:
    add(store, "keep", layers=(b"shared", b"kept"))
    add(store, "lease", layers=(b"shared", b"leased"))
    add(store, "drop", layers=(b"shared", b"dropped"))
    lease = store.resolve("lease").manifest_digest
    store.remove("lease")
    store.remove("drop")
    before = blobs(store)
    removed = store.gc([lease, f"sha256:{'0' * 64}"])
    assert len(removed) == 3  # manifest, configuration, layer
    assert f"sha256:{hashlib.sha256(b'dropped').hexdigest()}" in removed
    assert blobs(store) == before - {digest[7:] for digest in removed}
    assert store.resolve("keep").size == 10
    assert len(store.gc()) == 3
    store.remove("keep")
    store.gc()
    assert blobs(store) == set()


def test_what_is_not_committed_is_nowhere(store: ContentStore) -> None:
    with store.ingest() as ingest:
        ingest.add(b"lost")
    assert blobs(store) == set()
    assert os.listdir(os.path.join(store.root, "ingest")) == []


def test_gc_spares_a_running_ingest_and_sweeps_a_dead_one(store: ContentStore) -> None:
    script = (
        "import os, sys\n"
        "from ctr.images.store import ContentStore\n"
        "ingest = ContentStore(sys.argv[1]).ingest().__enter__()\n"
        "ingest.add(b'half')\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, store.root], check=False)
    (dead,) = os.listdir(os.path.join(store.root, "ingest"))
    with store.ingest() as ingest:
        digest, size = ingest.add(b"{}")
        store.gc()
        assert dead not in os.listdir(os.path.join(store.root, "ingest"))
        ingest.commit([Entry("", Descriptor(OCI_MANIFEST, digest, size))])
    assert blobs(store) == {digest[7:]}


def test_killed_between_blobs_and_index(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ContentStore, "change_locked", die)
    with pytest.raises(KeyboardInterrupt):
        add(store, "base")
    monkeypatch.undo()
    assert blobs(store)
    assert store.entries() == []
    store.gc()
    assert blobs(store) == set()


def test_streams_are_held_to_what_was_promised(store: ContentStore) -> None:
    data = b"layer" * 1000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    with store.ingest() as ingest:
        assert ingest.add_stream(io.BytesIO(data), limit=5000) == (digest, 5000)
        promised = {"digest": digest, "size": 5000}
        ingest.add_stream(io.BytesIO(data), limit=1 << 20, digest=digest, size=5000)
        for stream, wrong, error in (
            (data, {"limit": 4999}, ImageError),
            (data + b"x", {"limit": 1 << 20, **promised}, ImageError),
            (data[:-1], {"limit": 1 << 20, **promised}, DigestError),
            (data[:-1] + b"x", {"limit": 1 << 20, **promised}, DigestError),
            (data, {"limit": 1 << 20, "digest": f"sha256:{'0' * 64}"}, DigestError),
        ):
            arguments: dict[str, Any] = wrong
            with pytest.raises(error):
                ingest.add_stream(io.BytesIO(stream), **arguments)
        ingest.commit([])
    assert blobs(store) == {digest[7:]}


@pytest.mark.parametrize("which", ["manifest_digest", "id"])
def test_damaged_documents(store: ContentStore, which: str) -> None:
    add(store, "base")
    path = store.path(getattr(store.resolve("base"), which))
    with open(path, "r+b") as file:
        file.write(b"[")
    with pytest.raises(DigestError, match="its content is another") as caught:
        store.resolve("base")
    assert "ctr image rm base" in caught.value.hint
    os.unlink(path)
    with pytest.raises(StateError, match="No such file"):
        store.resolve("base")
    store.remove("base")
    store.gc()
    assert blobs(store) == set()


def test_ingesting_again_repairs(store: ContentStore) -> None:
    add(store, "base")
    layer = store.resolve("base").layers[0].digest
    with open(store.path(layer), "wb") as file:
        file.write(b"broken")
    with pytest.raises(DigestError):
        store.verify(layer)
    add(store, "base")
    store.verify(layer)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"manifests": 1}', '{"manifests": [1]}'])
def test_damaged_index(store: ContentStore, text: str) -> None:
    add(store, "base")
    path = os.path.join(store.root, "index.json")
    with open(path, "w") as file:
        file.write(text)
    for act in (lambda: store.resolve("base"), lambda: store.remove("base"), store.gc):
        with pytest.raises(StateError):
            act()
    with open(path) as file:
        assert file.read() == text


def test_index_of_another_tool_is_kept(store: ContentStore) -> None:
    add(store, "base")
    path = os.path.join(store.root, "index.json")
    with open(path) as file:
        index = json.load(file)
    index["manifests"][0]["platform"] = {"os": "linux"}
    index["manifests"].append(index["manifests"][0] | {"annotations": {"x": "y"}})
    with open(path, "w") as file:
        json.dump(index, file)
    store.tag("base", parse("other"))
    with open(path) as file:
        after = json.load(file)["manifests"]
    assert after[0]["platform"] == {"os": "linux"}
    assert [entry.reference for entry in store.entries()] == [
        "docker.io/library/base:latest",
        "docker.io/library/other:latest",
    ]


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../x", f"sha256:{'A' * 64}", "md5:a"])
def test_digests_never_become_other_paths(store: ContentStore, digest: str) -> None:
    with pytest.raises(InvalidError):
        store.path(digest)


def test_huge_documents_are_not_read(store: ContentStore) -> None:
    with store.ingest() as ingest:
        digest, size = ingest.add_stream(
            io.BytesIO(b" " * (MAX_DOCUMENT + 1)), limit=MAX_DOCUMENT * 2
        )
        ingest.commit(
            [Entry("docker.io/library/big:latest", Descriptor(OCI_MANIFEST, digest, size))]
        )
    with pytest.raises(ImageError, match="no document"):
        store.resolve("big")


_GOOD: dict[str, Any] = {
    "schemaVersion": 2,
    "config": {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{'a' * 64}",
        "size": 2,
    },
    "layers": [{"mediaType": OCI_LAYER, "digest": f"sha256:{'b' * 64}", "size": 3}],
}
_LAYER = _GOOD["layers"][0]


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaVersion": 1},
        {"mediaType": "text/html"},
        {"mediaType": 1},
        {"config": None},
        {"config": _GOOD["config"] | {"mediaType": "application/vnd.oci.empty.v1+json"}},
        {"layers": None},
        {"layers": {}},
        {"layers": [_LAYER] * 513},
        {"layers": [1]},
        {"layers": [_LAYER | {"digest": "sha256:../../etc/passwd"}]},
        {"layers": [_LAYER | {"digest": f"sha512:{'b' * 128}"}]},
        {"layers": [_LAYER | {"digest": None}]},
        {"layers": [_LAYER | {"size": -1}]},
        {"layers": [_LAYER | {"size": True}]},
        {"layers": [_LAYER | {"size": 1 << 63}]},
        {"layers": [_LAYER | {"size": "3"}]},
        {"layers": [_LAYER | {"mediaType": "application/x-unknown"}]},
        {"layers": [_LAYER | {"mediaType": f"{OCI_LAYER}+nothing"}]},
        {
            "layers": [
                _LAYER | {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}
            ]
        },
    ],
)
def test_bad_manifests(changes: dict[str, Any]) -> None:
    parse_manifest(json.dumps(_GOOD).encode(), "it")
    with pytest.raises(ImageError, match=r"cannot (read|use) it"):
        parse_manifest(json.dumps(_GOOD | changes).encode(), "it")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"nul", b"\xff", b"[" * 100_000, b"9" * 10_000, b'{"a":' * 50_000]
)
def test_bad_json(data: bytes) -> None:
    with pytest.raises(ImageError, match="cannot read it"):
        parse_manifest(data, "it")


_WRITER = """
import sys
from ctr.images.store import ContentStore
from ctr.images.build_image import publish
from ctr.images.manifest import OCI_LAYER, Descriptor
store = ContentStore(sys.argv[1])
for number in range(5):
    with store.ingest() as ingest:
        layer = Descriptor(OCI_LAYER, *ingest.add(f"{sys.argv[2]} {number}".encode()))
        config = {"rootfs": {"type": "layers", "diff_ids": [layer.digest]}}
        publish(ingest, config, [layer], [f"docker.io/library/w{sys.argv[2]}:{number}"])
    store.gc()
"""


def test_many_writers_and_collectors_at_once(store: ContentStore) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, store.root, str(number)])
        for number in range(4)
    ]
    while any(writer.poll() is None for writer in writers):
        for image in store.images():
            for layer in image.layers:
                store.verify(layer.digest)
    assert [writer.returncode for writer in writers] == [0] * 4
    assert len(store.images()) == 20
    assert len(blobs(store)) == 60
