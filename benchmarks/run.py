"""Times a container's run to its end, ctr beside whichever of crun, runc, podman and docker is here.

    python benchmarks/run.py [--runs N] [--network none|bridge] [--ctr .venv/bin/ctr] [--json FILE]

Root.  Everything happens in a network and mount namespace of its own, docker's daemon included,
and is removed at the end.  Two regimes: *cold* pauses 150 ms before each run, *hot* does not
(a runtime that joins control groups waits for RCU in the first and not in the second); a figure
is only comparable inside one regime of one session.  The runtimes take turns, so that a busy
moment of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSYBOX = "/bin/busybox"


class Runtime:
    """One way to run ``true``: a command, and what must be set up before."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str] | None = None) -> None:
        self.name = name
        self.argv = argv
        self.env = {**os.environ, **(env or {})}

    def once(self) -> tuple[float, float]:
        """Wall and CPU seconds of one run (CPU: the command and what it waited for)."""
        before = os.times()
        start = time.perf_counter()
        done = subprocess.run(self.argv, env=self.env, capture_output=True, check=False)
        wall = time.perf_counter() - start
        after = os.times()
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr.decode(errors='replace')[:300]}")
        cpu = after.children_user + after.children_system
        return wall, cpu - before.children_user - before.children_system


def rootfs(folder: str) -> str:
    """A bare root file system with busybox; beside it the same as ``rootfs.tar``."""
    path = os.path.join(folder, "rootfs")
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        os.makedirs(os.path.join(path, name))
    shutil.copy(BUSYBOX, os.path.join(path, "bin"))
    for name in ("true", "sh", "echo"):
        os.symlink("busybox", os.path.join(path, "bin", name))
    subprocess.run(["tar", "-C", path, "-cf", f"{path}.tar", "."], check=True)
    return path


def bundle(runtime: str, folder: str, tree: str) -> Runtime:
    """crun or runc on a bare OCI bundle."""
    path = os.path.join(folder, f"bundle-{runtime}")
    os.mkdir(path)
    subprocess.run([runtime, "spec"], cwd=path, check=True)
    config_path = os.path.join(path, "config.json")
    with open(config_path) as file:
        config = json.load(file)
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/true"]
    config["root"]["path"] = tree
    config["linux"]["cgroupsPath"] = f"/ctr-bench-{runtime}"
    with open(config_path, "w") as file:
        json.dump(config, file)
    return Runtime(runtime, [runtime, "run", "--bundle", path, f"bench-{runtime}"])


def podman(folder: str, tree: str, network: str) -> Runtime:
    config = os.path.join(folder, "containers.conf")
    with open(config, "w") as file:
        file.write(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
        )
    base = ["podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run"]
    env = {"CONTAINERS_CONF": config}
    subprocess.run(
        [*base, "import", "-q", f"{tree}.tar", "bench"],
        check=True,
        capture_output=True,
        env={**os.environ, **env},
    )
    name = {"none": "none", "bridge": "podman"}[network]
    argv = [*base, "run", "--rm", "--network", name, "bench", "true"]
    return Runtime(f"podman --network {network}", argv, env)


@contextlib.contextmanager
def docker(folder: str, tree: str, network: str) -> Iterator[Runtime]:
    """docker with a daemon of the benchmark's own."""
    socket = f"unix://{folder}/docker.sock"
    log = open(f"{folder}/dockerd.log", "w")  # noqa: SIM115  (the daemon's, closed with it)
    daemon = subprocess.Popen(
        ["dockerd", "-H", socket, "--data-root", f"{folder}/docker", "--exec-root",
         f"{folder}/docker-run", "-p", f"{folder}/docker.pid"],
        stdout=log, stderr=log,
    )  # fmt: skip
    base = [shutil.which("docker", path="/usr/bin") or "docker", "-H", socket]
    try:
        for _ in range(150):
            if subprocess.run([*base, "info"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)
        subprocess.run([*base, "import", f"{tree}.tar", "bench"], check=True, capture_output=True)
        argv = [*base, "run", "--rm", "--network", network, "bench", "true"]
        yield Runtime(f"docker --network {network}", argv)
    finally:
        daemon.terminate()
        daemon.wait(30)
        log.close()


def measure(runtimes: list[Runtime], runs: int, pause: float) -> dict[str, dict[str, float]]:
    """Milliseconds by runtime: median, p10 and CPU."""
    walls: dict[str, list[float]] = {runtime.name: [] for runtime in runtimes}
    cpus: dict[str, list[float]] = {runtime.name: [] for runtime in runtimes}
    for runtime in runtimes:
        runtime.once()
    for _ in range(runs):
        for runtime in runtimes:
            time.sleep(pause)
            if not pause:
                runtime.once()  # hot: the run right before was the same
            wall, cpu = runtime.once()
            walls[runtime.name].append(wall * 1e3)
            cpus[runtime.name].append(cpu * 1e3)
    return {
        name: {
            "median": sorted(values)[len(values) // 2],
            "p10": sorted(values)[len(values) // 10],
            "cpu": sorted(cpus[name])[len(values) // 2],
        }
        for name, values in walls.items()
    }


def isolate() -> None:
    """Move into fresh network and mount namespaces."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000 | 0x00020000):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    unified = "/sys/fs/cgroup/unified"
    if os.path.ismount(unified):  # crun 1.8 gives up on hybrid machines that show it
        subprocess.run(["mount", "-t", "tmpfs", "none", unified], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--network", choices=["none", "bridge"], default="none")
    parser.add_argument("--ctr", default=os.path.join(os.path.dirname(sys.executable), "ctr"))
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    if not os.path.exists(BUSYBOX):
        parser.error("busybox-static is missing")
    isolate()
    with (
        tempfile.TemporaryDirectory(prefix="ctr-bench-") as folder,
        contextlib.ExitStack() as stack,
    ):
        tree = rootfs(folder)
        roots = ["--root", f"{folder}/ctr", "--run-root", f"{folder}/ctr-run"]
        runtimes = [
            Runtime(
                f"ctr --network {arguments.network}",
                [
                    arguments.ctr,
                    *roots,
                    "run",
                    "--rm",
                    "--network",
                    arguments.network,
                    "base",
                    "true",
                ],
            )
        ]
        runtimes += [bundle(name, folder, tree) for name in ("crun", "runc") if shutil.which(name)]
        if shutil.which("podman"):
            runtimes.append(podman(folder, tree, arguments.network))
        if shutil.which("dockerd"):
            runtimes.append(stack.enter_context(docker(folder, tree, arguments.network)))
        print(f"{time.strftime('%Y-%m-%d')}  {platform.release()}  {os.cpu_count()} CPUs  "
              f"load {os.getloadavg()[0]:.1f}  n={arguments.runs}")  # fmt: skip
        results = {}
        for regime, pause in (("cold", 0.15), ("hot", 0.0)):
            results[regime] = measure(runtimes, arguments.runs, pause)
            mine = results[regime][runtimes[0].name]["median"]
            print(f"\n{regime:<26}{'median':>9}{'p10':>9}{'CPU':>9}   ctr is … times it")
            for name, row in results[regime].items():
                print(
                    f"{name:<26}{row['median']:9.1f}{row['p10']:9.1f}{row['cpu']:9.1f}{mine / row['median']:10.2f}"
                )
        if arguments.json:
            with open(arguments.json, "w") as file:
                json.dump(results, file, indent=2)
        subprocess.run([arguments.ctr, *roots, "system", "gc"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
