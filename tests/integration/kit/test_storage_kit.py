"""The storage conformance kit catches broken drivers: each fault is planted into vfs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

MODULE = """
import os

import pytest

from ctr import snapshots
from ctr.models import Mount
from ctr.testing.storage import StorageConformance
from ctr import copying
from ctr_storage_vfs import ctr_storage_drivers
from ctr_storage_vfs.driver import VfsStorage
from ctr.snapshots import SnapshotStore


class Broken(VfsStorage):
    pass

{fault}

class TestBroken(StorageConformance):
    @pytest.fixture
    def info(self):
        (info,) = ctr_storage_drivers()
        return info._replace(factory=lambda context: Broken(context.root))
"""

#: The law that must fail, and the fault.
FAULTS = {
    "test_siblings_and_parents_see_nothing": """
        def prepare(self, key, parent, options):
            VfsStorage.prepare(self, key, parent, options)
            return self.mounts(key)
        def mounts(self, key):
            parent = self._store.get(key).parent
            folder = self._store.get(parent or key).folder
            return [Mount("bind", f"{self._store.path(folder)}/fs")]
        Broken.prepare, Broken.mounts = prepare, mounts
    """,
    "test_a_view_is_read_only": """
        Broken.view = lambda self, key, parent: [
            mount._replace(attributes=0) for mount in VfsStorage.view(self, key, parent)
        ]
        Broken.mounts = lambda self, key: [
            mount._replace(attributes=0) for mount in VfsStorage.mounts(self, key)
        ]
    """,
    "test_a_parent_must_be_committed": """
        SnapshotStore.parent = SnapshotStore.get
    """,
    "test_bad_keys_are_refused": """
        def remove(self, key):
            if self._store.find(key):
                VfsStorage.remove(self, key)
        Broken.remove = remove
    """,
    "test_remove": """
        SnapshotStore._removable = lambda self, record: [record]
    """,
    "test_walk_and_gc": """
        def gc(self, valid):
            return [one.key for one in self.walk() if one.key not in valid
                    and (self._store.remove(one.key) or True)]
        Broken.gc = gc
    """,
    "test_mounts_are_told_again": """
        def prepare(self, key, parent, options):
            mounts = VfsStorage.prepare(self, key, parent, options)
            self.known = {**getattr(self, "known", {}), key: mounts}
            return mounts
        Broken.prepare = prepare
        Broken.mounts = lambda self, key: getattr(self, "known", {})[key]
    """,
    "test_the_driver_mounts_nothing": """
        def mounts(self, key):
            os.open("/", os.O_RDONLY)
            return VfsStorage.mounts(self, key)
        Broken.mounts = mounts
    """,
    "test_hard_links": """
        copying._Copier._copy_linked = copying._Copier._copy_entry
    """,
    "test_extended_attributes": """
        real = os.listxattr
        def some(path, follow_symlinks=True):
            names = real(path, follow_symlinks=follow_symlinks)
            return [name for name in names if name != "security.capability"]
        copying.os.listxattr = some
    """,
    "test_owners_modes_and_times": """
        real = os.utime
        def seconds(path, ns, follow_symlinks=True):
            real(path, ns=tuple(one // 10**9 * 10**9 for one in ns), follow_symlinks=follow_symlinks)
        copying.os.utime = seconds
        """,
    "test_sparse_files": """
        def whole(self, source, target, status):
            copying._copy_range(source, target, 0, status.st_size)
        copying._Copier._copy_content = whole
    """,
    "test_one_key_goes_to_one_process": """
        import fcntl, time
        snapshots.fcntl.flock = lambda descriptor, operation: None
        read = SnapshotStore._check_free
        def slow(self, key):
            read(self, key)
            time.sleep(0.02)
        SnapshotStore._check_free = slow
    """,
    "test_a_full_disk": """
        import ctr.trees
        ctr.trees.remove_tree = lambda path: None
    """,
    "test_killed_in_prepare": """
        def create(self, key, kind, parent, fill, **rest):
            folder = self.path("abcdef")
            os.makedirs(folder)
            os.makedirs(self._keys, exist_ok=True)
            record = snapshots.Record(key, kind, parent and parent.key, "abcdef", **rest)
            snapshots._write(f"{folder}/record", record)
            self._link(key, "abcdef")
            fill(folder)
            return record
        real = SnapshotStore.create
        SnapshotStore.create = lambda self, key, *rest, **more: (
            create if key == "key" else real)(self, key, *rest, **more)
    """,
    "test_killed_in_commit": """
        def commit(self, name, key):
            record = self._store._committable(name, key)
            path = f"{self._store.path(record.folder)}/record"
            os.unlink(f"{self._store._keys}/{key}")
            os.unlink(path)
            snapshots._write(path, record._replace(key=name, kind="committed"))
            self._store._link(name, record.folder)
        Broken.commit = commit
    """,
    "test_killed_in_remove": """
        import ctr.trees
        def remove(self, key):
            if (record := self._store.find(key)) and record.kind == "active":
                ctr.trees.remove_tree(self._store.path(record.folder) + "/fs")
            VfsStorage.remove(self, key)
        Broken.remove = remove
    """,
    "test_usage": """
        import ctr.models
        Broken.usage = lambda self, key: ctr.models.Usage(
            sum(os.lstat(os.path.join(folder, name)).st_size
                for folder, _, names in os.walk(self._store.path(self._store.get(key).folder))
                for name in names), 7)
    """,
    "test_user_namespace": """
        set_attributes = copying._Copier._set_attributes
        def mode_first(self, source, target, status, name):
            set_attributes(self, source, target, status, name)
            owner = self._mapper.owner(status.st_uid, status.st_gid, name)
            os.chown(target, *owner, follow_symlinks=isinstance(target, int))
        copying._Copier._set_attributes = mode_first
    """,
    "test_an_id_without_a_place": """
        import ctr.idmap
        ctr.idmap._outside = lambda maps, inside, kind, path: inside + 200000 if maps else inside
    """,
}


def run_kit(folder: Path, fault: str, law: str) -> str:
    module = folder / "test_broken.py"
    module.write_text(MODULE.replace("{fault}", textwrap.dedent(fault)))
    options = ["-q", "-p", "ctr.testing.pytest_plugin", "-p", "no:cacheprovider"]
    options += ["--basetemp", f"{folder}/base", "-c", "/dev/null", "-k", law]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(module)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("law", FAULTS)
def test_a_fault_is_caught(law: str, tmp_path: Path) -> None:
    output = run_kit(tmp_path, FAULTS[law], law)
    assert re.search(rf"^FAILED .*::{law}(\[| -|$)", output, re.MULTILINE), output


def test_a_sound_driver_passes(tmp_path: Path) -> None:
    """The same module without a fault: what fails above fails for its fault."""
    output = run_kit(tmp_path, "", " or ".join(FAULTS))
    assert re.search(r"^\d+ passed, \d+ deselected in", output, re.MULTILINE), output
