"""Files that are whole or not there: what every writer of this project goes through."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".draft"  # the end of a draft's name; one that was left behind was never finished


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a draft beside ``path``, and put the draft in its place once it is on the disk.

    A reader sees the old content or the new, never a part; a writer that fails or is killed leaves the old.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}{DRAFT}")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
