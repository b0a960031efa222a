"""``ctr image ls|import|load|tag|rm|inspect``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from ctr.cli.output import ago, each, print_json, print_table
from ctr.errors import ConflictError, CtrError, ImageError, InvalidError, StateError
from ctr.images import reference as references
from ctr.images.store import ContentStore, label

if TYPE_CHECKING:
    from ctr.cli.main import Cli
    from ctr.images.store import Image

_NONE = "<none>"
_SHORT_ID = 12


@click.group()
def image() -> None:
    """Manage images."""


@image.command()
@click.argument("repository", required=False)
@click.option("-q", "--quiet", is_flag=True, help="IDs only.")
@click.option("--no-trunc", is_flag=True, help="Whole IDs.")
@click.option("--digests", is_flag=True, help="Show the manifests' digests too.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def ls(
    cli: Cli, repository: str | None, quiet: bool, no_trunc: bool, digests: bool, form: str
) -> None:
    """List images, or those of one REPOSITORY."""
    records = [_record(found, no_trunc) for found in _read_all(cli) if _is_of(found, repository)]
    if quiet:
        for record in records:
            click.echo(record["ID"])
    elif form == "json":
        print_json(records)
    else:
        columns = {"REPOSITORY": "Repository", "TAG": "Tag"}
        if digests:
            columns["DIGEST"] = "Digest"
        columns |= {"IMAGE ID": "ID", "CREATED": "CreatedSince", "SIZE": "Size"}
        print_table(
            list(columns), [[record[key] for key in columns.values()] for record in records]
        )


@image.command("import")
@click.argument("source", metavar="FILE|DIR|-")
@click.argument("name")
@click.pass_obj
def import_(cli: Cli, source: str, name: str) -> None:
    """Make an image of a root file system (a folder, or a tar, plain or gzip); print its ID."""
    from ctr.images.importer import import_rootfs

    click.echo(import_rootfs(_store(cli), source, _new_name(name)).id)


@image.command()
@click.argument("path", required=False)
@click.option("-i", "--input", "file", metavar="FILE", help="The same as PATH, as docker has it.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
@click.pass_obj
def load(cli: Cli, path: str | None, file: str | None, quiet: bool) -> None:
    """Load the images of an OCI layout (folder or tar) or of a docker archive.

    Without PATH it is read from standard input.
    """
    from ctr.images.load import load as load_images

    if path and file:
        raise InvalidError("cannot load two files: give PATH or --input")
    for found in load_images(_store(cli), path or file or "-"):
        if quiet:
            continue
        if found.reference:
            click.echo(f"Loaded image: {references.parse(found.reference).familiar()}")
        else:
            click.echo(f"Loaded image ID: {found.id} (it has no name; `ctr image tag` gives one)")


@image.command()
@click.argument("source")
@click.argument("target")
@click.pass_obj
def tag(cli: Cli, source: str, target: str) -> None:
    """Give the image SOURCE one more name, TARGET."""
    _store(cli).tag(source, _new_name(target))


@image.command()
@click.option("-f", "--force", is_flag=True, help="Even if containers use it; all its names.")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(cli: Cli, names: tuple[str, ...], force: bool) -> None:
    """Remove images by name, or by ID with all their names."""
    from ctr.cli.engine import open_engine

    store = _store(cli)
    engine = open_engine(cli)
    try:
        users: dict[str, list[str]] = {}
        for row in engine.state.containers():
            users.setdefault(row.spec["image_id"], []).append(row.name)
    finally:
        engine.close()

    def remove(name: str) -> str:
        try:
            found = store.resolve(name)
        except (ImageError, StateError):  # damaged: it can go all the same
            found = None
        if found and not force:
            _refuse_if_used(store, found, users.get(found.id, []))
        removed = store.remove(name, force=force)
        lines = [f"Untagged: {references.parse(old).familiar()}" for old in removed.references]
        if removed.manifest_digest:
            lines.append(f"Deleted: {found.id if found else removed.manifest_digest}")
        return "\n".join(lines)

    try:
        each(names, remove)
    finally:
        store.gc()


@image.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(cli: Cli, names: tuple[str, ...]) -> None:
    """Print all that is known of images, as JSON."""
    store = _store(cli)
    entries = store.entries()
    documents = []
    for name in names:
        found = store.resolve(name)
        tags = [
            references.parse(entry.reference)
            for entry in entries
            if entry.reference and entry.manifest.digest == found.manifest_digest
        ]
        documents.append(
            {
                "Id": found.id,
                "RepoTags": [tag.familiar() for tag in tags],
                "RepoDigests": sorted(
                    {f"{tag.familiar_name()}@{found.manifest_digest}" for tag in tags}
                ),
                "Created": found.config.get("created"),
                "Architecture": found.config.get("architecture"),
                "Os": found.config.get("os"),
                "Config": found.config.get("config") or {},
                "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in found.layers]},
                "Size": found.size,
            }
        )
    print_json(documents)


def _store(cli: Cli) -> ContentStore:
    return ContentStore(os.path.join(cli.settings.root, "content"))


def _new_name(text: str) -> references.Reference:
    parsed = references.parse(text)
    if parsed.digest:
        raise InvalidError(
            f"cannot name an image {text!r}: a digest is not ours to choose",
            hint="give a name and a tag, for example base:latest",
        )
    return parsed


def _refuse_if_used(store: ContentStore, found: Image, using: list[str]) -> None:
    """Raise ConflictError if the image has this name only, and containers use it."""
    names = sum(entry.manifest.digest == found.manifest_digest for entry in store.entries())
    if using and names == 1:
        raise ConflictError(
            f"cannot remove image {label(found)}: used by container {', '.join(using[:5])}",
            hint="remove the container first, or use --force",
        )


def _read_all(cli: Cli) -> list[Image]:
    """Every image, the newest first; a damaged one is a warning."""
    store = _store(cli)
    found = []
    for entry in store.entries():
        try:
            found.append(store.image(entry))
        except CtrError as error:
            cli.warn(f"image {label(entry)} is left out: {error.message}")
    return sorted(found, key=lambda image: str(image.config.get("created")), reverse=True)


def _is_of(found: Image, repository: str | None) -> bool:
    if repository is None:
        return True
    wanted = references.parse(repository)
    have = references.parse(found.reference) if found.reference else None
    has_tag = ":" in repository.rpartition("/")[2]
    return have == wanted if has_tag else have is not None and have.name == wanted.name


def _record(found: Image, no_trunc: bool) -> dict[str, Any]:
    from ctr.usage import human

    name = references.parse(found.reference) if found.reference else None
    created = found.config.get("created")
    return {
        "Repository": name.familiar_name() if name else _NONE,
        "Tag": (name.tag or _NONE) if name else _NONE,
        "Digest": found.manifest_digest,
        "ID": found.id if no_trunc else found.id.removeprefix("sha256:")[:_SHORT_ID],
        "CreatedAt": created if isinstance(created, str) else "",
        "CreatedSince": _since(created),
        "Size": human(found.size),
    }


def _since(created: object) -> str:
    """An image's time in docker's words; it may be anything."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(str(created))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return f"{ago(int(moment.timestamp()) * 1_000_000_000)} ago"
    except (ValueError, OverflowError):
        return "N/A"
