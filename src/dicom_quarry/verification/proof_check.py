"""Checks proof.json against what is there: the manifest, the job's record and its audit log, or the reports.

The files are compared with the same record by ``verifier``. What cannot be checked, as in a folder that was
delivered without the job's record, is listed: it is not taken for right.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_quarry.errors import InputError
from dicom_quarry.jobs.audit_chain import AuditChain, compare_chain, compute_chain
from dicom_quarry.jobs.audit_log import AUDIT_NAME
from dicom_quarry.jobs.opened_job import OpenedJob
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.csv_reports import hash_manifest
from dicom_quarry.reporting.proof import (
    FORMAT,
    PROOF_NAME,
    SIGNATURE_NAME,
    ManifestDigest,
    describe_job,
    digest_manifest,
    render_proof,
)
from dicom_quarry.system.signatures import is_valid, load_public_key
from dicom_quarry.system.text_safety import escape_text

#: Largest proof that is read: with all values of its chain one has less than 100 kB.
_MAX_SIZE = 1 << 20
_MAX_TEXT = 100
_DIGEST = re.compile("[0-9a-f]{64}")

#: The members of a proof that describe the job, and of its parts those that are compared.
_FACTS = ("archives", "times", "finished", "rows", "studies", "instances")
_MEMBERS = {"format", "statement", "check", "versions", *_FACTS, "manifest", "audit"}
_MANIFEST_MEMBERS = {"file", "files", "bytes", "sha256", "unpacked_sha256"}
_AUDIT_MEMBERS = {"file", "records", "head", "every", "values"}


@dataclass(slots=True)
class ProofCheck:
    """The result of a check of the proof with the digest ``sha256``.

    ``differences`` are what is not as in the proof. ``outdated`` is why the proof is of an earlier state of
    the job, or empty. ``checked`` and ``unchecked`` are what was compared, and what could not be, with why.
    """

    sha256: str
    written: str
    differences: list[str] = field(default_factory=list)
    outdated: str = ""
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """True if everything that was compared is as in the proof."""
        return not self.differences and not self.outdated


def check_proof(
    out: Path, job: OpenedJob | None, manifest: Path, *, public_key: Path | None = None
) -> ProofCheck:
    """Check the proof in a folder; ``job`` is None where the job's record is not there.

    Raises InputError if there is no proof, or one of another version, and for a public key that is none.
    """
    content = _read_proof(out)
    return _Checker(out, job, manifest, content).check(public_key)


def _read_proof(out: Path) -> bytes:
    try:
        with (out / PROOF_NAME).open("rb") as file:
            content = file.read(_MAX_SIZE + 1)
    except FileNotFoundError:
        raise InputError(
            f"{out} has no {PROOF_NAME}: quarry report writes it in the folder of a job"
        ) from None
    except OSError as error:
        raise InputError(f"{out / PROOF_NAME} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_SIZE:
        raise InputError(f"{out / PROOF_NAME} is larger than any that Quarry writes: get the original one")
    return content


class _Damaged(Exception):
    """A proof lacks a value, or has one of another type."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """The values of a proof that are compared."""

    written: str
    manifest: ManifestDigest
    audit: AuditChain
    facts: Mapping[str, Any]

    @classmethod
    def parse(cls, content: bytes) -> _Proof:
        """Raise _Damaged for what is no proof, and InputError for one of another version."""
        try:
            values = json.loads(content)
            if isinstance(values, dict) and str(values.get("format", FORMAT)) != FORMAT:
                raise InputError(
                    f"{PROOF_NAME} has the format {escape_text(str(values['format']), limit=_MAX_TEXT)}, and "
                    f"this version of Quarry reads {FORMAT}: use the version that wrote it"
                )
            manifest, audit = values["manifest"], values["audit"]
            _require_form(content, values)
            chain = tuple(_digest(one) for one in audit["values"])
            proof = cls(
                escape_text(str(values["times"]["written"]), limit=_MAX_TEXT),
                ManifestDigest(
                    _number(manifest["files"]),
                    _number(manifest["bytes"]),
                    _digest(manifest["sha256"]),
                    _digest(manifest["unpacked_sha256"]),
                ),
                AuditChain(
                    _number(audit["records"]),
                    _digest(audit["head"]) if audit["records"] else "",
                    _number(audit["every"]),
                    chain,
                ),
                {name: values[name] for name in _FACTS},
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _Damaged(str(error)) from error
        if proof.audit.every < 1 or len(chain) != proof.audit.records // proof.audit.every:
            raise _Damaged("its chain has another length than it states")
        return proof


def _require_form(content: bytes, values: Mapping[str, Any]) -> None:
    """Raise ValueError for another form than Quarry's: a member may be there twice, or be unknown."""
    known = ((values, _MEMBERS), (values["manifest"], _MANIFEST_MEMBERS), (values["audit"], _AUDIT_MEMBERS))
    if any(set(part) != members for part, members in known):
        raise ValueError("its members are not those of a proof")
    if render_proof(values) != content:
        raise ValueError("it has not the form in which Quarry writes it")


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a number is missing")
    return value


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("a digest is missing")
    return value


