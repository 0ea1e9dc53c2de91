"""Report of a cluster's worker on itself, and the names that workers and clients share."""

from __future__ import annotations

from dataclasses import dataclass

CLOCK = "clock"  # the resource of which a target has one, and each measurement takes it
FOLDER_VARIABLE = "DEVICE_PLACEMENT_MODELS"  # names the folder of what clients have sent a worker


@dataclass(frozen=True)
class Report:
    """Hardware and versions of a worker."""

    machine: dict[str, str]  # of `describe_machine`
    host: dict[str, str]  # of `describe_host`
    devices: dict[str, str]  # full names of OpenVINO's devices, by name

    @property
    def versions(self) -> dict[str, str]:
        """Versions of packages."""
        return self.machine

    @property
    def kind(self) -> str:
        """What alike targets have in common."""
        devices = ", ".join(f"{name} ({full})" for name, full in self.devices.items())
        return f"{self.machine['cores']} cores of {self.machine['processor']}, {devices}"
