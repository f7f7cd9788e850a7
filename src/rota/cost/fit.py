"""Refits cost constants from measured kernel profiles, and says how far off they are on the part that was not fitted.

Every kind of kernel has the same form, ``floor + hypot(flops / (F e_F), bytes / (B e_B))``, fitted by damped Gauss-Newton on the
logarithm of the time with a Huber loss, so that a wrong row does not pull the whole fit. All-reduce is a latency and a bandwidth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rota.catalog import load_device
from rota.catalog.shapes import Accelerator
from rota.cost.constants import CUSTOM_LIMIT, AllReduce, Constants, Host, Kernel, write_constants
from rota.cost.profiles import Samples, read_profile
from rota.errors import InputError

Floats = NDArray[np.float64]

#: Fewest rows of a kind worth a fit.
FEWEST = 8
#: Beyond this many parts of relative error a row counts linearly, not squared.
HUBER = 0.1
#: Flop efficiency of a kind that never computes enough to show one: reading a cache, element-wise kernels.
UNSEEN_FLOPS = 0.5
_LOWEST, _HIGHEST = 1e-7, 1e-2  # seconds, of a floor


@dataclass(frozen=True, slots=True)
class Check:
    """How well one kind was fitted: mean and 90th percentile of the relative error on the `held_out` of `rows` rows."""

    kind: str
    rows: int
    held_out: int
    error: float
    p90: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Constants refitted for a device.

    Parameters
    ----------
    device : str
    constants : Constants
        Those that the profiles could tell.
    checks : tuple of Check
        Errors on held-out rows.
    left_out : int
        Rows faster than the memory can deliver, that is, served from a cache; they were not used.
    seed : int
        Of the split: a row is held out where the CRC-32 of ``"<seed>/<its shape>"`` is in the lowest 30% of its range.
    """

    device: str
    constants: Constants
    checks: tuple[Check, ...]
    left_out: int
    seed: int

    def rows(self) -> list[dict[str, object]]:
        """One row per check, for printing."""
        return [
            {"kind": c.kind, "rows": c.rows, "held out": c.held_out, "hold-out error": c.error, "p90": c.p90} for c in self.checks
        ]

    def write(self, path: str | Path) -> None:
        """Write the constants as TOML, for ``Deployment(..., calibration=path)``."""
        write_constants(path, self.constants)


def calibrate(paths: Sequence[str | Path], device: str | Accelerator, *, seed: int = 0) -> Calibration:
    """Fit the cost constants of `device` to measured profiles.

    Parameters
    ----------
    paths : sequence of str or Path
        Profile files (see `rota.cost.profiles`), all of this device.
    device : str or Accelerator
    seed : int
        Of the split into 70% that are fitted and 30% that are held out.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        If a file cannot be used, or none holds enough rows.
    """
    if not paths:
        raise InputError("no profile given; name at least one CSV or Parquet file with measured kernel times")
    if seed < 0:
        raise InputError(f"seed must not be negative ({seed})")
    target = load_device(device) if isinstance(device, str) else device
    by_kind: dict[str, list[Samples]] = defaultdict(list)
    origins: dict[str, dict[str, None]] = defaultdict(dict)
    for number, path in enumerate(paths):
        for samples in read_profile(path):
            by_kind[samples.kind].append(samples.of_file(number))
            origins[samples.kind][Path(path).name] = None
    kernels: dict[str, Kernel] = {}
    collectives: dict[int, AllReduce] = {}
    checks: list[Check] = []
    dropped = 0
    for kind, parts in sorted(by_kind.items()):
        measured = sum(len(part.seconds) for part in parts)
        if kind.partition(".")[0] in ("linear", "decode", "experts"):
            parts[:] = [_uncached(part, target.bandwidth) if part.layer is None else part for part in parts]
        dropped += measured - sum(len(part.seconds) for part in parts)
        held = np.concatenate([part.held_out(seed) for part in parts])
        if (~held).sum() < FEWEST:
            continue
        origin = ", ".join(origins[kind])
        if kind.startswith("all_reduce."):
            k = int(kind.removeprefix("all_reduce."))
            size, seconds = _joined(parts, "moved"), _joined(parts, "seconds")
            fitted = _fit_all_reduce(size, seconds, k, held)
            check = _check(f"all-reduce, {k} devices", fitted.seconds(size, k), seconds, held)
            collectives[k] = replace(fitted, error=check.error, fitted=True, origin=origin)
        else:
            kernel = _fit_kernel(parts, target, held)
            check = _check(kind, _predict(kernel, parts, target), _joined(parts, "seconds"), held)
            kernels[kind] = replace(kernel, error=check.error, fitted=True, origin=origin)
        checks.append(check)
    if not checks:
        names = ", ".join(Path(path).name for path in paths)
        raise InputError(f"{names}: no kind of kernel has {FEWEST} rows to fit; give more of the profile")
    for name, kinds in (("linear", ("linear.bf16",)), ("whole", ("linear.bf16", "pointwise"))):
        layers = [part for kind in kinds if kind in kernels for part in by_kind[kind] if part.layer is not None]
        if layers and all(kind in kernels for kind in kinds):
            check = _layer_check(f"{name} layer", layers, kernels, target, seed)
            checks.append(check)
            if name == "linear":
                kernels["linear.bf16"] = replace(kernels["linear.bf16"], error=check.error)
    meta = {"device": target.name, "source": f"rota calibrate, 70% of the rows fitted, split by seed {seed}"}
    constants = Constants(kernels, collectives, Host(0.0, 0.0, 0.0, 0.0), target.name, meta)
    return Calibration(target.name, constants, tuple(checks), dropped, seed)


