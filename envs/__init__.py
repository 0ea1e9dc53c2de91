"""Device placement as Gymnasium environments, timed by OpenVINO.

Importing this package registers the environments, if Gymnasium is installed, and little more:
the names below are loaded when they are first used. Models and placements need only OpenVINO
and NumPy.

>>> import gymnasium as gym
>>> import device_placement.envs
>>> gym.spec("DevicePlacement-v0").nondeterministic
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_placement.envs.affinities import restore_affinities
    from device_placement.envs.constraints import CONSTRAINTS
    from device_placement.envs.devices import (
        Device,
        SharedMemory,
        discover_devices,
        make_core,
        parse_devices,
    )
    from device_placement.envs.env import DevicePlacementEnv
    from device_placement.envs.errors import (
        DeviceError,
        DevicePlacementError,
        InputError,
        InventedInputsWarning,
        ModelError,
        PlacementError,
        StoreError,
    )
    from device_placement.envs.evaluation import (
        BaseEvaluator,
        Evaluation,
        Evaluator,
        EvaluatorWrapper,
    )
    from device_placement.envs.executors.dataflow import DataflowError, DataflowModel
    from device_placement.envs.executors.hetero import HeteroModel
    from device_placement.envs.factory import make_evaluator
    from device_placement.envs.graph.coarsening import CoarseGraph, coarsen
    from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
    from device_placement.envs.graph.features import group_features
    from device_placement.envs.graph_observation import GraphObservation, to_networkx
    from device_placement.envs.measured_vector_env import MeasuredVectorEnv
    from device_placement.envs.measuring.cluster import ClusterError
    from device_placement.envs.measuring.config import MeasureConfig
    from device_placement.envs.measuring.inputs import save_inputs
    from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
    from device_placement.envs.measuring.store import EvaluationStore
    from device_placement.envs.measuring.validation import Validation
    from device_placement.envs.models.loading import load_model, model_hash
    from device_placement.envs.models.side_by_side import combine_models
    from device_placement.envs.placement import Claim, Placement
    from device_placement.envs.problem_vector_env import ProblemVectorEnv
    from device_placement.envs.problems.config import GeneratorConfig
    from device_placement.envs.problems.generator import generate_problem
    from device_placement.envs.problems.seeds import is_validation_seed, training_seeds
    from device_placement.envs.profiling.measured_profile import measure_profile
    from device_placement.envs.repair.repairer import Repaired, Repairer
    from device_placement.envs.simulation.profile import HardwareProfile
    from device_placement.envs.simulation.roofline import derive_profile
    from device_placement.envs.simulation.simulator import SimulatedEvaluator
    from device_placement.envs.simulation.workloads import load_workload
    from device_placement.envs.vector_env import DevicePlacementVectorEnv

_HOMES = {
    "BaseEvaluator": "evaluation",
    "CONSTRAINTS": "constraints",
    "Claim": "placement",
    "ClusterError": "measuring.cluster",
    "CoarseGraph": "graph.coarsening",
    "ComputationGraph": "graph.computation_graph",
    "DataflowError": "executors.dataflow",
    "DataflowModel": "executors.dataflow",
    "Device": "devices",
    "DeviceError": "errors",
    "DevicePlacementEnv": "env",
    "DevicePlacementError": "errors",
    "DevicePlacementVectorEnv": "vector_env",
    "Evaluation": "evaluation",
    "EvaluationStore": "measuring.store",
    "Evaluator": "evaluation",
    "EvaluatorWrapper": "evaluation",
    "GeneratorConfig": "problems.config",
    "GraphObservation": "graph_observation",
    "HardwareProfile": "simulation.profile",
    "HeteroModel": "executors.hetero",
    "InputError": "errors",
    "InventedInputsWarning": "errors",
    "MeasureConfig": "measuring.config",
    "MeasuredVectorEnv": "measured_vector_env",
    "ModelError": "errors",
    "OpenVINOEvaluator": "measuring.openvino_evaluator",
    "Placement": "placement",
    "PlacementError": "errors",
    "ProblemVectorEnv": "problem_vector_env",
    "Repaired": "repair.repairer",
    "Repairer": "repair.repairer",
    "SharedMemory": "devices",
    "SimulatedEvaluator": "simulation.simulator",
    "StoreError": "errors",
    "Validation": "measuring.validation",
    "coarsen": "graph.coarsening",
    "combine_models": "models.side_by_side",
    "derive_profile": "simulation.roofline",
    "discover_devices": "devices",
    "generate_problem": "problems.generator",
    "group_features": "graph.features",
    "is_validation_seed": "problems.seeds",
    "load_model": "models.loading",
    "load_workload": "simulation.workloads",
    "make_core": "devices",
    "make_evaluator": "factory",
    "measure_profile": "profiling.measured_profile",
    "model_hash": "models.loading",
    "parse_devices": "devices",
    "read_graph": "graph.computation_graph",
    "restore_affinities": "affinities",
    "save_inputs": "measuring.inputs",
    "to_networkx": "graph_observation",
    "training_seeds": "problems.seeds",
}

__all__ = [
    "CONSTRAINTS",
    "BaseEvaluator",
    "Claim",
    "ClusterError",
    "CoarseGraph",
    "ComputationGraph",
    "DataflowError",
    "DataflowModel",
    "Device",
    "DeviceError",
    "DevicePlacementEnv",
    "DevicePlacementError",
    "DevicePlacementVectorEnv",
    "Evaluation",
    "EvaluationStore",
    "Evaluator",
    "EvaluatorWrapper",
    "GeneratorConfig",
    "GraphObservation",
    "HardwareProfile",
    "HeteroModel",
    "InputError",
    "InventedInputsWarning",
    "MeasureConfig",
    "MeasuredVectorEnv",
    "ModelError",
    "OpenVINOEvaluator",
    "Placement",
    "PlacementError",
    "ProblemVectorEnv",
    "Repaired",
    "Repairer",
    "SharedMemory",
    "SimulatedEvaluator",
    "StoreError",
    "Validation",
    "coarsen",
    "combine_models",
    "derive_profile",
    "discover_devices",
    "generate_problem",
    "group_features",
    "is_validation_seed",
    "load_model",
    "load_workload",
    "make_core",
    "make_evaluator",
    "measure_profile",
    "model_hash",
    "parse_devices",
    "read_graph",
    "restore_affinities",
    "save_inputs",
    "to_networkx",
    "training_seeds",
]

_SUFFIXES = {"assign": "", "construct": "Construct", "refine": "Refine"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


def _register() -> None:
    try:
        from gymnasium.envs.registration import register, registry
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        return  # models and placements do without it
    entry_point = f"{__name__}.env:DevicePlacementEnv"
    many = f"{__name__}.vector_env:DevicePlacementVectorEnv"
    simulated = {"evaluator": "simulator"}
    for formulation, suffix in _SUFFIXES.items():
        kwargs = {"formulation": formulation}
        if f"DevicePlacement{suffix}-v0" not in registry:
            register(
                f"DevicePlacement{suffix}-v0", entry_point, nondeterministic=True, kwargs=kwargs
            )
            register(
                f"SimulatedDevicePlacement{suffix}-v0",
                entry_point,
                vector_entry_point=None if formulation == "refine" else many,
                kwargs=kwargs | simulated,
            )


_register()
