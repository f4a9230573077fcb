"""Instances on disk: names made safe, bytes made durable."""
