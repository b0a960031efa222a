"""Image references, in the grammar of docker (github.com/distribution/reference).

::

    reference  = name [":" tag] ["@" digest]
    name       = [domain "/"] component ("/" component)*
    domain     = host [":" port]        holds a dot, a colon or an upper-case letter,
                                        or is "localhost"; default docker.io
    component  = [a-z0-9]+ separated by ".", "_", "__" or any number of "-"
    tag        = [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
    digest     = "sha256:" 64 hex | "sha384:" 96 hex | "sha512:" 128 hex
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ctr.errors import InvalidError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_REPOSITORY = 255  # characters

_ALNUM = "[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:[._]|__|-+){_ALNUM})*"
_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = rf"(?:{_HOST}(?:\.{_HOST})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_REPOSITORY = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = "sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_BARE_ID = "[0-9a-f]{64}"


class Reference(NamedTuple):
    """A parsed reference; ``tag`` and ``digest`` are empty where there is none.

    ``str()`` is the canonical form, ``docker.io/library/base:latest``; parsing either form
    gives an equal Reference.
    """

    registry: str
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}{self._suffix()}"

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    def familiar_name(self) -> str:
        """The name as people type it, without the registry and ``library/`` of the default."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix("library/")
        if short != self.repository and "/" not in short:
            return short
        first, slash, _ = self.repository.partition("/")
        return self.name if slash and _is_domain(first) else self.repository

    def familiar(self) -> str:
        """The form people type: ``base:latest``."""
        return self.familiar_name() + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag


def parse(text: str) -> Reference:
    """Parse a reference; without tag and digest the tag is ``latest``.  Raises InvalidError."""
    rest, at, digest = text.partition("@")
    if at and not re.fullmatch(_DIGEST, digest):
        raise _invalid(text, "the digest is not sha256:HEX")
    # A colon after the last slash starts the tag; before it, a port.
    slash = rest.rfind("/")
    colon = rest.find(":", slash + 1)
    tag = ""
    if colon >= 0:
        rest, tag = rest[:colon], rest[colon + 1 :]
        if not re.fullmatch(_TAG, tag):
            raise _invalid(text, "the tag must be up to 128 of letters, digits, '_', '.', '-'")
    if re.fullmatch(_BARE_ID, rest):
        raise _invalid(text, "64 hexadecimal digits would be an image ID")
    first, slashed, remainder = rest.partition("/")
    if slashed and _is_domain(first):
        registry, repository = first, remainder
    else:
        registry, repository = DEFAULT_REGISTRY, rest
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not re.fullmatch(_REGISTRY, registry):
        raise _invalid(text, "the registry is not a host name")
    if len(repository) > MAX_REPOSITORY:
        raise _invalid(text, f"the repository is longer than {MAX_REPOSITORY} characters")
    if not re.fullmatch(_REPOSITORY, repository):
        if repository != repository.lower():
            raise _invalid(text, "the repository must be lower case")
        raise _invalid(text, "the repository must be a-z, 0-9, separated by '.', '_', '-', '/'")
    return Reference(registry, repository, tag or ("" if digest else DEFAULT_TAG), digest)


def _is_domain(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _invalid(text: str, cause: str) -> InvalidError:
    return InvalidError(
        f"cannot use {text[:300]!r} as an image name: {cause}",
        hint="a name is [REGISTRY/]REPOSITORY[:TAG][@DIGEST], for example base:latest",
    )
