"""Import and load: what people have, and what attackers make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from ctr.errors import CtrError, DigestError, ImageError, InvalidError
from ctr.images.build_image import architecture
from ctr.images.compression import FileStream, decompressed
from ctr.images.importer import import_rootfs
from ctr.images.load import load
from ctr.images.manifest import DOCKER_INDEX, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from ctr.images.reference import parse
from ctr.images.store import ContentStore
from ctr.images.tar import Limits, TarReader

if TYPE_CHECKING:
    from pathlib import Path

REF_NAME = "org.opencontainers.image.ref.name"
NAME = parse("mine")


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "content"))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


LAYER = tar({"hello": b"world"})


class Layout:
    """An OCI layout in the making."""

    def __init__(self) -> None:
        self.files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(self, data: bytes | dict[str, Any], media_type: str) -> dict[str, Any]:
        if isinstance(data, dict):
            data = json.dumps(data).encode()
        self.files[f"blobs/sha256/{digest(data)[7:]}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def image(
        self,
        *,
        layer: bytes = LAYER,
        media_type: str = OCI_LAYER,
        diff_ids: list[str] | None = None,
        section: object = None,
    ) -> dict[str, Any]:
        config = {
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(LAYER)]},
            "config": section,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(config, OCI_CONFIG),
            "layers": [self.blob(layer, media_type)],
        }
        return self.blob(manifest, OCI_MANIFEST)

    def index(self, *manifests: dict[str, Any]) -> Layout:
        document = {"schemaVersion": 2, "manifests": list(manifests)}
        self.files["index.json"] = json.dumps(document).encode()
        return self

    def folder(self, path: Path) -> str:
        for name, data in self.files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return str(path)

    def archive(self, path: Path) -> str:
        path.write_bytes(tar(self.files))
        return str(path)


def named(descriptor: dict[str, Any], name: str, key: str = REF_NAME) -> dict[str, Any]:
    return descriptor | {"annotations": {key: name}}


def assert_nothing_left(store: ContentStore) -> None:
    for folder, _, files in os.walk(store.root):
        assert folder == store.root or not files, (folder, files)
    assert store.entries() == []
    assert os.listdir(os.path.join(store.root, "ingest")) == []


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_oci_layout(store: ContentStore, tmp_path: Path, form: str) -> None:
    layout = Layout()
    image = layout.image()
    layout.files["blobs/sha256/" + digest(b"unused")[7:]] = b"unused"
    layout.index(
        named(image, "quay.io/me/tool:1"),
        named(image, "docker.io/library/tool:2", "io.containerd.image.name"),
        named(image, "v3"),  # a tag alone is no name
    )
    found = load(store, getattr(layout, form)(tmp_path / "in"))
    assert [item.reference for item in found] == [
        "quay.io/me/tool:1", "docker.io/library/tool:2", ""
    ]  # fmt: skip
    assert {item.manifest_digest for item in found} == {image["digest"]}
    assert store.resolve("tool:2").layers[0].digest == digest(LAYER)
    assert store.gc() == []  # the unused blob never came in
    assert len(os.listdir(os.path.join(store.root, "blobs/sha256"))) == 3


def test_our_own_layout_comes_back_the_same(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    image = import_rootfs(store, str(tmp_path / "root"), NAME)
    other = ContentStore(str(tmp_path / "other"))
    assert load(other, store.root) == [image]


def test_index_of_platforms(store: ContentStore, tmp_path: Path) -> None:
    layout = Layout()
    ours = layout.image() | {"platform": {"os": "linux", "architecture": architecture()}}
    other = layout.image(section={"User": "x"}) | {
        "platform": {"os": "linux", "architecture": "pdp11"}
    }
    inner = layout.blob({"schemaVersion": 2, "manifests": [other, ours]}, OCI_INDEX)
    outer = layout.blob({"schemaVersion": 2, "manifests": [inner]}, DOCKER_INDEX)
    attestation = layout.image(section={"User": "y"}) | {
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"}
    }
    layout.index(named(outer, "a/b"), attestation)
    (found,) = load(store, layout.archive(tmp_path / "in"))
    assert found.manifest_digest == ours["digest"]
    lonely = layout.blob({"schemaVersion": 2, "manifests": [other]}, OCI_INDEX)
    with pytest.raises(ImageError, match="only for linux/pdp11"):
        load(store, layout.index(lonely).archive(tmp_path / "in"))


def docker_archive(*, tags: object = ("me/old:1",), legacy: bool = True, **changes: Any) -> bytes:
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(LAYER)] * 2}}).encode()
    name = digest(config)[7:]
    config_name = f"{name}.json" if legacy else f"blobs/sha256/{name}"
    manifest = {"Config": config_name, "RepoTags": tags, "Layers": ["1/layer.tar", "2/layer.tar"]}
    if not legacy:
        manifest["Layers"] = [f"blobs/sha256/{digest(LAYER)[7:]}"] * 2
    files = {config_name: config, "repositories": b"{}"}
    files["1/layer.tar" if legacy else f"blobs/sha256/{digest(LAYER)[7:]}"] = LAYER
    files["manifest.json"] = json.dumps([manifest | changes]).encode()
    return tar(files, {"2/layer.tar": "../1/layer.tar"} if legacy else {})


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_docker_archive(store: ContentStore, tmp_path: Path, legacy: bool, compress: bool) -> None:
    data = docker_archive(legacy=legacy)
    (tmp_path / "in").write_bytes(gzip.compress(data) if compress else data)
    (found,) = load(store, str(tmp_path / "in"))
    assert found.reference == "docker.io/me/old:1"
    assert [layer.digest for layer in found.layers] == [digest(LAYER)] * 2
    assert store.gc() == []


def test_docker_archive_without_a_name(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(docker_archive(tags=None))
    (found,) = load(store, str(tmp_path / "in"))
    assert found.reference == ""
    assert store.resolve(found.id) == found


def test_an_archive_that_is_both_is_read_as_oci(store: ContentStore, tmp_path: Path) -> None:
    layout = Layout()
    layout.index(named(layout.image(), "a:1"))
    layout.files["manifest.json"] = b"not even JSON"
    assert load(store, layout.archive(tmp_path / "in"))[0].reference == "docker.io/library/a:1"


def with_change(name: str, data: bytes) -> bytes:
    layout = Layout()
    layout.index(layout.image())
    return tar(layout.files | {name: data})


def with_image(**values: Any) -> bytes:
    layout = Layout()
    return tar(layout.index(layout.image(**values)).files)


def with_entry(**changes: Any) -> bytes:
    layout = Layout()
    return tar(layout.index(layout.image() | changes).files)


def without_layer() -> bytes:
    layout = Layout()
    layout.index(layout.image())
    del layout.files[f"blobs/sha256/{digest(LAYER)[7:]}"]
    return tar(layout.files)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        pytest.param(b"", ImageError, "neither", id="empty"),
        pytest.param(b"text\n" * 200, ImageError, "checksum", id="text"),
        pytest.param(tar({"etc/passwd": b""}), ImageError, "neither", id="root file system"),
        pytest.param(b"\x28\xb5\x2f\xfd" * 99, ImageError, "zstd", id="zstd"),
        pytest.param(gzip.compress(LAYER)[:-9], ImageError, "truncated", id="truncated gzip"),
        pytest.param(with_change("../x", b""), ImageError, r"\.\.", id="dot dot"),
        pytest.param(
            with_change(f"blobs/sha256/{'0' * 64}", b"x"), DigestError, "content", id="blob"
        ),
        pytest.param(with_change("oci-layout", b"{}"), ImageError, "1.0.0", id="version"),
        pytest.param(with_change("oci-layout", b"[]"), ImageError, "object", id="no object"),
        pytest.param(with_change("index.json", b"{"), ImageError, "JSON", id="no JSON"),
        pytest.param(with_change("index.json", b"{}"), ImageError, "list", id="no list"),
        pytest.param(
            with_change("index.json", b'{"manifests": []}'), ImageError, "no image", id="no image"
        ),
        pytest.param(
            with_change("index.json", b'{"manifests": [{}]}'), ImageError, "media", id="no type"
        ),
        pytest.param(
            with_change("index.json", b" " * (5 << 20)), ImageError, "larger", id="huge index"
        ),
        pytest.param(with_change("index.json", b"[" * 9999), ImageError, "JSON", id="deep JSON"),
        pytest.param(with_entry(digest=f"sha256:{'0' * 64}"), ImageError, "missing", id="missing"),
        pytest.param(
            with_entry(digest="sha256:../../x"), ImageError, "digest", id="path as digest"
        ),
        pytest.param(with_entry(size=3), DigestError, "content", id="wrong size"),
        pytest.param(with_entry(size=1 << 40), ImageError, "JSON", id="huge manifest"),
        pytest.param(with_entry(mediaType="x/y"), ImageError, "unknown media", id="media type"),
        pytest.param(with_entry(mediaType=OCI_INDEX), ImageError, "list", id="manifest as index"),
        pytest.param(with_entry(annotations={REF_NAME: "A/B"}), InvalidError, "lower", id="name"),
        pytest.param(without_layer(), ImageError, "missing", id="no layer"),
        pytest.param(with_image(layer=b"other"), DigestError, "should be", id="diff_id"),
        pytest.param(
            with_image(media_type=f"{OCI_LAYER}+zstd"), ImageError, "zstd", id="zstd layer"
        ),
        pytest.param(with_image(media_type="x/y"), ImageError, "unknown media", id="layer type"),
        pytest.param(with_image(diff_ids=["x"]), ImageError, "diff_ids", id="diff_ids"),
        pytest.param(
            with_image(diff_ids=[digest(LAYER)] * 2), ImageError, "2 rootfs", id="too many diff_ids"
        ),
        pytest.param(with_image(section={"Env": 1}), ImageError, "Env", id="configuration"),
        pytest.param(
            with_image(section={"Volumes": {"/../..": {}}}), ImageError, "Volumes", id="volume"
        ),
        pytest.param(docker_archive(Config="x"), ImageError, "missing", id="docker config"),
        pytest.param(docker_archive(Config=1), ImageError, "Config", id="docker config type"),
        pytest.param(
            docker_archive(Config="../../etc/passwd"), ImageError, "missing", id="docker path"
        ),
        pytest.param(docker_archive(Layers="x"), ImageError, "Layers", id="docker layers"),
        pytest.param(docker_archive(Layers=["/etc/passwd"] * 2), ImageError, "missing", id="layer"),
        pytest.param(docker_archive(Layers=["1/layer.tar"]), ImageError, "1 layers", id="count"),
        pytest.param(docker_archive(tags=[1]), ImageError, "RepoTags", id="docker tags"),
        pytest.param(docker_archive(tags=["X"]), InvalidError, "lower", id="docker name"),
        pytest.param(
            docker_archive(Layers=["1/layer.tar", "repositories"]), DigestError, "should", id="tar"
        ),
    ],
)
def test_bad_archives_leave_nothing(
    store: ContentStore, tmp_path: Path, data: bytes, error: type[CtrError], match: str
) -> None:
    (tmp_path / "in").write_bytes(data)
    with pytest.raises(error, match=match) as caught:
        load(store, str(tmp_path / "in"))
    assert "\n" not in caught.value.message
    assert_nothing_left(store)


def test_docker_config_under_a_wrong_digest(store: ContentStore, tmp_path: Path) -> None:
    name = f"{'0' * 64}.json"
    manifest: list[dict[str, Any]] = [{"Config": name, "RepoTags": None, "Layers": []}]
    (tmp_path / "in").write_bytes(
        tar({name: b"{}", "manifest.json": json.dumps(manifest).encode()})
    )
    with pytest.raises(DigestError):
        load(store, str(tmp_path / "in"))


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_folder_that_leads_elsewhere(store: ContentStore, tmp_path: Path, kind: str) -> None:
    layout = Layout()
    folder = layout.index(layout.image()).folder(tmp_path / "in")
    path = f"{folder}/index.json"
    os.rename(path, tmp_path / "outside")
    if kind == "link":
        os.symlink("../outside", path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.mkdir(path)
    with pytest.raises(ImageError):
        load(store, folder)
    assert_nothing_left(store)


def test_limits(store: ContentStore, tmp_path: Path) -> None:
    layout = Layout()
    path = layout.index(layout.image()).archive(tmp_path / "in")
    with pytest.raises(ImageError, match="more than 2 entries"):
        load(store, path, limits=Limits(entries=2))
    with pytest.raises(ImageError, match="bytes"):
        load(store, path, limits=Limits(size=2000))
    folder = layout.folder(tmp_path / "folder")
    with pytest.raises(ImageError, match="larger than 100 bytes"):
        load(store, folder, limits=Limits(size=100))
    (tmp_path / "bomb").write_bytes(gzip.compress(bytes(512) + tar({"x": bytes(4 << 20)})))
    for take_in in (
        lambda: load(store, str(tmp_path / "bomb"), limits=Limits(size=1 << 20)),
        lambda: import_rootfs(store, str(tmp_path / "bomb"), NAME, limits=Limits(size=1 << 20)),
    ):
        with pytest.raises(ImageError):
            take_in()
    assert_nothing_left(store)


@pytest.mark.parametrize("act", [load, lambda store, path: import_rootfs(store, path, NAME)])
@pytest.mark.parametrize("path", ["/nowhere", "/dev/null", "/dev/zero", "/etc/passwd/x"])
def test_what_can_not_be_read(store: ContentStore, act: Any, path: str) -> None:
    with pytest.raises(InvalidError, match="cannot read"):
        act(store, path)


@pytest.mark.parametrize("compress", [True, False])
def test_import_of_a_tar(store: ContentStore, tmp_path: Path, compress: bool) -> None:
    data = gzip.compress(LAYER) if compress else LAYER
    (tmp_path / "in").write_bytes(data)
    image = import_rootfs(store, str(tmp_path / "in"), NAME)
    (layer,) = image.layers
    assert (layer.digest, layer.diff_id) == (digest(data), digest(LAYER))
    assert layer.media_type == (f"{OCI_LAYER}+gzip" if compress else OCI_LAYER)
    assert image.reference == str(NAME)
    assert image.config["architecture"] == architecture()


@pytest.mark.parametrize(
    "data", [b"", b"text", bytes(1024), b"\x1f\x8b", LAYER[:700], b"PK\3\4" * 200]
)
def test_import_of_something_else(store: ContentStore, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in").write_bytes(data)
    with pytest.raises(ImageError):
        import_rootfs(store, str(tmp_path / "in"), NAME)
    assert_nothing_left(store)


def make_tree(path: Path) -> None:
    (path / "d" / "deep").mkdir(parents=True)
    (path / "b").write_bytes(b"file")
    (path / "b").chmod(0o4751)
    (path / "d" / "hard").hardlink_to(path / "b")
    (path / "a").symlink_to("../../etc/passwd")
    os.mkfifo(path / "fifo")
    os.setxattr(path / "b", "user.key", b"\0\xff value")
    (path / ("n" * 150)).write_bytes(b"")
    (path / os.fsdecode(b"\xff\xfe")).write_bytes(b"bytes")
    os.utime(path / "b", ns=(0, 1_234_567_890_123_456_789))
    os.utime(path / "d", ns=(0, -1_500_000_000))


def test_import_of_a_folder(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    make_tree(tmp_path / "root")
    image = import_rootfs(store, str(tmp_path / "root"), NAME)
    fd = store.open(image.layers[0].digest)
    try:
        reader = TarReader(decompressed(FileStream(fd)), Limits())
        found = {}
        for entry in reader:
            found[entry.name] = (entry, b"".join(bytes(piece) for _, piece in reader.data()))
    finally:
        os.close(fd)
    names = list(found)
    assert names == [
        b"", b"a", b"b", b"d", b"fifo", b"n" * 150, b"\xff\xfe", b"d/deep", b"d/hard"
    ]  # fmt: skip
    file, content = found[b"b"]
    assert (content, file.mode, file.mtime_ns) == (b"file", 0o4751, 1_234_567_890_123_456_789)
    assert file.xattrs == {b"user.key": b"\0\xff value"}
    assert (file.uid, file.gid) == (os.getuid(), os.getgid())
    assert found[b"d"][0].mtime_ns == -1_500_000_000
    assert (found[b"d/hard"][0].type, found[b"d/hard"][0].target) == (b"1", b"b")
    assert found[b"a"][0].target == b"../../etc/passwd"
    assert found[b"\xff\xfe"][1] == b"bytes"
    again = import_rootfs(store, str(tmp_path / "root"), parse("again"))
    assert again.layers == image.layers


def test_import_of_a_folder_with_whiteouts(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".wh.x").write_bytes(b"")
    with pytest.raises(ImageError, match="whiteout"):
        import_rootfs(store, str(tmp_path / "root"), NAME)
    assert_nothing_left(store)
