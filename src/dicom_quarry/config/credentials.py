"""How we show ourselves to an archive: certificates, users, tokens. Values of settings, no secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FrozenModel(BaseModel):
    """A table of settings: nothing unknown, nothing changed afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class TlsFiles(FrozenModel):
    """PEM files, ``[tls]`` in quarry.toml: our certificate with its key, and the authority over others'.

    ``hostname`` False is for archives whose certificates name no host.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    hostname: bool = True


class HttpSettings(FrozenModel):
    """How we show ourselves to a DICOMweb server, ``[archive.NAME.http]``; secrets stand elsewhere.

    ``…_env`` name environment variables, ``…_file`` files, ``token_command`` a command that prints a token.
    ``ca``: the authority over its certificate, instead of the system's; ``certificate`` and ``key`` are ours.
    ``proxy`` is a URL, or "environment" for what the environment says.
    """

    user: str = ""
    password_env: str = ""
    password_file: Path | None = None
    token_env: str = ""
    token_file: Path | None = None
    token_command: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    headers_env: dict[str, str] = Field(default_factory=dict)
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    proxy: str = ""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        tokens = [self.token_env, self.token_file, self.token_command]
        passwords = [self.password_env, self.password_file]
        if sum(map(bool, [self.user, *tokens])) > 1:
            raise ValueError("one of user, token-env, token-file and token-command is enough")
        if sum(map(bool, passwords)) != bool(self.user):
            raise ValueError("a user needs one of password-env and password-file, and they need a user")
        if "@" in self.proxy:
            raise ValueError('a proxy that wants a password stands in the environment: proxy = "environment"')
        if self.proxy not in ("", "environment") and not _is_proxy_url(self.proxy):
            raise ValueError('proxy is "http://HOST:PORT", or "environment"')
        if self.key and not self.certificate:
            raise ValueError("a key needs its certificate")
        return self


def _is_proxy_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme == "http" and parts.hostname and parts.port) and parts.path in ("", "/")
    except ValueError:
        return False
