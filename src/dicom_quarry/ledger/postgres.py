"""A ledger in a schema of a PostgreSQL database (extra ``[cluster]``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from dicom_quarry.errors import ConfigError, LedgerError, LedgerFull
from dicom_quarry.ledger.backend import DriverConnection, driver_connection
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.ledger.postgres_errors import describe_failure
from dicom_quarry.ledger.schema import metadata
from dicom_quarry.system.secret_file import read_secret_file

try:
    import psycopg
    from psycopg.abc import Buffer
    from psycopg.adapt import Loader
    from psycopg.conninfo import make_conninfo
    from psycopg.types.string import StrDumper
except ImportError as error:
    raise ConfigError(
        "a ledger on PostgreSQL needs psycopg: install it with  pip install 'dicom-quarry[cluster]'"
    ) from error

from dicom_quarry.ledger.compiled_statement import NumberedText
from dicom_quarry.ledger.pipelined import PendingResult, PipelinedConnection, replace_nul

# The schema names SQLite's partial indexes alone: to name PostgreSQL's there would load its dialect always.
for _table in metadata.tables.values():
    for _index in _table.indexes:
        _index.dialect_options["postgresql"]["where"] = _index.dialect_options["sqlite"]["where"]

#: A server that does not answer is given up after some 30 seconds; libpq's own wait is two hours.
_KEEPALIVE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}

#: A process that is suspended within a transaction has the ledger's write lock; the server takes it back
#: after this many milliseconds, and the transaction is undone.
_MAX_IDLE_IN_TRANSACTION = 60_000

#: Milliseconds for which a writer waits for the write lock: longer than another writer can keep it.
_LOCK_TIMEOUT = 120_000

#: The server's word for a transaction that was idle for too long.
_TIMEOUTS = (psycopg.errors.IdleInTransactionSessionTimeout,)

#: The server's words for tables that were removed, and for those that this user has no rights to.
_UNUSABLE = (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege)

#: Rows that a stream fetches at once.
_STREAMED_ROWS = 1000


_BEGIN = NumberedText(b"BEGIN", (), (), {})


class PostgresBackend:
    """The schema of a ledger."""

    errors: tuple[type[Exception], ...] = (psycopg.DatabaseError,)

    def __init__(self, location: PostgresLocation) -> None:
        self._location = location
        digest = sha256(f"quarry {location.schema}".encode()).digest()
        key = int.from_bytes(digest[:8], signed=True)
        lock = f"SELECT pg_current_xact_id()::text FROM pg_advisory_xact_lock({key})"
        self._lock = NumberedText(lock.encode(), (), (), {})

    def prepare(self) -> None:
        """Make the schema if it is new; raises LedgerError."""
        try:
            with self._connect() as connection:
                known = connection.execute(
                    "SELECT 1 FROM pg_namespace WHERE nspname = %s", (self._location.schema,)
                ).fetchone()
                if known is None:  # the right to make a schema is needed for a new job alone
                    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._location.schema}")
        except psycopg.errors.UniqueViolation:
            return  # another process has made it at the same moment
        except psycopg.Error as error:
            raise self.describe(error, "cannot be opened") from error

    def require_job(self) -> None:
        """Raise LedgerError if the schema has no ledger, or the server does not answer."""
        try:
            with self._connect() as connection:
                found = connection.execute("SELECT to_regclass('schema_version')").fetchone()
        except psycopg.Error as error:
            raise self.describe(error) from error
        if found == (None,):
            raise LedgerError(f"there is no job in {self._location} of the database")

    def prepare_upgrade(self) -> None:
        """Do nothing: the server knows who may change the schema."""

    def connect(self, *, read_only: bool = False) -> DriverConnection:  # noqa: ARG002 - snapshots are
        """Open a connection that begins no transaction by itself."""
        return self._connect()

    def open_engine(self, *, read_only: bool = False) -> Engine:
        """Make an engine whose transactions hold the write lock or, if ``read_only``, see one moment."""
        engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_pre_ping=True,
            use_native_hstore=False,
        )

        @event.listens_for(engine, "before_execute")
        def _flush(connection: Connection, *_: object) -> None:
            # Before SQLAlchemy asks for a cursor, as the error of another statement is not this one's.
            below: Any = driver_connection(connection)
            below.flush()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            below: Any = driver_connection(connection)
            if not below.is_idle:
                return
            if read_only:
                self.begin_snapshot(below)
            else:
                self.begin(below)

        return engine

    def begin(self, connection: Any) -> PendingResult:
        """Begin a transaction with the write lock of this ledger, as soon as a statement is sent.

        What a transaction has read still holds when it commits, as with SQLite. Writers of other ledgers, and
        readers, do not wait. The lock ends with the transaction, also when its process or host is gone.
        """
        connection.send(_BEGIN, {})
        pending: PendingResult = connection.send(self._lock, {})
        return pending

    def identify(self, begun: Any) -> object:
        """Return the number of the transaction; the write lock is then held."""
        (number,) = begun.fetchone()
        return number

    def begin_snapshot(self, connection: DriverConnection) -> None:
        """Begin a transaction that sees one moment."""
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def end_snapshot(self, connection: Any) -> None:
        """End it, unless the connection is lost."""
        if not (self.is_lost(connection) or connection.is_idle):
            connection.execute("ROLLBACK")

    @contextmanager
    def stream(self, connection: Any, sql: str, values: Mapping[str, object]) -> Iterator[Any]:
        """Run a query with a cursor of the server: psycopg's own holds all rows at once."""
        begun = connection.is_idle
        if begun:
            self.begin_snapshot(connection)
        try:
            with connection.cursor(name="stream") as cursor:
                cursor.itersize = _STREAMED_ROWS
                cursor.execute(sql, values)
                yield cursor
        finally:
            if begun:
                self.end_snapshot(connection)

    def is_alive(self, connection: DriverConnection) -> bool:
        """Return True if the server answers on this connection."""
        try:
            connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def is_lost(self, connection: Any) -> bool:
        """Return True if the connection is closed or broken."""
        return bool(connection.closed or connection.broken)

    def is_storage_error(self, error: BaseException) -> bool:
        """Return True for a lost server, a full disk, and tables that were removed or are another's."""
        return isinstance(error, (psycopg.OperationalError, *_UNUSABLE, *_TIMEOUTS))

    def ends_transaction(self, error: BaseException) -> bool:
        """Return True for a lost server, a full disk and a deadlock."""
        return isinstance(getattr(error, "orig", error), (psycopg.OperationalError, *_TIMEOUTS))

    def is_temporary(self, error: BaseException) -> bool:
        """Return True for a lost server, a server that starts or ends, and a deadlock."""
        cause = getattr(error, "orig", error)
        return self.ends_transaction(cause) and not isinstance(cause, psycopg.errors.DiskFull)

    def was_committed(self, connection: DriverConnection, token: object) -> bool:
        """Return True if a transaction is committed; a commit in doubt is neither repeated nor lost."""
        status = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (token,)).fetchone()[0]
        return bool(status == "committed")

    def lacks_tables(self, error: Exception) -> bool:
        """Return True for a table, or a schema, that does not exist."""
        return isinstance(getattr(error, "orig", None) or error, psycopg.errors.UndefinedTable)

    def describe(self, error: Exception, problem: str = "cannot be read") -> LedgerError:
        """Return the error for the user from one of PostgreSQL's, which SQLAlchemy may have wrapped."""
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, psycopg.errors.DiskFull):
            return LedgerFull(
                f"disk full: the database cannot write the job's record ({self._location}). Have space made "
                "there, then run the same command again: what is stored stays stored"
            )
        reason = describe_failure(cause)
        return LedgerError(f"the ledger ({self._location} of the database) {problem}: {reason}")

    def _connect(self) -> PipelinedConnection:
        settings = {
            "search_path": self._location.schema,
            "idle_in_transaction_session_timeout": _MAX_IDLE_IN_TRANSACTION,
            "lock_timeout": _LOCK_TIMEOUT,
            "timezone": "UTC",
            "client_encoding": "UTF8",
        }
        conninfo = connection_string(self._location, settings)
        # Each BEGIN is explicit. psycopg prepares nothing: at times it forgets all that is prepared.
        connection = PipelinedConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        connection.adapters.register_loader("numeric", _NumberLoader)
        connection.adapters.register_dumper(str, _TextDumper)
        return connection


def connection_string(location: PostgresLocation, settings: Mapping[str, object]) -> str:
    """Return the string for a connection with the server's ``settings``, with the password from its file."""
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    text = make_conninfo(location.url, options=options, application_name="quarry", **_KEEPALIVE)
    if (file := location.password_file) is not None:
        text = make_conninfo(text, password=read_secret_file(file, "[cluster] password-file"))
    return text


class _NumberLoader(Loader):
    """Reads sums, which PostgreSQL gives as decimals, as SQLite gives them."""

    def load(self, data: Buffer) -> int | float:
        """Return an integer if the number is one."""
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


class _TextDumper(StrDumper):
    """Writes text without the character NUL, which PostgreSQL's text cannot have."""

    def dump(self, obj: str) -> Buffer | None:
        """Return the encoded text; U+FFFD stands for NUL."""
        return super().dump(replace_nul(obj))
