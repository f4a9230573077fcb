"""Charts of a job's load over time, for reports and live pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from dicom_quarry.config.time_window import Schedule
from dicom_quarry.ledger.activity import Activity, Slice
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.html.charts import TimeAxis, time_chart
from dicom_quarry.reporting.html.markup import Markup, element, join

#: Most columns of a chart over time; and the fewest, so that one of a short job is no block.
_MAX_COLUMNS, _MIN_COLUMNS = 96, 12


def make_time_axis(
    activity: Activity, zone: tzinfo, schedules: Sequence[Schedule] = ()
) -> tuple[TimeAxis, list[Slice]]:
    """Return the time axis of a job's charts, and the load of each of its slices.

    ``schedules`` are the hours in which the archives may be queried, which a chart shades.
    """
    loads = activity.slices()
    # Where the clock of the computer was set back, there is load before the beginning.
    start = min([int(activity.began // activity.step) * activity.step, *loads])
    number = int((max([activity.ended, *loads]) - start) // activity.step) + 1
    together = -(-number // _MAX_COLUMNS)
    step = activity.step * together
    slices = [Slice() for _ in range(max(_MIN_COLUMNS, -(-number // together)))]
    for time, one in loads.items():
        slices[(time - start) // step].add(one)
    has_window = any(one.windows for one in schedules) and step <= 6 * 3600
    axis = TimeAxis(
        datetime.fromtimestamp(start, zone),
        timedelta(seconds=step),
        len(slices),
        (lambda at: any(one.is_open(at) for one in schedules)) if has_window else None,
    )
    return axis, slices


def throughput_chart(axis: TimeAxis, slices: Sequence[Slice]) -> Markup:
    """Return the chart of the bytes over time, with its heading."""
    seconds = axis.step.total_seconds()
    legend = f"Bytes a second, in each {axis.step_name}; times in {axis.start:%Z}."
    if axis.is_open is not None:
        legend += " Shaded: the hours in which the archive may be queried."
    values = [one.size / seconds for one in slices]
    return join(
        [
            element("h3", "Throughput over time"),
            element("p", legend, class_="quiet"),
            time_chart(axis, values, lambda value: f"{format_size(round(value))}/s", "Throughput over time"),
        ]
    )
