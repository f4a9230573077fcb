"""Ed25519 signatures (RFC 8032) with a key of the site's, which OpenSSL can make and check.

Keys are PEM files. A signature is the 64 bytes that ``openssl pkeyutl -sign -rawin`` writes. They need the
extra ``dicom-quarry[sign]``, which is loaded at the first use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.errors import ConfigError, InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Load the key to sign with; raise ConfigError if others can read it, or if it is not one."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"--sign: others can read {path}: run  chmod 600 {path}")
            content = file.read()
    except OSError as error:
        raise ConfigError(f"--sign: {path} cannot be read: {error.strerror}") from error
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise ConfigError(f"--sign: {path} is protected by a password: use a key without one") from None
    except Exception:  # noqa: BLE001 - the library has no common class for a file that is no key
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"--sign: {path} is not an Ed25519 key: make one with  "
            "openssl genpkey -algorithm ed25519 -out KEY"
        )
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Load the key to check with; raise InputError if it is not one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"--public-key: {path} cannot be read: {error.strerror}") from error
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except Exception:  # noqa: BLE001 - the library has no common class for a file that is no key
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(
            f"--public-key: {path} is not a public Ed25519 key: get it with  "
            "openssl pkey -in KEY -pubout -out PUBLIC"
        )
    return key


def is_valid(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Return whether the owner of the key signed this content."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401 - whether it is there
    except ImportError:
        raise ConfigError("signatures need another package: pip install 'dicom-quarry[sign]'") from None