class _Checker:
    """One check of one proof."""

    def __init__(self, out: Path, job: OpenedJob | None, manifest: Path, content: bytes) -> None:
        self._out, self._job, self._manifest, self._content = out, job, manifest, content
        self._result = ProofCheck(hashlib.sha256(content).hexdigest(), "")
        self._recorded = ""

    def check(self, public_key: Path | None) -> ProofCheck:
        result = self._result
        self._check_signature(public_key)
        try:
            proof = _Proof.parse(self._content)
        except _Damaged as error:
            text = escape_text(str(error), limit=_MAX_TEXT)
            result.differences.append(f"{PROOF_NAME} was changed, and cannot be read ({text})")
            return result
        result.written = proof.written
        if self._job is None:
            self._check_manifest(proof)
            self._check_reports(proof.facts)
            result.unchecked.append(
                "the audit log: it is in the job's record (.quarry), which is not here; so are the archives, "
                "the times, and whether the job had finished"
            )
        else:
            self._check_audit(self._job, proof.audit)
            # The SHA-256 of the manifest that the job's record would give now.
            self._recorded = hash_manifest(self._job.reader.instances(self._job.path_function()))
            self._check_manifest(proof)
            self._check_record(self._job, proof)
        return result

    def _check_signature(self, public_key: Path | None) -> None:
        path, result = self._out / SIGNATURE_NAME, self._result
        if public_key is None:
            if path.exists():
                result.unchecked.append(
                    "the signature: give the public key of its owner with --public-key FILE"
                )
            return
        key = load_public_key(public_key)
        try:
            signature = path.read_bytes()
        except OSError:
            result.differences.append(f"{PROOF_NAME} is not signed: there is no {SIGNATURE_NAME}")
            return
        if is_valid(key, signature, self._content):
            result.checked.append(f"the signature: that of {public_key}")
        else:
            result.differences.append(
                f"{SIGNATURE_NAME} is no signature of this {PROOF_NAME} with the key of {public_key}"
            )

    def _check_manifest(self, proof: _Proof) -> None:
        name, result, stated = self._manifest.name, self._result, proof.manifest
        try:
            found = digest_manifest(self._manifest)
        except InputError as error:
            result.differences.append(str(error))
            return
        if found.unpacked_sha256 == stated.unpacked_sha256:
            result.checked.append(f"{name}: its SHA-256")
            result.differences += _compare(
                {"files": stated.files, "bytes": stated.size},
                {"files": found.files, "bytes": found.size},
                name,
                "manifest.",
            )
            if found.is_packed and found.sha256 != stated.sha256:
                result.differences.append(f"{name} was packed again: its lines are the same")
        elif self._recorded == found.unpacked_sha256 and result.outdated:
            result.unchecked.append(f"{name}: it was written after the proof")
        elif found.files != stated.files:
            result.differences.append(
                f"{name} was changed: it lists {format_count(found.files, 'file')}, and the proof has "
                f"{stated.files:,}"
            )
        else:
            result.differences.append(f"{name} was changed: it has another SHA-256 than the proof states")

    def _check_audit(self, job: OpenedJob, chain: AuditChain) -> None:
        compared, result = compare_chain(chain, job.folder.read_audit), self._result
        result.differences += [f"{AUDIT_NAME}: {one}" for one in compared.differences]
        if compared.later:
            result.outdated = (
                f"the proof is outdated: {AUDIT_NAME} has "
                f"{format_count(compared.later, 'record')} of later work"
            )
        if not compared.differences:
            result.checked.append(f"{AUDIT_NAME}: the chain over {format_count(chain.records, 'record')}")

    def _check_record(self, job: OpenedJob, proof: _Proof) -> None:
        """Compare the job's record: later work changes it, so that it then shows no change by a person."""
        result = self._result
        if result.outdated:
            result.unchecked.append("the counts and the list of files: the job was continued since the proof")
            return
        facts = describe_job(job.reader, compute_chain(job.folder.read_audit()))
        stated = {**proof.facts, "times": {**proof.facts["times"]}}
        stated["times"].pop("written", None)
        found = list(_compare(stated, facts, "the job"))
        if self._recorded != proof.manifest.unpacked_sha256:
            found.append("the list of files in the job's record is not that of the proof")
        result.differences += found
        if not found:
            result.checked.append("the counts and the list of files: those of the job's record")

    def _check_reports(self, facts: Mapping[str, Any]) -> None:
        """Compare the counts with report.csv and studies.csv, as far as they were delivered."""
        self._check_table("report.csv", "rows", "quarry_outcome", facts, _count_rows)
        self._check_table("studies.csv", "studies and instances", "outcome", facts, _count_studies)

    def _check_table(
        self,
        name: str,
        subject: str,
        column: str,
        facts: Mapping[str, Any],
        count: Callable[[Iterable[Mapping[str, str]]], dict[str, Any]],
    ) -> None:
        try:
            with (self._out / name).open(encoding="utf-8-sig", newline="") as stream:
                lines = csv.DictReader(stream)
                if column not in (lines.fieldnames or ()):
                    raise KeyError(column)
                counted = count(lines)
        except (OSError, ValueError, KeyError, csv.Error):
            self._result.unchecked.append(
                f"the counts of {subject}: {name} is not here, or not as Quarry writes it"
            )
            return
        differences = list(_compare({part: facts[part] for part in counted}, counted, name))
        self._result.differences += differences
        if not differences:
            self._result.checked.append(f"the counts of {subject}: those of {name}")


