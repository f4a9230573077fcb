"""Instances on disk: path templates, safe names, durable files."""
