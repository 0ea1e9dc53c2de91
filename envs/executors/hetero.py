"""HETERO executor: OpenVINO runs a placed model as one, the subgraphs of a request in turn."""

from __future__ import annotations

import openvino as ov

from device_placement.envs.executors.dataflow import (
    CONFIG,
    Inference,
    Inputs,
    PlacedModel,
    RequestPool,
    read_inputs,
)


class HeteroModel(PlacedModel):
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
        self._pool = RequestPool(requests)

    def start_async(self, inputs: Inputs) -> Inference:
        """Begin an inference; wait first while as many as `requests` are in flight.

        Args:
            inputs: as for `infer`; they are copied.

        Raises:
            ValueError: as `infer`.
        """
        arrays = dict(enumerate(read_inputs(self.compiled.inputs, inputs)))
        request = self._pool.take(self.compiled.create_infer_request)
        try:
            request.start_async(arrays, share_inputs=False)
        except BaseException:
            self._pool.give_back(request)
            raise
        return Inference(request, self._pool)

    def close(self) -> None:
        """Do nothing: OpenVINO releases what it holds with the last reference."""
