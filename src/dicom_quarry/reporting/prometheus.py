"""Text files for Prometheus (exposition format 0.0.4), which the node exporter's textfile collector reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.system.atomic_file import atomic_write
from dicom_quarry.system.permissions import Permissions

#: The exporter runs as another user.
_READABLE = Permissions(0o644)

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its samples: labels and values. It is a counter if its name ends in ``_total``."""

    name: str
    help: str
    samples: tuple[tuple[Labels, float], ...]

    @classmethod
    def one(cls, name: str, text: str, value: float, **labels: str) -> Metric:
        """Return a metric with one sample."""
        return cls(name, text, ((labels, value),))

    @classmethod
    def by(cls, name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
        """Return a metric with a sample for each value of a label."""
        return cls(name, text, tuple(({label: key}, value) for key, value in values.items()))


def render_metrics(prefix: str, common: Labels, metrics: Iterable[Metric]) -> str:
    """Return the text of a file: ``prefix`` begins every name, every sample has the ``common`` labels."""
    lines = []
    for metric in metrics:
        name = f"{prefix}{metric.name}"
        lines.append(f"# HELP {name} {metric.help}")
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        for labels, value in metric.samples:
            pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in {**common, **labels}.items())
            lines.append(f"{name}{{{pairs}}} {value!r}")
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, text: str) -> None:
    """Replace a file as a whole; raise OSError."""
    with atomic_write(path, _READABLE, durable=False) as file:
        file.write(text.encode())


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
