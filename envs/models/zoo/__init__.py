"""Model zoo, built with OpenVINO's opset: full size, batch 1, no download.

Weights are seeded, stored as fp16 and scaled (He et al. 2015, arXiv:1502.01852) so that activations
stay of order 1; the models compute something finite and repeatable, but nothing useful. Every node
has a fixed friendly name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import openvino as ov

from device_placement.envs.errors import ModelError, choose
from device_placement.envs.models.zoo.bert import bert_base
from device_placement.envs.models.zoo.diamond import diamond
from device_placement.envs.models.zoo.inception import inception_v3
from device_placement.envs.models.zoo.resnet import resnet50
from device_placement.envs.models.zoo.two_towers import two_towers

__all__ = ["ZOO", "build"]

ZOO: Final[dict[str, Callable[[], ov.Model]]] = {
    "resnet50": resnet50,
    "inception_v3": inception_v3,
    "bert_base": bert_base,
    "two_towers": two_towers,
    "diamond": diamond,
}
"""Builder of each model, by name."""


def build(name: str) -> ov.Model:
    """Build a bundled model, and return it.

    Raises:
        ModelError: when no bundled model has this name.

    >>> build("diamond").get_friendly_name()
    'diamond'
    """
    return choose("model", name, ZOO, error=ModelError)()
