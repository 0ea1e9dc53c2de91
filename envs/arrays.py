"""Types of arrays, by element type; shapes are in docstrings and comments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]

Assignment = Int64  # (num_groups,) the device number of each group; UNPLACED for none
Assignments = Int64  # (batch, num_groups) the same for many placements
PlacementColumns = UInt8  # (num_groups, batch) device numbers; the batch is innermost in memory
PlacementRows = UInt8  # (batch, num_groups) device numbers
