"""Configuration files: `fleet.toml`, the same on every host, and `controlplane.toml`, the host's own.

All faults are found at once, each with its path. Secrets stand in files of their own, named by `*_file`.
"""

from __future__ import annotations

import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from controlplane.contract.errors import ConfigError
from controlplane.contract.fleet import Fleet, faults
from controlplane.contract.names import Name

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
T = TypeVar("T", bound=msgspec.Struct)


class AmiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the site daemon finds Asterisk's manager interface."""

    secret_file: str
    host: str = "127.0.0.1"
    port: Port = 5038
    username: str = "controlplane"


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the broker is, and the account of this process or person."""

    host: str
    account: Name
    password_file: str
    port: Port = 1883


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`controlplane.toml`. `site` on a PBX host, `host` where a coordinator runs; a workstation has neither."""

    fleet_file: str
    broker: BrokerSettings
    site: Name | None = None
    host: Name | None = None
    ami: AmiSettings | None = None
    state_dir: str = "/var/lib/controlplane"
    hold_file: str = "/etc/controlplane/hands-off"
    log_level: Annotated[str, msgspec.Meta(pattern=r"^(debug|info|warning|error)$(?!\n)")] = "info"


class Settings(msgspec.Struct, frozen=True):
    """Both files, read and checked."""

    fleet: Fleet
    host: Host
    base: Path

    def path(self, name: str) -> Path:
        """A path of the configuration, relative to the file that names it."""
        return self.base / name

    def secret(self, name: str) -> str:
        """The content of a secret's file."""
        return self.path(name).read_text(encoding="utf-8").strip()


def load(path: Path) -> Settings:
    """Both files. Raises ConfigError with every fault found in them."""
    found: list[str] = []
    host = _read(path, Host, found)
    if host is None:
        raise ConfigError(found)
    fleet_path = path.parent / host.fleet_file
    fleet = _read(fleet_path, Fleet, found)
    if fleet is not None:
        found += [f"{fleet_path}: {fault}" for fault in faults(fleet)]
        found += [f"{path}: {fault}" for fault in _host_faults(host, fleet)]
    found += [f"{path}: {fault}" for fault in _secret_faults(host, path.parent)]
    if fleet is None or found:
        raise ConfigError(found)
    return Settings(fleet, host, path.parent)


def _host_faults(host: Host, fleet: Fleet) -> list[str]:
    found = []
    if host.site is not None and host.site not in fleet.sites:
        found.append(f"site: {host.site!r} is not in {host.fleet_file}; known: {', '.join(fleet.sites)}")
    if host.site is not None and host.ami is None:
        found.append("ami: a site needs a table [ami] with secret_file")
    coordinators = (fleet.authority.host, *fleet.authority.standbys)
    if host.host is not None and host.host not in coordinators:
        found.append(f"host: {host.host!r} is no coordinator of {host.fleet_file}; known: {', '.join(coordinators)}")
    return found


def _secret_faults(host: Host, base: Path) -> list[str]:
    named = {"broker.password_file": host.broker.password_file}
    if host.ami is not None:
        named["ami.secret_file"] = host.ami.secret_file
    found = []
    for field, name in named.items():
        try:
            if not (base / name).read_text(encoding="utf-8").strip():
                found.append(f"{field}: {base / name} is empty")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            found.append(f"{field}: {base / name} cannot be read: {reason}")
    return found


def _read(path: Path, form: type[T], found: list[str]) -> T | None:
    """A TOML file as a Struct; where it is not one, all reasons are added to `found`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        found.append(f"{path}: cannot be read: {error.strerror}")
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        found.append(f"{path}: not TOML: {error}")
        return None
    mine = list(_faults(content, form, ""))
    found += [f"{path}: {fault}" for fault in mine]
    return None if mine else msgspec.convert(content, form)


def _faults(value: object, form: object, at: str) -> typing.Iterator[str]:
    """Every fault of a value against a type; msgspec alone stops at the first."""
    struct = _struct_in(form)
    if struct is not None and isinstance(value, dict):
        yield from _struct_faults(value, struct, at)
        return
    if typing.get_origin(form) is dict and isinstance(value, dict):
        key_form, value_form = typing.get_args(form)
        for key, item in value.items():
            yield from _converts(key, key_form, f"{at}.{key}".strip("."), "name ")
            yield from _faults(item, value_form, f"{at}.{key}".strip("."))
        return
    yield from _converts(value, form, at, "")


def _struct_faults(value: dict[str, object], struct: type[msgspec.Struct], at: str) -> typing.Iterator[str]:
    fields = {f.encode_name: f for f in msgspec.structs.fields(struct)}
    for name in value:
        if name not in fields:
            yield f"{f'{at}.{name}'.strip('.')}: unknown; known here: {', '.join(fields)}"
    for name, field in fields.items():
        path = f"{at}.{name}".strip(".")
        if name in value:
            yield from _faults(value[name], field.type, path)
        elif field.required:
            yield f"{path}: missing"


def _struct_in(form: object) -> type[msgspec.Struct] | None:
    options = typing.get_args(form) if isinstance(form, types.UnionType) else (form,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, msgspec.Struct)), None)


def _converts(value: object, form: object, at: str, what: str) -> typing.Iterator[str]:
    try:
        msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        yield f"{at}: {what}{value!r}: {str(error).split(' - at `', 1)[0]}"
