"""Compiles the launcher into the wheel; without a compiler the wheel does without it."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LAUNCHER = "src/ctr/launcher/ctr-launcher"


class LauncherHook(BuildHookInterface[Any]):
    """Builds ``ctr-launcher`` beside its source, where an editable install finds it too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        output = os.path.join(self.root, LAUNCHER)
        temporary = f"{output}.{os.getpid()}"
        try:
            _builder(self.root).build(temporary)
            os.replace(temporary, output)
        except Exception as error:
            # An install on a machine without a compiler must succeed: foreground runs then
            # use the launcher written in Python.
            self.app.display_warning(f"ctr-core is built without its launcher: {error}")
            _remove(output)  # one of an earlier build may not understand this version
            return
        finally:
            _remove(temporary)
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(f"/{LAUNCHER}")


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


def _builder(root: str) -> Any:
    """The module ctr.launcher.build, which can't be imported by name: ctr isn't installed."""
    path = os.path.join(root, "src/ctr/launcher/build.py")
    spec = importlib.util.spec_from_file_location("ctr_launcher_build", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
