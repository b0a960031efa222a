"""Build backend of the root distribution: hatchling, plus its dependencies.

``ctr-engine`` has no code; it depends on the core and the built-in plugins.  PEP 508 knows
no relative paths, so a wheel that is built inside a checkout names the checkout's own parts
(``ctr-core @ file:///…/core``): that is what makes ``pip install .`` work.  Everything else
(sdists, wheels made from them, editable installs) names released versions.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hatchling import build as hatchling
from hatchling.metadata.plugin.interface import MetadataHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Folder of each part, and the distribution's name.
PARTS = {
    "core": "ctr-core",
    "plugins/namespaces": "ctr-namespaces",
    "plugins/cgroups": "ctr-cgroups",
    "plugins/storage_overlay": "ctr-storage-overlay",
    "plugins/storage_vfs": "ctr-storage-vfs",
    "plugins/net_bridge": "ctr-net-bridge",
}

#: Set while a wheel is built from a checkout; hatchling loads the hook below on its own, so
#: the environment is the one place that both see.
_CHECKOUT = "CTR_ENGINE_CHECKOUT"


class CustomMetadataHook(MetadataHookInterface):
    """Fills in ``dependencies``."""

    def update(self, metadata: dict[str, Any]) -> None:
        checkout = os.environ.get(_CHECKOUT)
        metadata["dependencies"] = [
            f"{name} @ file://{checkout}/{folder}" if checkout else f"{name}=={metadata['version']}"
            for folder, name in PARTS.items()
        ]


@contextmanager
def _parts_of_checkout() -> Iterator[None]:
    root = os.path.dirname(os.path.abspath(__file__))
    if all(os.path.exists(f"{root}/{folder}/pyproject.toml") for folder in PARTS):
        os.environ[_CHECKOUT] = root
    try:
        yield
    finally:
        os.environ.pop(_CHECKOUT, None)


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    with _parts_of_checkout():
        return hatchling.build_wheel(wheel_directory, config_settings, metadata_directory)


get_requires_for_build_wheel = hatchling.get_requires_for_build_wheel
get_requires_for_build_sdist = hatchling.get_requires_for_build_sdist
get_requires_for_build_editable = hatchling.get_requires_for_build_editable
build_sdist = hatchling.build_sdist
build_editable = hatchling.build_editable
