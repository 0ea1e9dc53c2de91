"""Zip files of policies in which somebody has planted code."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from pathlib import Path

MEMBERS = ("data", "policy.pth", "policy.optimizer.pth")


class _Planted:
    """Object whose unpickling creates a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._mark,)


def plant(policy: Path, member: str, mark: Path) -> None:
    """Replace a member of a policy's file by one that creates the file `mark` when unpickled."""
    code = pickle.dumps(_Planted(mark))
    with zipfile.ZipFile(policy) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if member == "data":  # of stable-baselines3: JSON with pickles in base64
        data = json.loads(content["data"])
        data["policy_class"] = {":type:": "a", ":serialized:": base64.b64encode(code).decode()}
        content["data"] = json.dumps(data).encode()
    else:
        content[member] = code
    with zipfile.ZipFile(policy, "w") as archive:
        for name, one in content.items():
            archive.writestr(name, one)


def works(policy: Path, mark: Path) -> bool:
    """Return whether stable-baselines3's own way of loading runs the code planted in `data`."""
    from stable_baselines3.common.save_util import load_from_zip_file

    load_from_zip_file(policy)
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found
