"""Values at rest: AES-256-GCM with a key file kept apart from the data folder.

It protects copies of the database (backups, a stolen disk image), not against root on the machine.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mini_core.errors import ConfigError
from mini_core.types import Secret, decode

T = TypeVar("T")

KEY_BYTES = 32
NONCE_BYTES = 12


def load_key(path: Path) -> bytes:
    """The key in the file, made (0600) where there is none. Raises ConfigError for a file that holds none."""
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        return _make_key(path)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} holds no key.", hint="Restore the file from a backup: it decrypts the store.")
    return key


def _make_key(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def _reveal(item: Any) -> Any:
    if isinstance(item, Secret):
        return item.reveal()
    if isinstance(item, Mapping):
        return dict(item)
    raise NotImplementedError(f"cannot encrypt {type(item).__name__}")


class Cipher:
    """Seals values, secrets and all, and opens them again. `label` binds the bytes to their place in the store."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, item: object, label: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        data = msgspec.json.encode(item, enc_hook=_reveal)
        return nonce + self._cipher.encrypt(nonce, data, label.encode())

    def open(self, kind: type[T], data: bytes, label: str) -> T:
        """Raises ConfigError where the key is another one, or the bytes are damaged or from elsewhere."""
        try:
            plain = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], label.encode())
        except InvalidTag:
            raise ConfigError(
                "A stored secret cannot be decrypted: the key file is not the one it was written with.",
                hint="Put the secret.key of this platform back into its config folder.",
            ) from None
        return decode(kind, plain)
