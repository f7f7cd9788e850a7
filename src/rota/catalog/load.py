"""Accelerators, links, hosts and models by name, alias or file. The data are the TOML files in `rota.catalog.data`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Protocol, TypeVar

from rota.catalog.fields import Fields
from rota.catalog.huggingface import read_config
from rota.catalog.shapes import Accelerator, Host, Link, ModelShape
from rota.errors import InputError

MIB, GIB = 1 << 20, 1 << 30
FORMATS = ("bf16", "fp8", "int8", "fp4")
_DEVICE_FIELDS = ("name", "tflops", "memory_mib", "gb_s", "link", "max_tp", "watts", "usd_per_hour", "aliases", "source")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=_Named)


def model_names() -> list[str]:
    """Keys of all built-in models, in the order of the catalog."""
    return list(_models())


def device_names() -> list[str]:
    """Keys of all built-in accelerators, in the order of the catalog."""
    return list(_devices())


def link_names() -> list[str]:
    """Keys of all built-in links, in the order of the catalog."""
    return list(_links())


def host_names() -> list[str]:
    """Keys of all built-in hosts, in the order of the catalog."""
    return list(_hosts())


def load_model(name_or_path: str | Path) -> ModelShape:
    """A model of the catalog, or the one that a Hugging Face ``config.json`` describes.

    Parameters
    ----------
    name_or_path : str or Path
        A catalog key or an alias (hub ids are aliases; case does not matter), or the path of a ``config.json`` or of a directory
        that holds one. A catalog name wins over a directory of that name; write ``./name`` to mean the directory.

    Raises
    ------
    InputError
        If nothing has that name (the message lists the closest ones), or the file cannot be read or lacks a field.
    """
    known = _find(_models(), str(name_or_path))
    if known is not None:
        return known
    path = _path(name_or_path)
    if path is not None and path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: no config.json in this directory; give the directory of a Hugging Face model")
        return read_config(path / "config.json")
    if path is not None and path.is_file():
        return read_config(path)
    if path is not None and path.suffix == ".json":
        raise InputError(f"{path}: no such file; give the path of a Hugging Face config.json")
    also = "the path of a Hugging Face config.json works too"
    raise _unknown("model", str(name_or_path), _models(), "rota catalog models", also)


def load_device(name_or_path: str | Path) -> Accelerator:
    """An accelerator of the catalog, or the one described in a TOML file with the fields of ``data/accelerators.toml``.

    Parameters
    ----------
    name_or_path : str or Path
        A catalog key or an alias (case does not matter), or the path of a ``.toml`` file that holds one accelerator's fields.

    Raises
    ------
    InputError
        If nothing has that name (the message lists the closest ones), or the file cannot be read or lacks a field.
    """
    known = _find(_devices(), str(name_or_path))
    if known is not None:
        return known
    path = _path(name_or_path)
    if path is None or path.suffix != ".toml":
        raise _unknown("device", str(name_or_path), _devices(), "rota catalog devices", "the path of a .toml file works too")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a TOML file that describes one accelerator") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from None
    given = Fields(table, str(path))
    return _accelerator(given.text("name", default=path.stem), given)


def load_link(name: str) -> Link:
    """A link of the catalog by its key (case does not matter).

    Raises
    ------
    InputError
        If nothing has that name; the message lists the closest ones.
    """
    known = _find(_links(), name)
    if known is None:
        raise _unknown("link", name, _links(), "rota catalog links")
    return known


def load_host(name: str) -> Host:
    """A host of the catalog by its key (case does not matter).

    Raises
    ------
    InputError
        If nothing has that name; the message lists the closest ones.
    """
    known = _find(_hosts(), name)
    if known is None:
        raise _unknown("host", name, _hosts(), "rota catalog hosts")
    return known


def usual_host(device: Accelerator) -> Host:
    """The host that a device usually comes with: the first of the catalog that lists it, else ``"server"``."""
    return next((host for host in _hosts().values() if device.name in host.devices), _hosts()["server"])


def _path(given: str | Path) -> Path | None:
    """`given` as a path, or None if it is nothing that the system can even look for."""
    if not str(given).strip():
        return None
    try:
        path = Path(given).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def _accelerator(name: str, given: Fields) -> Accelerator:
    given.only(*_DEVICE_FIELDS)
    rates, watts = given.table("tflops"), given.table("watts")
    rates.only(*FORMATS)
    watts.only("idle", "max")
    link = given.text("link")
    if link not in _links():
        raise InputError(f"{given.where}: field link names {link!r}, which is none of {', '.join(_links())}")
    flops = {form: rates.number(form) * 1e12 for form in FORMATS if form == "bf16" or form in rates.values}
    idle, limit = watts.number("idle", zero=True), watts.number("max")
    if idle > limit:
        raise InputError(f"{given.where}: field watts has idle ({idle:g}) above max ({limit:g})")
    return Accelerator(
        name=name,
        flops=flops,
        memory=given.number("memory_mib") * MIB,
        bandwidth=given.number("gb_s") * 1e9,
        link=link,
        max_tp=given.integer("max_tp"),
        idle_watts=idle,
        max_watts=limit,
        usd_per_hour=given.number("usd_per_hour", zero=True),
        source=given.text("source"),
        aliases=given.texts("aliases"),
    )


def _link(name: str, given: Fields) -> Link:
    given.only("gb_s", "us", "source")
    return Link(name, given.number("gb_s") * 1e9, given.number("us") * 1e-6, given.text("source"))


def _host(name: str, given: Fields) -> Host:
    given.only("memory_gib", "gb_s", "link", "devices", "source")
    return Host(
        name, given.number("memory_gib") * GIB, given.number("gb_s") * 1e9, given.text("link"), given.texts("devices"), given.text("source")
    )


def _model(name: str, given: Fields) -> ModelShape:
    given.only(*(field.name for field in fields(ModelShape)))
    values = {**given.values, "aliases": given.texts("aliases")}
    return ModelShape(name=name, **values)  # type: ignore[arg-type]


def _read(file: str, make: Callable[[str, Fields], Entry]) -> dict[str, Entry]:
    tables = tomllib.loads(resources.files("rota.catalog").joinpath("data", file).read_text(encoding="utf-8"))
    return {name: make(name, Fields(table, f"{file}: {name}")) for name, table in tables.items()}


@cache
def _links() -> dict[str, Link]:
    return _read("links.toml", _link)


@cache
def _devices() -> dict[str, Accelerator]:
    return _read("accelerators.toml", _accelerator)


@cache
def _hosts() -> dict[str, Host]:
    return _read("hosts.toml", _host)


@cache
def _models() -> dict[str, ModelShape]:
    return _read("models.toml", _model)


def _spellings(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """All names an entry goes by, in lower case."""
    return {name.lower(): entry for entry in entries.values() for name in (entry.name, *getattr(entry, "aliases", ()))}


def _find(entries: Mapping[str, Entry], name: str) -> Entry | None:
    return _spellings(entries).get(name.strip().lower())


def _unknown(kind: str, name: str, entries: Mapping[str, Entry], listing: str, also: str = "") -> InputError:
    spellings = _spellings(entries)
    close = difflib.get_close_matches(name.strip().lower(), spellings, n=6, cutoff=0.5)
    keys = list(dict.fromkeys(spellings[match].name for match in close))[:3]
    hint = f"; did you mean {' or '.join(keys)}?" if keys else ";"
    return InputError(f"unknown {kind} {name[:80]!r}{hint} '{listing}' lists all{f', and {also}' if also else ''}")
