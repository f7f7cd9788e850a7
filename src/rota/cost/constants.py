"""Cost constants of a device, as data: kernel floors, efficiencies, collectives, host time, each with its origin and error.

Shipped ones are the TOML files in `rota.cost.data`; `rota calibrate` writes files of the same form. Nothing here computes a step.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rota.catalog.fields import Fields
from rota.catalog.shapes import Accelerator, Link
from rota.errors import InputError

Floats = NDArray[np.float64]

#: Kinds of kernel, and the number formats that may have constants of their own.
KINDS = ("linear", "pointwise", "prefill", "decode", "experts")
FORMATS = ("bf16", "fp8", "int8", "int4")
#: Larger messages go through the collective library instead of the engine's own all-reduce kernel, bytes (vLLM's limit).
CUSTOM_LIMIT = 8 << 20
#: Attention on the host where no calibration says otherwise, assumed: waking its threads takes 20 us, they read at 60% of the memory's
#: peak.
ATTENTION_FLOOR, ATTENTION_EFFICIENCY = 2e-5, 0.6
#: Share of the link's bandwidth that copies of KV from pinned host memory reach, assumed.
COPY_EFFICIENCY = 0.75


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kind of kernel: ``floor + hypot(flops / (F flop_efficiency), bytes / (B byte_efficiency))`` seconds.

    Parameters
    ----------
    floor : float
        Seconds of the smallest call.
    flop_efficiency, byte_efficiency : float
        Shares of the device's peak FLOP/s (F) and bytes/s (B) that are reached.
    error : float
        Mean relative error on data not used in the fit; an estimate where `fitted` is false.
    fitted : bool
    origin : str
        What it was fitted to, or why it is assumed.
    """

    floor: float
    flop_efficiency: float
    byte_efficiency: float
    error: float
    fitted: bool = False
    origin: str = ""

    def seconds(self, flops: ArrayLike, moved: ArrayLike, peak: float, bandwidth: float) -> Floats:
        """Seconds of calls with so many FLOPs and bytes on a device of these peak rates."""
        compute = np.asarray(flops, dtype=np.float64) / (peak * self.flop_efficiency)
        memory = np.asarray(moved, dtype=np.float64) / (bandwidth * self.byte_efficiency)
        return np.asarray(self.floor + np.hypot(compute, memory))


@dataclass(frozen=True, slots=True)
class AllReduce:
    """All-reduce of `m` bytes among k devices: ``latency + 2 (k - 1) / k m / bandwidth`` seconds, in two ranges of sizes.

    Parameters
    ----------
    latency, bandwidth : float
        Up to 8 MiB, where engines use a kernel of their own; seconds, bytes/s.
    large_latency, large_bandwidth : float
        Beyond.
    """

    latency: float
    bandwidth: float
    large_latency: float
    large_bandwidth: float
    error: float
    fitted: bool = False
    origin: str = ""

    def seconds(self, size: ArrayLike, k: int) -> Floats:
        """Seconds of an all-reduce of `size` bytes among `k` devices; 0 for one device."""
        if k == 1:
            return np.zeros_like(np.asarray(size, dtype=np.float64))
        sent = 2 * (k - 1) / k * np.asarray(size, dtype=np.float64)
        small, large = self.latency + sent / self.bandwidth, self.large_latency + sent / self.large_bandwidth
        return np.where(np.asarray(size) <= CUSTOM_LIMIT, small, np.maximum(large, self._at_limit(k)))

    def _at_limit(self, k: int) -> float:
        """What the small range ends at: more bytes never take less time."""
        return self.latency + 2 * (k - 1) / k * CUSTOM_LIMIT / self.bandwidth


@dataclass(frozen=True, slots=True)
class Host:
    """Seconds per step outside the device's kernels: `launch` bounds a step from below, `cpu` and `cpu_per_seq` add to it.

    Attention over KV in host memory: `attention_floor` seconds a call, `attention_efficiency` of the memory's bandwidth,
    `link_efficiency` of the bandwidth between host and device.
    """

    launch: float
    cpu: float
    cpu_per_seq: float
    error: float
    origin: str = ""
    attention_floor: float = ATTENTION_FLOOR
    attention_efficiency: float = ATTENTION_EFFICIENCY
    link_efficiency: float = COPY_EFFICIENCY


