"""The mount of a snapshot, as data."""

from __future__ import annotations

import pytest

from ctr.errors import UnsupportedError
from ctr_storage_overlay.mounting import MOUNT_ATTR_RDONLY, appends_layers, overlay_mount

ROOT = "/var/lib/ctr/storage/overlay"
OFF = ("index=off", "metacopy=off", "redirect_dir=off")


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.8.0", True),
        ("6.8-rc1", True),
        ("6.18.44-generic", True),
        ("7.0", True),
        ("10.1.2", True),
        ("6.7.12-arch1-1", False),
        ("6.1.0-18-amd64", False),
        ("5.15.0", False),
        ("6", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_kernel_release(release: str, expected: bool) -> None:
    assert appends_layers(release) is expected


def test_new_kernel_gets_each_layer_by_its_whole_path() -> None:
    mount = overlay_mount(ROOT, ("bbbbbb", "aaaaaa"), "cccccc", appending=True)
    assert mount.options == (
        f"lowerdir+={ROOT}/bbbbbb/fs",
        f"lowerdir+={ROOT}/aaaaaa/fs",
        f"upperdir={ROOT}/cccccc/fs",
        f"workdir={ROOT}/cccccc/work",
        *OFF,
    )
    assert (mount.type, mount.attributes, mount.staging) == ("overlay", 0, "")


def test_old_kernel_gets_paths_relative_to_the_staging_folder() -> None:
    mount = overlay_mount(ROOT, ("bbbbbb", "aaaaaa"), "cccccc", appending=False)
    assert mount.options == (
        "lowerdir=bbbbbb/fs:aaaaaa/fs",
        "upperdir=cccccc/fs",
        "workdir=cccccc/work",
        *OFF,
    )
    assert mount.staging == ROOT


@pytest.mark.parametrize("root", ["/a:b", "/a,b", "/a\\b", "/" + "a" * 243, "/" + "ä" * 122])
def test_a_root_that_an_option_cannot_hold_is_staged(root: str) -> None:
    assert overlay_mount(root, ("aaaaaa",), "bbbbbb", appending=True).staging == root


def test_the_longest_root_that_is_not_staged() -> None:
    root = "/" + "a" * 242
    mount = overlay_mount(root, ("aaaaaa",), "bbbbbb", appending=True)
    assert mount.staging == ""
    assert max(len(option.partition("=")[2]) for option in mount.options) == 255


def test_the_first_layer_lies_over_an_empty_folder() -> None:
    assert f"lowerdir+={ROOT}/empty" in overlay_mount(ROOT, (), "a", appending=True).options
    assert "lowerdir=empty" in overlay_mount(ROOT, (), "a", appending=False).options


def test_a_view_has_no_upper_folder_and_two_layers_at_least() -> None:
    mount = overlay_mount(ROOT, ("aaaaaa",), None, appending=False)
    assert mount.options == ("lowerdir=aaaaaa/fs:empty", *OFF)
    assert mount.attributes == MOUNT_ATTR_RDONLY
    mount = overlay_mount(ROOT, ("bbbbbb", "aaaaaa"), None, appending=False)
    assert mount.options == ("lowerdir=bbbbbb/fs:aaaaaa/fs", *OFF)


def test_options_on_request() -> None:
    mount = overlay_mount(ROOT, ("a",), "b", appending=True, metacopy=True, volatile=True)
    assert mount.options[3:] == ("index=off", "metacopy=on", "redirect_dir=on", "volatile")


def test_a_page_holds_nearly_four_hundred_layers() -> None:
    layers = tuple(f"{number:06x}" for number in range(399))
    mount = overlay_mount(ROOT, layers, "ffffff", appending=False, volatile=True)
    assert 4085 < len(",".join(mount.options)) <= 4095
    with pytest.raises(UnsupportedError, match="page"):
        overlay_mount(ROOT, (*layers, "aaaaaa"), "ffffff", appending=False, volatile=True)


def test_five_hundred_layers_are_the_most() -> None:
    layers = tuple(f"{number:06x}" for number in range(500))
    overlay_mount(ROOT, layers, "ffffff", appending=True)
    with pytest.raises(UnsupportedError, match="takes 500"):
        overlay_mount(ROOT, (*layers, "aaaaaa"), "ffffff", appending=True)