def fit_roofline(flops: Floats, moved: Floats, seconds: Floats, peak: float, bandwidth: float) -> tuple[float, float, float]:
    """Floor (seconds), FLOP and byte efficiency of a kernel from calls with so many FLOPs and bytes.

    Where the calls do no FLOPs, the second is `UNSEEN_FLOPS`.
    """
    computes = bool(np.any(flops > 0))
    compute, memory = flops / peak, moved / bandwidth

    def predict(x: Floats) -> Floats:
        return np.asarray(np.exp(x[0]) + np.hypot(compute * np.exp(-x[1]) if computes else 0.0, memory * np.exp(-x[-1])))

    start = [np.log(max(_LOWEST, float(seconds.min()) / 2)), np.log(0.5), np.log(0.7)]
    bounds = [(np.log(_LOWEST), np.log(_HIGHEST)), (np.log(0.005), 0.0), (np.log(0.005), np.log(1.25))]
    if not computes:
        del start[1], bounds[1]
    x = np.exp(least_squares(predict, seconds, start, bounds))
    return float(x[0]), float(x[1]) if computes else UNSEEN_FLOPS, float(x[-1])


def _fit_kernel(parts: Sequence[Samples], device: Accelerator, held: NDArray[np.bool_]) -> Kernel:
    flops, moved, seconds = (_joined(parts, name)[~held] for name in ("flops", "moved", "seconds"))
    peak = _peak(device, parts[0].kind)
    return Kernel(*fit_roofline(flops, moved, seconds, peak, device.bandwidth), error=0.0)


def _fit_all_reduce(size: Floats, seconds: Floats, k: int, held: NDArray[np.bool_]) -> AllReduce:
    sent = 2 * (k - 1) / k * size
    found: list[tuple[float, float] | None] = []
    for part in (size <= CUSTOM_LIMIT, size > CUSTOM_LIMIT):
        rows = part & ~held
        found.append(_line(sent[rows], seconds[rows]) if rows.sum() >= 3 else None)
    small, large = found[0] or found[1], found[1] or found[0]
    if small is None or large is None:
        small = large = _line(sent[~held], seconds[~held])
    return AllReduce(*small, *large, error=0.0)


