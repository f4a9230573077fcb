"""The parts of pages: elements, tables, charts and the style sheet, the same in reports and on live pages."""

from __future__ import annotations

from dicom_quarry.reporting.html.charts import Bar as Bar
from dicom_quarry.reporting.html.charts import bar_chart as bar_chart
from dicom_quarry.reporting.html.charts import flow_diagram as flow_diagram
from dicom_quarry.reporting.html.markup import Markup as Markup
from dicom_quarry.reporting.html.markup import element as element
from dicom_quarry.reporting.html.markup import join as join
from dicom_quarry.reporting.html.markup import table as table
from dicom_quarry.reporting.html.markup import tiles as tiles
from dicom_quarry.reporting.html.over_time import make_time_axis as make_time_axis
from dicom_quarry.reporting.html.over_time import throughput_chart as throughput_chart
from dicom_quarry.reporting.html.page import style_sheet as style_sheet
from dicom_quarry.reporting.html.timeline import timeline as timeline
from dicom_quarry.reporting.html.tones import tone_of as tone_of
