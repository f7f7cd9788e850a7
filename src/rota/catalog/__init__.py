"""What exists: accelerators, links and model shapes, as facts with sources. Nothing here computes time."""

from rota.catalog.listing import describe
from rota.catalog.load import device_names, link_names, load_device, load_link, load_model, model_names
from rota.catalog.shapes import Accelerator, Link, ModelShape

__all__ = [
    "Accelerator",
    "Link",
    "ModelShape",
    "describe",
    "device_names",
    "link_names",
    "load_device",
    "load_link",
    "load_model",
    "model_names",
]