def _line(sent: Floats, seconds: Floats) -> tuple[float, float]:
    """Latency (seconds) and bandwidth (bytes/s) of messages."""
    rate = float(np.max(sent / seconds))
    bounds = [(np.log(_LOWEST), np.log(_HIGHEST)), (np.log(rate / 100), np.log(rate * 100))]
    start = [np.log(float(seconds.min())), np.log(rate)]
    x = np.exp(least_squares(lambda x: np.exp(x[0]) + sent * np.exp(-x[1]), seconds, start, bounds))
    return float(x[0]), float(x[1])


def least_squares(
    predict: Callable[[Floats], Floats], seconds: Floats, start: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> Floats:
    """Parameters within bounds that minimise the Huber loss of log(predicted / measured): Levenberg-Marquardt, reweighted."""
    target, low, high = np.log(seconds), *np.array(bounds, dtype=np.float64).T
    x = np.clip(np.array(start, dtype=np.float64), low, high)

    def residuals(at: Floats) -> Floats:
        return np.asarray(np.log(predict(at)) - target)

    def loss(r: Floats) -> float:
        size = np.abs(r)
        return float(np.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER)).sum())

    r = residuals(x)
    best, damping = loss(r), 1e-2
    for _ in range(200):
        step = 1e-6
        jacobian = np.stack([(residuals(x + step * unit) - r) / step for unit in np.eye(len(x))], axis=1)
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(r), 1e-300))
        normal, gradient = jacobian.T @ (weight[:, None] * jacobian), jacobian.T @ (weight * r)
        while damping < 1e12:
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -gradient)
            candidate = np.clip(x + move, low, high)
            fresh = residuals(candidate)
            if loss(fresh) < best:
                break
            damping *= 4
        else:
            return x
        gain, best, x, r, damping = best - loss(fresh), loss(fresh), candidate, fresh, damping * 0.3
        if gain <= 1e-12 * best:
            return x
    return x


def _uncached(samples: Samples, bandwidth: float) -> Samples:
    """Without calls that moved their bytes faster than the memory can."""
    use = samples.moved / samples.seconds <= bandwidth
    keep = np.flatnonzero(use).tolist()
    layer = None if samples.layer is None else [samples.layer[i] for i in keep]
    key = [samples.key[i] for i in keep]
    return replace(
        samples, flops=samples.flops[use], moved=samples.moved[use], seconds=samples.seconds[use], key=key, layer=layer
    )


def _peak(device: Accelerator, kind: str) -> float:
    return device.flops.get(kind.partition(".")[2], device.flops["bf16"])


def _joined(parts: Sequence[Samples], name: str) -> Floats:
    return np.concatenate([getattr(part, name) for part in parts])


def _predict(kernel: Kernel, parts: Sequence[Samples], device: Accelerator) -> Floats:
    return kernel.seconds(_joined(parts, "flops"), _joined(parts, "moved"), _peak(device, parts[0].kind), device.bandwidth)


def _check(kind: str, predicted: Floats, seconds: Floats, held: NDArray[np.bool_]) -> Check:
    use = held if held.any() else np.ones(len(held), dtype=bool)
    error = np.abs(predicted[use] / seconds[use] - 1)
    return Check(kind, len(seconds), int(held.sum()), float(error.mean()), float(np.quantile(error, 0.9)))


def _layer_check(kind: str, parts: Sequence[Samples], kernels: dict[str, Kernel], device: Accelerator, seed: int) -> Check:
    """Errors of whole layers: the sums over their operators."""
    predicted: dict[str, float] = defaultdict(float)
    measured: dict[str, float] = defaultdict(float)
    out: dict[str, bool] = {}
    for part in parts:
        assert part.layer is not None
        seconds, held = _predict(kernels[part.kind], [part], device), part.held_out(seed)
        occurrence: dict[str, int] = defaultdict(int)
        for i, layer in enumerate(part.layer):
            occurrence[layer] += 1
            name = f"{layer}#{occurrence[layer]}"
            predicted[name] += float(seconds[i])
            measured[name] += float(part.seconds[i])
            out[name] = bool(held[i])
    names = list(out)
    mine, theirs = (np.array([seconds[n] for n in names]) for seconds in (predicted, measured))
    return _check(kind, mine, theirs, np.array([out[n] for n in names]))
