"""A connection to PostgreSQL that sends statements together, and waits once for all of their results.

A statement is queued until the result of one is looked at, the transaction is committed, or psycopg itself is
used. psycopg's own pipeline makes a cursor for each statement, which takes the interpreter ten times as long
as this: libpq does the work, through ``psycopg.pq``.
"""

from __future__ import annotations

import select
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from dicom_quarry.ledger.compiled_statement import NumberedText

#: At most this many statements wait, so that a study with many instances is not held in memory twice.
_MAX_QUEUED = 500

_COMMIT = NumberedText(b"COMMIT", (), (), {})


_Queued = tuple[NumberedText, list[bytes | None], "PendingResult"]


class PendingResult:
    """The result of a statement that may not have been sent; to look at it sends what is queued."""

    __slots__ = ("_connection", "_error", "_result", "_rows")

    def __init__(self, connection: PipelinedConnection) -> None:
        self._connection = connection
        self._result: PGresult | None = None
        self._rows: Iterator[tuple[Any, ...]] | None = None
        self._error: Exception | None = None

    @property
    def rowcount(self) -> int:
        """The number of rows that the statement has changed, or found."""
        return self._arrived().command_tuples or 0

    def require_one(self, error: Exception) -> None:
        """Let the connection raise an error before it commits, unless one row is changed, or found."""
        self._error = error
        self._connection.has_requirement = True

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the next row, None after the last."""
        return next(iter(self), None)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        if self._rows is None:
            self._rows = iter(self._connection.load(self._arrived()))
        return self._rows

    def settle(self, result: PGresult) -> None:
        """Take what the server has answered; raises what ``require_one`` was given."""
        self._result = result
        if self._error is not None and result.command_tuples != 1:
            raise self._error

    def _arrived(self) -> PGresult:
        if self._result is None:
            self._connection.flush()
        if self._result is None:
            raise psycopg.InterfaceError("the statement was not run: its transaction has ended")
        return self._result


class PipelinedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of psycopg with a queue; for one thread at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._queue: list[_Queued] = []
        #: True if a queued statement may raise an error although the server has run it.
        self.has_requirement = False
        self._prepared_names: dict[bytes, bytes] = {}
        self._name_count = 0
        self._transformer = Transformer(self)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self.pgconn.socket, select.POLLIN)
        self._writable.register(self.pgconn.socket, select.POLLIN | select.POLLOUT)

    def send(self, text: NumberedText, values: Mapping[str, object]) -> PendingResult:
        """Queue a statement; return its result to come."""
        fixed = text.fixed
        given = [values[name] if name in values else fixed[name] for name in text.names]
        pending = PendingResult(self)
        self._queue.append((text, [_ENCODERS[type(value)](value) for value in given], pending))
        if len(self._queue) >= _MAX_QUEUED:
            self.flush()
        return pending

    def flush(self) -> None:
        """Send what is queued, and wait for the results; what is behind an error is not run."""
        if not self._queue:
            return
        queue, self._queue, self.has_requirement = self._queue, [], False
        try:
            if len(queue) == 1 and queue[0][0].sql in self._prepared_names:
                results = self._exchange_one(*queue[0])
            else:
                results = self._exchange(queue)
        except BaseException:
            self.close()  # nobody knows which answers are still to come
            raise
        for (_, _, pending), result in zip(queue, results, strict=False):
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
            pending.settle(result)

    def cursor(self, *args: Any, **options: Any) -> Any:
        """Make a cursor of psycopg, behind what is queued."""
        self.flush()
        return super().cursor(*args, **options)

    def commit(self) -> None:
        """Commit the transaction, together with what is queued; raises the error of a statement."""
        if self.has_requirement:
            self.flush()
        if self._queue or not self.is_idle:
            self.send(_COMMIT, {})
            self.flush()

    def rollback(self) -> None:
        """Undo the transaction, and forget what is queued."""
        self._queue.clear()
        self.has_requirement = False
        if not self.is_idle:
            super().rollback()

    @property
    def is_idle(self) -> bool:
        """True if no transaction has begun on the server."""
        return self.pgconn.transaction_status == TransactionStatus.IDLE

    def load(self, result: PGresult) -> list[tuple[Any, ...]]:
        """Return the rows of a result, with the values that psycopg makes of them."""
        if result.nfields == 0:
            return []
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def _exchange(self, queue: Sequence[_Queued]) -> list[PGresult]:
        """Return the results of the queued statements, up to the first that failed."""
        pgconn, prepared = self.pgconn, self._prepared_names
        messages: list[bytes | None] = []  # the text that one prepares, None for one that runs
        pgconn.enter_pipeline_mode()
        for text, values, _ in queue:
            name = prepared.get(text.sql)
            if name is None:
                self._name_count += 1
                name = prepared[text.sql] = b"quarry_%d" % self._name_count
                pgconn.send_prepare(name, text.sql, text.types)
                messages.append(text.sql)
            messages.append(None)
            pgconn.send_query_prepared(name, values)
        pgconn.pipeline_sync()
        self._send_all()
        answers = self._receive(ExecStatus.PIPELINE_SYNC)
        pgconn.exit_pipeline_mode()
        if len(answers) == len(queue):
            return answers
        results = []
        for sql, answer in zip(messages, answers, strict=True):
            if sql is None:
                results.append(answer)
            elif answer.status != ExecStatus.COMMAND_OK:
                del prepared[sql]
                if answer.status == ExecStatus.FATAL_ERROR:
                    results.append(answer)
        return results

    def _exchange_one(self, text: NumberedText, values: list[bytes | None], _: object) -> list[PGresult]:
        """Return the result of one prepared statement, which needs no pipeline."""
        self.pgconn.send_query_prepared(self._prepared_names[text.sql], values)
        self._send_all()
        return self._receive(None)

    def _send_all(self) -> None:
        while self.pgconn.flush():
            if any(event & select.POLLIN for _, event in self._writable.poll()):
                self.pgconn.consume_input()

    def _receive(self, end: ExecStatus | None) -> list[PGresult]:
        """Return the answers up to the end of a pipeline, or without one up to that of a statement."""
        pgconn = self.pgconn
        answers: list[PGresult] = []
        while True:
            while pgconn.is_busy():
                self._readable.poll()
                pgconn.consume_input()
            answer = pgconn.get_result()
            if answer is None:  # the end of a statement
                if pgconn.status != ConnStatus.OK:
                    failed = [one for one in answers if one.status == ExecStatus.FATAL_ERROR]
                    raise error_from_result(failed[0]) if failed else psycopg.OperationalError("lost")
                if end is None:
                    return answers
            elif answer.status == end:
                return answers
            else:
                answers.append(answer)


def replace_nul(text: str) -> str:
    """Return a text with U+FFFD for NUL, which PostgreSQL's text cannot have."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


#: How PostgreSQL reads the values of a statement, by their types.
_ENCODERS: dict[type, Callable[[Any], bytes | None]] = defaultdict(
    lambda: lambda value: replace_nul(value).encode(),  # words of an enumeration
    {
        str: lambda value: replace_nul(value).encode(),
        int: lambda value: b"%d" % value,
        float: lambda value: repr(value).encode(),
        bytes: lambda value: b"\\x" + value.hex().encode(),
        type(None): lambda _: None,
    },
)
