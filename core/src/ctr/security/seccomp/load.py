"""Profiles from files: docker's JSON and with it the OCI runtime spec's ``linux.seccomp``."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ctr.errors import InvalidError, NotFoundError, UnsupportedError
from ctr.security.capabilities import mask_of
from ctr.security.seccomp import FLAG_LOG, FLAG_SPEC_ALLOW
from ctr.security.seccomp.profile import (
    ALLOW,
    EPERM,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    TRACE,
    TRAP,
    Condition,
    Profile,
    Rule,
    native,
)

MAX_FILE = 1 << 20  # bytes
_MAX_ERRNO = 4095  # MAX_ERRNO, from linux/err.h
_ARGUMENTS = 6
_MAX_VALUE = 2**64 - 1

_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
_OPERATORS = {
    "SCMP_CMP_LT": "lt",
    "SCMP_CMP_LE": "le",
    "SCMP_CMP_EQ": "eq",
    "SCMP_CMP_NE": "ne",
    "SCMP_CMP_GE": "ge",
    "SCMP_CMP_GT": "gt",
    "SCMP_CMP_MASKED_EQ": "masked",
}
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # the container's first process has one thread
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
}
#: Machines by uname(2), in the words of "arches" of docker's conditions.
_CONDITION_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}


def load_profile(path: str, machine: str, kernel: str, capabilities: int) -> Profile:
    """Read the profile at ``path`` for this ``machine`` and ``kernel`` release (uname(2)).

    Rules with ``includes`` and ``excludes`` count or not as docker decides it, from
    ``capabilities``, the machine and the kernel.  Names that no known architecture has are
    left out, for another kernel may have them.  Where one argument is compared twice in a
    rule each comparison is a rule of its own, as in runc and crun.

    Raises NotFoundError for a missing file, InvalidError for a malformed one,
    UnsupportedError for SCMP_ACT_NOTIFY and on a machine for which no filter is known.
    """
    native(machine)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise NotFoundError(
            f"cannot read seccomp profile {path}: {error.strerror}",
            hint="give a JSON file, or seccomp=unconfined for none",
        ) from error
    if len(data) > MAX_FILE:
        raise InvalidError(f"cannot use seccomp profile {path}: more than {MAX_FILE} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"cannot use seccomp profile {path}: not JSON: {error}") from error
    return _Reader(path, machine, kernel, capabilities).profile(document)


class _Reader:
    """Reads one document; every error names the file."""

    def __init__(self, path: str, machine: str, kernel: str, capabilities: int) -> None:
        self.path = path
        self.machine = machine
        self.kernel = kernel
        self.capabilities = capabilities

    def profile(self, document: object) -> Profile:
        top = self.mapping(document, "the profile")
        if "defaultAction" not in top:
            self.fail("it has no defaultAction")
        default = self.action(top["defaultAction"], top.get("defaultErrnoRet"))
        rules: list[Rule] = []
        for entry in self.sequence(top.get("syscalls"), "syscalls"):
            rules += self.rules(self.mapping(entry, "an entry of syscalls"))
        flags = top.get("flags")
        return Profile(
            default,
            self.architectures(top),
            tuple(rules),
            FLAG_SPEC_ALLOW if flags is None else self.flags(flags),
        )

    def rules(self, entry: dict[str, Any]) -> list[Rule]:
        names = self.strings(entry.get("names"), "names")
        if "name" in entry:
            if names:
                self.fail("an entry of syscalls has both name and names")
            names = self.strings([entry["name"]], "name")
        action = self.action(entry.get("action"), entry.get("errnoRet"))
        conditions = [
            self.condition(self.mapping(one, "an argument"))
            for one in self.sequence(entry.get("args"), "args")
        ]
        includes = self.mapping(entry.get("includes") or {}, "includes")
        excludes = self.mapping(entry.get("excludes") or {}, "excludes")
        if not all(self.tests(includes, every=True)) or any(self.tests(excludes, every=False)):
            return []
        if len({one.argument for one in conditions}) < len(conditions):
            return [Rule(names, action, (one,)) for one in conditions]
        return [Rule(names, action, tuple(conditions))]

    def tests(self, given: dict[str, Any], *, every: bool) -> list[bool]:
        """Each test of ``includes`` (all capabilities) or ``excludes`` (any of them)."""
        results: list[bool] = []
        if arches := self.strings(given.get("arches"), "arches"):
            results.append(_CONDITION_ARCH[self.machine] in arches)
        if names := self.strings(given.get("caps"), "caps"):
            held = [bool(self.capabilities & mask_of([name])) for name in names]
            results.append(all(held) if every else any(held))
        if minimum := given.get("minKernel"):
            results.append(self.version(self.kernel) >= self.version(minimum))
        return results

    def version(self, text: object) -> tuple[int, int]:
        major, _, rest = str(text).partition(".")
        minor = rest.partition(".")[0].partition("-")[0]
        if not (major.isdigit() and minor.isdigit()):
            self.fail(f"{text!r} is not a kernel's version")
        return int(major), int(minor)

    def condition(self, given: dict[str, Any]) -> Condition:
        argument = self.number(given.get("index"), _ARGUMENTS - 1, "index")
        value = self.number(given.get("value", 0), _MAX_VALUE, "value")
        second = self.number(given.get("valueTwo", 0), _MAX_VALUE, "valueTwo")
        operator = _OPERATORS.get(str(given.get("op")))
        if operator is None:
            self.fail(f"unknown op {given.get('op')!r}")
        if operator == "masked":
            return Condition(argument, operator, second, value)
        return Condition(argument, operator, value)

    def action(self, name: object, errno: object) -> int:
        if name == "SCMP_ACT_NOTIFY":
            raise UnsupportedError(
                f"cannot use seccomp profile {self.path}: SCMP_ACT_NOTIFY needs a listener",
                hint="replace it by SCMP_ACT_ERRNO",
            )
        action = _ACTIONS.get(str(name))
        if action is None:
            self.fail(f"unknown action {name!r}")
        if action in (ERRNO, TRACE):
            return action | (EPERM if errno is None else self.number(errno, _MAX_ERRNO, "errno"))
        return action

    def architectures(self, top: dict[str, Any]) -> tuple[str, ...]:
        """Those of this machine that the profile lists; the machine's own is always there."""
        listed = self.strings(top.get("architectures"), "architectures")
        mapped = self.sequence(top.get("archMap"), "archMap")
        if listed and mapped:
            self.fail("it has both architectures and archMap")
        names = list(listed)
        for one in mapped:
            entry = self.mapping(one, "an entry of archMap")
            if _ARCHITECTURES.get(str(entry.get("architecture"))) == self.machine:
                names += self.strings(entry.get("subArchitectures"), "subArchitectures")
        if unknown := [name for name in names if not name.startswith("SCMP_ARCH_")]:
            self.fail(f"unknown architecture {unknown[0]!r}")
        wanted = {self.machine, *(_ARCHITECTURES.get(name) for name in names)}
        return tuple(arch for arch in native(self.machine) if arch in wanted)

    def flags(self, names: object) -> int:
        flags = 0
        for name in self.strings(names, "flags"):
            if name not in _FLAGS:
                self.fail(f"unknown flag {name!r}")
            flags |= _FLAGS[name]
        return flags

    def mapping(self, value: object, what: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(f"{what} is not an object")
        return value

    def sequence(self, value: object, what: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.fail(f"{what} is not a list")
        return value

    def strings(self, value: object, what: str) -> tuple[str, ...]:
        items = self.sequence(value, what)
        if not all(isinstance(item, str) for item in items):
            self.fail(f"{what} holds something that is not a string")
        return tuple(items)

    def number(self, value: object, most: int, what: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            self.fail(f"{what} is not a number from 0 to {most}")
        return value

    def fail(self, cause: str) -> NoReturn:
        raise InvalidError(
            f"cannot use seccomp profile {self.path}: {cause}",
            hint="its form is that of docker's and of the OCI runtime spec's linux.seccomp",
        )
