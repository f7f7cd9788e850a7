"""The catalog as table rows, for listings: one plain dict per entry, with the unit in each column's name."""

from __future__ import annotations

from rota.catalog.load import (
    device_names,
    host_names,
    link_names,
    load_device,
    load_host,
    load_link,
    load_model,
    model_names,
)
from rota.catalog.shapes import Accelerator, Host, Link, ModelShape
from rota.catalog.sizes import kv_bytes_per_token, parameters, weight_bytes
from rota.errors import InputError

Row = dict[str, str | int | float]
KINDS = ("models", "devices", "links", "hosts")


def describe(kind: str) -> list[Row]:
    """Rows of everything built in.

    Parameters
    ----------
    kind : str
        ``"models"``, ``"devices"``, ``"links"`` or ``"hosts"``.

    Returns
    -------
    list of dict
        One per entry, in catalog order, all with the same keys. ``source`` and ``aliases`` come last.

    Raises
    ------
    InputError
        For another kind.
    """
    if kind == "models":
        return [describe_model(load_model(name)) for name in model_names()]
    if kind == "devices":
        return [describe_device(load_device(name)) for name in device_names()]
    if kind == "links":
        return [describe_link(load_link(name)) for name in link_names()]
    if kind == "hosts":
        return [describe_host(load_host(name)) for name in host_names()]
    raise InputError(f"unknown kind {kind!r}; use one of {', '.join(KINDS)}")


def describe_model(shape: ModelShape) -> Row:
    """One model: parameters in 10^9, weights in 10^9 bytes, KV cache in KiB per token, all of the whole model."""
    counted = parameters(shape)
    return {
        "name": shape.name,
        "parameters_b": round(counted.total / 1e9, 2),
        "active_b": round(counted.active / 1e9, 2),
        "layers": shape.layers,
        "hidden": shape.hidden,
        "attention": _attention(shape),
        "experts": f"{shape.experts} x {shape.expert_ffn}, {shape.experts_per_token} per token" if shape.experts else "",
        "weights_gb": round(weight_bytes(shape) / 1e9, 1),
        "kv_kib_per_token": round(kv_bytes_per_token(shape) / 1024, 2),
        "max_len": shape.max_len,
        "source": shape.source,
        "aliases": ", ".join(shape.aliases),
    }


def describe_device(device: Accelerator) -> Row:
    """One accelerator: memory in GiB, rates in 10^12 per second (0 where the format is not supported), power in watts."""
    return {
        "name": device.name,
        "memory_gib": round(device.memory / 2**30, 1),
        "bandwidth_tb_s": round(device.bandwidth / 1e12, 3),
        "bf16_tflops": round(device.flops["bf16"] / 1e12, 1),
        "fp8_tflops": round(device.flops.get("fp8", 0.0) / 1e12, 1),
        "int8_tops": round(device.flops.get("int8", 0.0) / 1e12, 1),
        "link": device.link,
        "max_tp": device.max_tp,
        "watts": round(device.max_watts),
        "usd_per_hour": device.usd_per_hour,
        "source": device.source,
        "aliases": ", ".join(device.aliases),
    }


def describe_link(link: Link) -> Row:
    """One link: bandwidth in 10^9 bytes/s per direction, latency in microseconds."""
    return {
        "name": link.name,
        "gb_s": round(link.bandwidth / 1e9, 2),
        "latency_us": round(link.latency * 1e6, 2),
        "source": link.source,
    }


def describe_host(host: Host) -> Row:
    """One host, per device: memory in GiB, bandwidth in 10^9 bytes/s."""
    return {
        "name": host.name,
        "memory_gib": round(host.memory / 2**30),
        "gb_s": round(host.bandwidth / 1e9, 1),
        "link": host.link,
        "devices": ", ".join(host.devices),
        "source": host.source,
    }


def _attention(shape: ModelShape) -> str:
    if shape.kv_lora:
        return f"{shape.heads} heads, latent {shape.kv_lora}+{shape.rope_dim}"
    text = f"{shape.heads}/{shape.kv_heads} heads of {shape.head_dim}"
    return f"{text}, window {shape.window} in {shape.window_layers} layers" if shape.window else text
