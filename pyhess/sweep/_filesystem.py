"""On which kind of file system a file lies."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: Kinds on which several machines may see one file.
_NETWORK = re.compile(
    r"^(nfs\d*|cifs|smb\w*|lustre|gpfs|beegfs\w*|fhgfs|ceph\w*|glusterfs|afs|9p|orangefs|pvfs2?|panfs|fuse\..*|fuse)$"
)
_MOUNTS = Path("/proc/self/mountinfo")


def kind_of(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The file system's name, as the kernel gives it; None where that is not known."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    best, kind = "", None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        mounted = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        inside = place == mounted or place.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= len(best):  # later mounts hide earlier ones
            best, kind = mounted, after.split()[0]
    return kind


def is_network(path: Path) -> bool:
    """True on network file systems and on those in user space, of which nothing can be assumed."""
    kind = kind_of(path)
    return kind is not None and _NETWORK.match(kind) is not None
