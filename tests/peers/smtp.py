"""Mail server for tests: keeps the mails that it gets, and can fail."""

from __future__ import annotations

import base64
import socketserver
import ssl
import threading
from dataclasses import dataclass
from email import message_from_string, policy
from email.message import EmailMessage
from typing import Any, Self

from tests.peers.certificates import Identity


@dataclass(frozen=True, slots=True)
class Delivered:
    """A mail as it came: from whom and for whom on the envelope, under which login, encrypted or not."""

    sender: str
    recipient: str
    login: str
    encrypted: bool
    text: str

    @property
    def message(self) -> EmailMessage:
        return message_from_string(self.text, EmailMessage, policy=policy.default)


class MailServer:
    """Server that refuses the first ``refuse`` connections; a ``silent`` one never answers.

    With an ``identity`` it offers STARTTLS, and AUTH after that.
    """

    def __init__(self, *, refuse: int = 0, silent: bool = False, identity: Identity | None = None) -> None:
        self.mails: list[Delivered] = []
        self.calls = 0
        self.refuse = refuse
        self.silent = silent
        self.over = threading.Event()
        self.context: ssl.SSLContext | None = None
        if identity:
            self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.context.load_cert_chain(identity.certificate, identity.key)
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Session)
        self._server.daemon_threads = True
        self._server.mailbox = self  # type: ignore[attr-defined]
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        box: MailServer = self.server.mailbox  # type: ignore[attr-defined]
        box.calls += 1
        if box.silent:
            box.over.wait(60)
            return
        if box.calls <= box.refuse:
            self.reply("421 busy, come back later")
            return
        self.reply("220 post.example ESMTP")
        self.encrypted, self.login = False, ""
        self.sender = self.recipient = ""
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            if not self.answer(box, line):
                return

    def reply(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def answer(self, box: MailServer, line: str) -> bool:
        word = line.upper().partition(" ")[0]
        match word:
            case "EHLO" | "HELO":
                offers = ["AUTH PLAIN"] if self.encrypted else ["STARTTLS"] if box.context else []
                for offer in ["post.example", *offers]:
                    self.reply(f"250-{offer}")
                self.reply("250 HELP")
            case "STARTTLS" if box.context:
                self.reply("220 go ahead")
                self.encrypt(box.context)
            case "AUTH":
                self.login = base64.b64decode(line.split()[2]).decode().replace("\0", "/")
                self.reply("235 welcome")
            case "MAIL":
                self.sender = line.partition(":")[2].split()[0]
                self.reply("250 ok")
            case "RCPT":
                self.recipient = line.partition(":")[2].split()[0]
                self.reply("250 ok")
            case "DATA":
                self.reply("354 go on")
                box.mails.append(self.delivered())
                self.reply("250 taken")
            case "QUIT":
                self.reply("221 bye")
                return False
            case _:
                self.reply("250 ok")
        return True

    def encrypt(self, context: ssl.SSLContext) -> None:
        connection: Any = context.wrap_socket(self.connection, server_side=True)
        self.connection = self.request = connection
        self.rfile, self.wfile = connection.makefile("rb"), connection.makefile("wb", 0)
        self.encrypted = True

    def delivered(self) -> Delivered:
        lines = []
        while (line := self.rfile.readline().decode().rstrip("\r\n")) != ".":
            lines.append(line.removeprefix(".") if line.startswith("..") else line)
        return Delivered(
            self.sender.strip("<>"), self.recipient.strip("<>"), self.login, self.encrypted, "\n".join(lines)
        )