@dataclass(frozen=True, slots=True)
class Constants:
    """All cost constants of one device.

    Parameters
    ----------
    kernels : dict
        By ``"linear.bf16"``, ``"pointwise"``, ``"prefill"``, ``"decode"``, ``"experts.fp8"`` and so on.
    all_reduce : dict of int to AllReduce
        By number of devices.
    host : Host
    name : str
        Where the constants come from: a device family of the package or a file.
    """

    kernels: Mapping[str, Kernel]
    all_reduce: Mapping[int, AllReduce]
    host: Host
    name: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)

    def kernel(self, kind: str, form: str = "bf16") -> Kernel:
        """The kernel of a kind for a number format; 8-bit formats stand in for each other, then bf16 does."""
        for other in (form, {"int8": "fp8", "fp8": "int8"}.get(form, "bf16"), "bf16"):
            if f"{kind}.{other}" in self.kernels:
                return self.kernels[f"{kind}.{other}"]
        return self.kernels[kind]

    @property
    def source(self) -> str:
        """``"fit"`` if linear kernels and both kinds of attention were fitted to measurements, else ``"roofline"``."""
        needed = (self.kernel("linear"), self.kernels["prefill"], self.kernels["decode"])
        return "fit" if all(kernel.fitted for kernel in needed) else "roofline"


def load_constants(device: Accelerator, link: Link, calibration: str | Path | None = None) -> Constants:
    """The constants of a device: shipped ones, or estimates for devices that have none; what `calibration` holds replaces them.

    Raises
    ------
    InputError
        If the calibration file cannot be read, lacks a field, or was made for another device.
    """
    base, default = _shipped(), _family("default")
    family = base.get(device.name, "default")
    kernels = {**default.kernels, **_family(family).kernels}
    found = Constants(kernels, _links().get(link.name, {}), default.host, family, _family(family).meta)
    if calibration is None:
        return found
    own = read_constants(calibration)
    made_for = own.meta.get("device", device.name)
    if made_for != device.name:
        raise InputError(f"{calibration}: made for device {made_for}, not {device.name}; run rota calibrate for {device.name}")
    return replace(
        found,
        kernels={**found.kernels, **own.kernels},
        all_reduce={**found.all_reduce, **own.all_reduce},
        host=own.host if "host" in own.meta else found.host,
        name=str(calibration),
    )


def default_all_reduce(link: Link, k: int) -> AllReduce:
    """An estimate from a link's published figures: a ring of `k` devices at 70% of the bandwidth."""
    latency, bandwidth = 2 * (k - 1) * link.latency, 0.7 * link.bandwidth
    return AllReduce(latency, bandwidth, latency, bandwidth, 0.3, False, f"estimate from {link.name}: 70% of its bandwidth")


def read_constants(path: str | Path) -> Constants:
    """A file written by `write_constants`.

    Raises
    ------
    InputError
        If it cannot be read or a field is missing, unknown or out of range.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file written by rota calibrate") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error}); give a file written by rota calibrate") from None
    return _parse(table, str(path))


def write_constants(path: str | Path, constants: Constants) -> None:
    """Write what was fitted (and the host times, if `meta` has ``"host"``) as TOML.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    lines = [f"{key} = {_quoted(value)}" for key, value in constants.meta.items() if key != "host"]
    for name, kernel in constants.kernels.items():
        lines += ["", f"[{name}]", *_fields(kernel)]
    for k, collective in constants.all_reduce.items():
        lines += ["", f"[all_reduce.{k}]", *_fields(collective)]
    if "host" in constants.meta:
        lines += ["", "[host]", *_fields(constants.host)]
    try:
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def _fields(entry: Kernel | AllReduce | Host) -> list[str]:
    lines = []
    for name in entry.__dataclass_fields__:
        value = getattr(entry, name)
        if isinstance(value, bool):
            lines.append(f"{name} = {str(value).lower()}")
        elif isinstance(value, str):
            lines.append(f"{name} = {_quoted(value)}")
        else:
            lines.append(f"{name} = {float(f'{value:.4g}')!r}")
    return lines


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else " " for c in escaped) + '"'


