"""Settings for credentials: certificates, users, tokens. They name the places of secrets, not the secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class FrozenModel(BaseModel):
    """A table of settings: unknown names are refused, values cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


#: An absolute path: a later run may start in another folder.
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.absolute())]


class TlsFiles(FrozenModel):
    """PEM files for DICOM over TLS, ``[tls]`` in quarry.toml: our certificate and key, and the CA of others.

    ``hostname`` False is for archives whose certificates do not contain their host name.
    """

    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    ca: AbsolutePath | None = None
    hostname: bool = True


class HttpSettings(FrozenModel):
    """Credentials for a DICOMweb server, ``[archive.NAME.http]`` in quarry.toml, without the secrets.

    ``…_env`` name environment variables, ``…_file`` files, ``token_command`` a command that prints a token.
    ``ca`` replaces the system's certificate authorities; ``certificate`` and ``key`` are ours. ``proxy`` is a
    URL, or "environment" for the proxy of the environment variables.
    """

    user: str = ""
    password_env: str = ""
    password_file: AbsolutePath | None = None
    token_env: str = ""
    token_file: AbsolutePath | None = None
    token_command: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    headers_env: dict[str, str] = Field(default_factory=dict)
    certificate: AbsolutePath | None = None
    key: AbsolutePath | None = None
    ca: AbsolutePath | None = None
    proxy: str = ""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        tokens = [self.token_env, self.token_file, self.token_command]
        passwords = [self.password_env, self.password_file]
        if sum(map(bool, [self.user, *tokens])) > 1:
            raise ValueError("use only one of user, token-env, token-file and token-command")
        if sum(map(bool, passwords)) != bool(self.user):
            raise ValueError("write user together with either password-env or password-file")
        if "@" in self.proxy:
            raise ValueError(
                'put the URL of a proxy with a password into the environment, and write proxy = "environment"'
            )
        if self.proxy not in ("", "environment") and not _is_proxy_url(self.proxy):
            raise ValueError('write proxy = "http://HOST:PORT" or proxy = "environment"')
        if self.key and not self.certificate:
            raise ValueError("write key together with certificate")
        return self


def _is_proxy_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme == "http" and parts.hostname and parts.port) and parts.path in ("", "/")
    except ValueError:
        return False
