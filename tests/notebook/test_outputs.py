"""The outputs of a notebook: no value of the table without ``identifiers``, and nothing else is touched."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dicom_quarry
from dicom_quarry.reporting.html.notebook import notebook_styles
from tests.notebook.conftest import MARK, Kernel, Site

SECRET = re.compile(r"MARK|QA0000")


def objects(
    site: Site,
) -> list[dicom_quarry.Result | dicom_quarry.Plan | dicom_quarry.Job | dicom_quarry.Verification]:
    out = site.folder / "out"
    return [site.result, site.plan, dicom_quarry.open(out), dicom_quarry.verify(out)]


def test_no_output_has_a_cell(site: Site, kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    for one in objects(site):
        text = f"{one._repr_html_()} {one!r} {json.dumps(one.to_dict())}"
        assert not SECRET.search(text), one
        one.show()
    assert len(kernel.outputs[None]) == 4
    assert not SECRET.search(json.dumps(kernel.outputs[None]))
    assert not capsys.readouterr().out


def test_identifiers_are_shown_and_escaped(site: Site, kernel: Kernel) -> None:
    for one in objects(site)[:3]:
        one.show(identifiers=True)
        shown = kernel.outputs[None].pop()
        assert "MARK&lt;b&gt;" in shown["text/html"]
        assert "<b>" not in shown["text/html"]
        assert "QA00003" in shown["text/html"]
        assert MARK in shown["text/plain"]
        assert "Clear it before you share" in shown["text/html"]


def test_the_row_that_needs_attention_is_the_first(site: Site, kernel: Kernel) -> None:
    site.result.show(identifiers=True)
    rows = [line for line in kernel.outputs[None][0]["text/plain"].splitlines() if line.startswith("Row: ")]
    assert [line.split(";")[0] for line in rows] == ["Row: 3", "Row: 1", "Row: 2"]


def test_damaged_files_are_named_with_identifiers_alone(site: Site, kernel: Kernel) -> None:
    checked = dicom_quarry.verify(site.folder / "out")
    checked.show(identifiers=True)
    assert ".dcm" in kernel.outputs[None][0]["text/html"]
    assert ".dcm" not in checked._repr_html_()
    assert (checked.damaged, [one.code for one in checked.problems]) == (1, ["size"])
    assert checked.to_dict()["damaged_by_code"] == {"size": 1}
    assert repr(checked).endswith("1 damaged or missing>")


def test_a_verification_is_iterated_as_before(site: Site) -> None:
    checked = dicom_quarry.verify(site.folder / "out")
    assert "0 files compared so far" in repr(checked)
    first = next(checked)
    rest = list(checked)
    assert [first, *rest] == list(checked), "iterating again compares again"
    assert checked.files == len(rest) + 1
    for _ in checked:
        break
    assert not checked.is_finished
    assert "is damaged or missing" in checked._repr_html_(), "an output compares what is left"
    assert checked.is_finished
    assert checked.damaged == 1


def test_an_interrupted_verification_begins_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicom_quarry.api import verified_files

    def interrupted(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    checked = dicom_quarry.verify(site.folder / "out")
    with monkeypatch.context() as patch:
        patch.setattr(verified_files, "_verify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checked.run()
    assert checked.run().damaged == 1


def test_a_script_gets_text(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.result.show()
    text = capsys.readouterr().out
    assert "2 of 3 rows complete; 1 needs attention." in text
    assert not SECRET.search(text)
    site.result.show(identifiers=True)
    assert f"Label: 007 {MARK}" in capsys.readouterr().out
    site.plan.show()
    assert not SECRET.search(capsys.readouterr().out)


def test_a_job_that_was_moved_has_its_plain_representation(tmp_path: Path, site: Site) -> None:
    (tmp_path / "out").symlink_to(site.folder / "out")
    job = dicom_quarry.open(tmp_path / "out")
    assert "3 of 3 rows ended" in repr(job)
    (tmp_path / "out").unlink()
    assert job._repr_html_() is None
    assert repr(job) == f"<Job {tmp_path / 'out'}>"


class _Tags(HTMLParser):
    """The elements that are open at the end, and all that there were."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all: set[str] = set()
        self.events: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.all.add(tag)
        self.events += [name for name, value in attrs if name.startswith("on") or "://" in (value or "")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_outputs_are_whole_elements_without_scripts_or_addresses(site: Site) -> None:
    for one in objects(site):
        tags = _Tags()
        tags.feed(one._repr_html_() or "")
        assert not tags.open
        assert not tags.events
        assert not tags.all & {"script", "link", "img", "iframe"}
        assert "table" in tags.all or "dl" in tags.all


def test_styles_apply_to_outputs_of_quarry_alone() -> None:
    styles = notebook_styles()
    assert "@light" not in styles
    assert "/*" not in styles
    rules = re.sub(r"@media [^{]*\{", "", styles)
    selectors = [one for group in re.findall(r"([^{}]+)\{", rules) for one in group.split(",")]
    assert len(selectors) > 50
    for one in selectors:
        assert re.match(r'(body|\[data-[a-z-]+="\w+"\] |\.vscode-\w+ )?\.quarry\b', one.strip()), one


def test_a_script_imports_neither_ipython_nor_a_library_of_tables(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = ("IPython", "nanoarrow", "pyarrow", "pandas")
    for name in foreign:
        monkeypatch.delitem(sys.modules, name, raising=False)
    job = dicom_quarry.open(site.folder / "out")
    job.show(identifiers=True)
    job._repr_html_()
    list(job.rows_table())
    job.verify(quick=True, progress=True).run()
    assert not set(foreign) & set(sys.modules)
    assert len(capsys.readouterr().out.splitlines()) < 12, "progress is silent"
