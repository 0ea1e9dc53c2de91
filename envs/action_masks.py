"""Action masks under constraints: what can still lead to a valid placement."""

from __future__ import annotations

import numpy as np

from device_placement.envs.arrays import Assignment, Bool
from device_placement.envs.costs import Costs
from device_placement.envs.repair.repairer import Repairer
from device_placement.envs.simulation.schedule import broken_rules


def mask_whole(masks: Bool, repairer: Repairer) -> Bool:
    """Return the masks of a whole placement without devices that no valid placement has.

    Args:
        masks: (max_groups * num_devices,) flat, of the devices that run each group.
        repairer: of the model.
    """
    allowed = repairer.allowed_at_first
    result = masks.reshape(-1, allowed.shape[1]).copy()
    result[: len(allowed)] = _unless_empty(result[: len(allowed)], allowed)
    return result.reshape(-1)


def mask_next(mask: Bool, repairer: Repairer, assignment: Assignment, group: int) -> Bool:
    """Return the mask of the next group, given those placed before.

    Args:
        mask: (num_devices,) of the devices that run it.
        repairer: of the model.
        assignment: (num_groups,) device numbers; those from `group` on do not count.
        group: the next one; after the last, the mask stays as it is.
    """
    if group >= len(assignment):
        return mask
    placed = np.where(np.arange(len(assignment)) < group, assignment, -1)
    return _unless_empty(mask, repairer.allowed(placed, group))


def mask_moves(masks: Bool, costs: Costs, assignment: Assignment) -> Bool:
    """Return the masks of single moves without those that break a rule.

    Args:
        masks: (max_groups * num_devices,) flat, of the devices that run each group.
        costs: of the model.
        assignment: (num_groups,) device numbers of a valid placement.
    """
    groups, devices = len(assignment), costs.num_devices
    moved = np.tile(assignment.astype(np.uint8)[:, None], (1, groups * devices))
    group, device = np.divmod(np.arange(groups * devices), devices)
    moved[group, np.arange(groups * devices)] = device
    result = masks.copy()
    result[: groups * devices] &= broken_rules(costs, moved) == 0
    return result


def _unless_empty(masks: Bool, allowed: Bool) -> Bool:
    """Return both together; where they leave no device, there is a dead end, and `masks` stay."""
    both = masks & allowed
    return np.where(both.any(axis=-1, keepdims=True), both, masks)
