"""A container engine for Linux in which every Linux primitive is a plugin."""

from __future__ import annotations

__version__ = "0.1.0"
