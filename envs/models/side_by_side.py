"""Several models side by side: one model that holds them, to be placed like any other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import openvino as ov

from device_placement.envs.models.normalisation import input_name

JOINT = "+"  # between the models, in a name and on the command line


def combine_models(models: Mapping[str, ov.Model]) -> ov.Model:
    """Return a model that holds others side by side.

    Names of inputs, outputs and ops begin with the name of their model and a slash, as in
    ``resnet50/x``. One inference runs all models once.

    Args:
        models: by name; they are not changed. One model may occur under several names.
    """
    parameters, results, sinks = [], [], []
    for name, model in models.items():
        clone = model.clone()
        for op in clone.get_ops():
            op.set_friendly_name(f"{name}/{op.get_friendly_name()}")
        for port in (*clone.inputs, *clone.outputs):
            names = port.get_names() or {input_name(port).removeprefix(f"{name}/")}
            port.get_tensor().set_names({f"{name}/{one}" for one in names})
        parameters += clone.get_parameters()
        results += clone.get_results()
        sinks += clone.get_sinks()
    return ov.Model(results, sinks, parameters, JOINT.join(models))


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the names, those that repeat an earlier one with a number.

    >>> distinct_names(["resnet50", "net", "resnet50"])
    ['resnet50', 'net', 'resnet50-2']
    """
    found: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found.append(next(one for one in itertools.chain([name], numbered) if one not in found))
    return found