def _count_rows(lines: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    # A line that is cut off has None, which is no outcome.
    outcomes = Counter(line["quarry_outcome"] or "" for line in lines)
    return {"rows": {"total": sum(outcomes.values()), "by_outcome": dict(outcomes)}}


def _count_studies(lines: Iterable[Mapping[str, str]]) -> dict[str, Any]:
    studies, instances = Counter(total=0, complete=0, released=0), Counter(expected=0, stored=0, bytes=0)
    for line in lines:
        if line["rows"]:  # others belong to no row any more, and are not counted
            complete, released = line["outcome"] == "complete", bool(line["released_at"])
            studies.update(total=1, complete=complete, released=released)
            instances.update({name: int(line[name] or 0) for name in ("expected", "stored", "bytes")})
    return {"studies": dict(studies), "instances": dict(instances)}


def _compare(
    stated: Mapping[str, Any], found: Mapping[str, Any], place: str, prefix: str = ""
) -> Iterator[str]:
    """Yield a sentence for each value that differs, named by its place in the proof."""
    for name in sorted({*stated, *found}):
        ours, theirs = found.get(name), stated.get(name)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _compare(theirs, ours, place, f"{prefix}{name}.")
        elif json.dumps(ours) != json.dumps(theirs):  # 1 is neither true nor 1.0
            label, states, has = (
                escape_text(text, limit=_MAX_TEXT)
                for text in (f"{prefix}{name}", json.dumps(theirs), json.dumps(ours))
            )
            yield f"{PROOF_NAME}: {label} is {states}, and {place} has {has}"
