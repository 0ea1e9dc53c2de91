"""HETERO executor: OpenVINO runs a placed model as one, the subgraphs of a request in turn."""

from __future__ import annotations

import queue
from typing import Any, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from device_placement.envs.executors.dataflow import CONFIG, Inputs


class HeteroModel:
    """Placed model that OpenVINO's HETERO runs, with the methods of `DataflowModel`.

    `infer` and `start_async` may be called by several threads at a time; with `requests` inferences
    in flight, the next caller waits.

    Args:
        core: has the devices.
        model: with affinities.
        device_name: ``HETERO`` and the devices.
        requests: how many inferences can be in flight.

    Raises:
        RuntimeError: when OpenVINO can't compile the model.
    """

    def __init__(self, core: ov.Core, model: ov.Model, device_name: str, requests: int = 1) -> None:
        hint = CONFIG if requests == 1 else {"PERFORMANCE_HINT": "THROUGHPUT"}
        self.compiled = core.compile_model(model, device_name, hint)
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        for _ in range(max(requests, 1)):
            self._idle.put(self.compiled.create_infer_request())

    def infer(self, inputs: Inputs) -> list[NDArray[Any]]:
        """Run the model once, and return copies of its outputs, in their order.

        Args:
            inputs: arrays, in the order of the model's inputs, or by number or name.

        Raises:
            RuntimeError: when an input does not fit, or the inference failed.
        """
        return self.start_async(inputs).wait()

    def start_async(self, inputs: Inputs) -> HeteroInference:
        """Begin an inference; wait first while as many as `requests` are in flight."""
        request = self._idle.get()
        try:
            request.start_async(inputs, share_inputs=False)
        except BaseException:
            self._idle.put(request)
            raise
        return HeteroInference(request, self._idle)

    def close(self) -> None:
        """Do nothing: OpenVINO releases what it holds with the last reference."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HeteroInference:
    """Inference in flight; wait for each, as its request is not free until then."""

    def __init__(self, request: ov.InferRequest, idle: queue.SimpleQueue[ov.InferRequest]) -> None:
        self._request, self._idle = request, idle

    def wait(self) -> list[NDArray[Any]]:
        """Wait until it has ended, and return copies of the model's outputs, in their order.

        Raises:
            RuntimeError: when it failed.
        """
        try:
            self._request.wait()
            return [np.array(self._request.results[port]) for port in self._request.model_outputs]
        finally:
            self._idle.put(self._request)