def _parse(table: Mapping[str, object], where: str) -> Constants:
    given = Fields(table, where)
    kernels: dict[str, Kernel] = {}
    for kind in KINDS:
        if kind not in table:
            continue
        entry = given.table(kind)
        if kind in ("linear", "experts"):
            entry.only(*FORMATS)
            kernels |= {f"{kind}.{form}": _kernel(entry.table(form)) for form in FORMATS if form in entry.values}
        else:
            kernels[kind] = _kernel(entry)
    meta = {key: value for key, value in table.items() if isinstance(value, str)}
    if "host" in table:
        meta["host"] = "given"
    host = _host(given.table("host")) if "host" in table else Host(0.0, 0.0, 0.0, 0.0)
    collectives = _collectives(given.table("all_reduce")) if "all_reduce" in table else {}
    unknown = [k for k, value in table.items() if isinstance(value, dict) and k not in (*KINDS, "host", "all_reduce")]
    if unknown:
        raise InputError(f"{where}: unknown table [{unknown[0]}]; known are {', '.join((*KINDS, 'all_reduce', 'host'))}")
    return Constants(kernels, collectives, host, where, meta)


def _kernel(given: Fields) -> Kernel:
    given.only("floor", "flop_efficiency", "byte_efficiency", "error", "fitted", "origin")
    return Kernel(
        given.number("floor", zero=True),
        given.number("flop_efficiency"),
        given.number("byte_efficiency"),
        given.number("error", zero=True),
        given.flag("fitted", default=False),
        given.text("origin", default="not stated"),
    )


def _collectives(given: Fields) -> dict[int, AllReduce]:
    found = {}
    for key in given.values:
        if not key.isdigit() or int(key) < 2:
            raise InputError(f"{given.where}: field {key} must be a number of devices, 2 or more")
        entry = given.table(key)
        entry.only("latency", "bandwidth", "large_latency", "large_bandwidth", "error", "fitted", "origin")
        found[int(key)] = AllReduce(
            entry.number("latency", zero=True),
            entry.number("bandwidth"),
            entry.number("large_latency", zero=True),
            entry.number("large_bandwidth"),
            entry.number("error", zero=True),
            entry.flag("fitted", default=False),
            entry.text("origin", default="not stated"),
        )
    return found


def _host(given: Fields) -> Host:
    given.only("launch", "cpu", "cpu_per_seq", "error", "origin", "attention_floor", "attention_efficiency", "link_efficiency")
    return Host(
        given.number("launch", zero=True),
        given.number("cpu", zero=True),
        given.number("cpu_per_seq", zero=True),
        given.number("error", zero=True),
        given.text("origin", default="not stated"),
        given.number("attention_floor", default=ATTENTION_FLOOR, zero=True),
        given.number("attention_efficiency", default=ATTENTION_EFFICIENCY),
        given.number("link_efficiency", default=COPY_EFFICIENCY),
    )


def _data(file: str) -> dict[str, object]:
    return tomllib.loads(resources.files("rota.cost").joinpath("data", file).read_text(encoding="utf-8"))


@cache
def _family(name: str) -> Constants:
    table = {key: value for key, value in _data(f"{name}.toml").items() if key != "devices"}
    return replace(_parse(table, f"{name}.toml"), name=name)


@cache
def _shipped() -> dict[str, str]:
    """Device family by catalog key."""
    folder = resources.files("rota.cost").joinpath("data")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".toml"))
    found: dict[str, str] = {}
    for file in names:
        devices = _data(file).get("devices", [])
        assert isinstance(devices, list)
        found |= dict.fromkeys(devices, file.removesuffix(".toml"))
    return found


@cache
def _links() -> dict[str, dict[int, AllReduce]]:
    return {name: _collectives(Fields(table, f"links.toml: {name}")) for name, table in _data("links.toml").items()
            if isinstance(table, dict)}  # fmt: skip
