"""What exists: accelerators, links, hosts and model shapes, as facts with sources. Nothing here computes time."""

from rota.catalog.listing import describe
from rota.catalog.load import (
    device_names,
    host_names,
    link_names,
    load_device,
    load_host,
    load_link,
    load_model,
    model_names,
    usual_host,
)
from rota.catalog.shapes import Accelerator, Host, Link, ModelShape

__all__ = [
    "Accelerator",
    "Host",
    "Link",
    "ModelShape",
    "describe",
    "device_names",
    "host_names",
    "link_names",
    "load_device",
    "load_host",
    "load_link",
    "load_model",
    "model_names",
    "usual_host",
]
