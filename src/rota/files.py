"""Files that are either whole or not there.

Everything goes to a temporary file next to the target, which is renamed over it at the end. `check_writable` finds out before a
long simulation, not after it, that a result could not be written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rota.errors import InputError


def check_writable(path: str | Path) -> Path:
    """`path` as a `Path`, if a file can be written there; touches nothing that exists.

    Raises
    ------
    InputError
        If the folder does not exist or is not writable, or `path` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it or write elsewhere")
    if path.exists() and not path.is_file():
        return path  # a pipe or device: nothing to create beside it
    try:
        handle, probe = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot write here ({error.strerror}); choose a folder you may write to") from None
    os.close(handle)
    os.unlink(probe)
    return path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes `path`, on any error (Ctrl-C too) it vanishes.

    Raises
    ------
    InputError
        As `check_writable`, and when the disk refuses the write.
    """
    path = check_writable(path)
    if path.exists() and not path.is_file():
        yield path
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, path)
    except OSError as error:
        raise InputError(f"{path}: could not be written ({error.strerror or error}); free space or write elsewhere") from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def umask() -> int:
    """The permissions that new files of this process do not get."""
    # the only portable way to read the mask is to set it
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
