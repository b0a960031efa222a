"""What a user installs works: from a checkout, from wheels, and with a third party's driver."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import tarfile
import zipfile

import pytest

DISTRIBUTIONS = {
    "ctr-engine",
    "ctr-core",
    "ctr-cgroups",
    "ctr-namespaces",
    "ctr-net-bridge",
    "ctr-storage-overlay",
    "ctr-storage-vfs",
}


def installed(environment):
    listing = json.loads(environment.pip("list", "--format", "json"))
    return {entry["name"].replace("_", "-") for entry in listing}


@pytest.fixture(scope="session")
def from_checkout(checkout, new_environment):
    """The README's first command."""
    environment = new_environment("from-checkout")
    environment.pip("install", checkout)
    return environment


@pytest.fixture(scope="session")
def from_wheels(wheels, new_environment):
    environment = new_environment("from-wheels")
    environment.pip("install", "--find-links", wheels, "ctr-engine")
    return environment


def test_a_checkout_installs_everything(from_checkout):
    assert installed(from_checkout) >= DISTRIBUTIONS


def test_a_second_install_takes_up_edits(from_checkout, checkout):
    path = f"{checkout}/plugins/storage_vfs/src/ctr_storage_vfs/edited.py"
    with open(path, "w") as file:
        file.write("VALUE = 7\n")
    from_checkout.pip("install", checkout)
    os.unlink(path)
    code = "import ctr_storage_vfs.edited as edited; print(edited.VALUE)"
    assert from_checkout.run("python", "-c", code) == "7\n"


@pytest.mark.parametrize("how", ["from_checkout", "from_wheels"])
def test_a_container_runs(request, tmp_path, how):
    environment = request.getfixturevalue(how)
    said = environment.ctr(tmp_path, "run", "--rm", "base", "echo", "Hello World")
    assert said == "Hello World\n"
    assert "launcher" in environment.ctr(tmp_path, "doctor")


def test_wheels_name_no_file(wheels):
    """The root's wheel is made from its sdist, which has no checkout around it."""
    names = set()
    for wheel in glob.glob(f"{wheels}/*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            metadata = archive.read(path).decode()
        names.add(metadata.split("\nName: ")[1].split("\n")[0])
        assert "file:" not in metadata
    assert names == DISTRIBUTIONS


def test_the_sdist_of_the_core_has_no_executable(wheels):
    (sdist,) = glob.glob(f"{wheels}/ctr_core-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [os.path.basename(name) for name in archive.getnames()]
    assert "build.py" in names
    assert "ctr-launcher" not in names


def test_the_wheel_of_the_core_has_its_launcher_and_its_template(wheels):
    (wheel,) = glob.glob(f"{wheels}/ctr_core-*.whl")
    assert "-py3-none-linux_" in wheel
    with zipfile.ZipFile(wheel) as archive:
        launcher = archive.getinfo("ctr/launcher/ctr-launcher")
        assert launcher.external_attr >> 16 & 0o111
        assert archive.read(launcher).startswith(b"\x7fELF")
        assert "ctr/template/pyproject.toml" in archive.namelist()
        assert "ctr/py.typed" in archive.namelist()


def test_without_a_compiler_the_core_installs_without_its_launcher(checkout, new_environment):
    environment = new_environment("no-compiler")
    wheels = f"{environment.folder}/wheels"
    pip = f"{environment.folder}/bin/pip"
    run = subprocess.run(
        [pip, "wheel", "-v", "--no-deps", "-w", wheels, f"{checkout}/core"],
        env={"HOME": os.environ.get("HOME", "/root"), "PATH": f"{environment.folder}/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = glob.glob(f"{wheels}/ctr_core-*.whl")
    assert wheel.endswith("-py3-none-any.whl")
    assert "built without its launcher" in run.stdout + run.stderr
    with zipfile.ZipFile(wheel) as archive:
        assert "ctr/launcher/ctr-launcher" not in archive.namelist()


@pytest.fixture(scope="session")
def third_party(wheels, new_environment, tmp_path_factory):
    """An environment with the driver ``plain``, made from the template."""
    environment = new_environment("third-party")
    environment.pip("install", "--find-links", wheels, "ctr-engine", "mypy")
    folder = tmp_path_factory.mktemp("projects")
    environment.run("ctr", "plugin", "new", "plain", "-C", str(folder))
    environment.pip("install", "--find-links", wheels, f"{folder}/ctr-storage-plain[test]")
    return environment, f"{folder}/ctr-storage-plain"


def test_a_driver_from_the_template_is_listed(third_party):
    environment, _ = third_party
    listing = json.loads(environment.run("ctr", "drivers", "--format", "json"))
    (driver,) = [entry for entry in listing if entry["driver"] == "plain"]
    assert driver["distribution"] == "ctr-storage-plain"
    assert driver["usable"]


def test_a_driver_from_the_template_keeps_the_laws(third_party):
    environment, project = third_party
    said = environment.run(
        "pytest", "-q", "--ctr-require=storage:plain", "--rootdir", project, f"{project}/tests"
    )
    assert " passed" in said


def test_a_driver_from_the_template_is_typed(third_party):
    environment, project = third_party
    environment.run("mypy", "--strict", f"{project}/src/ctr_storage_plain")


def test_a_driver_from_the_template_runs_a_container(third_party, tmp_path):
    environment, _ = third_party
    said = environment.ctr(tmp_path, "--storage", "plain", "run", "--rm", "base", "echo", "hi")
    assert said == "hi\n"


def test_uninstalling_a_driver_is_noticed(third_party):
    environment, project = third_party
    environment.pip("uninstall", "-y", "ctr-storage-plain")
    assert "plain" not in environment.run("ctr", "drivers")
    environment.pip("install", "--no-deps", project)
    assert "plain" in environment.run("ctr", "drivers")
