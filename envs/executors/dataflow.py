"""Data-flow executor: run the regions of a placed model side by side, each when its inputs exist.

Every region becomes a model of its own, compiled for its device. One thread per device runs, of the
regions whose inputs exist, the one with the longest remaining path. A tensor between regions is one
buffer: the output of one region and the input of others.

The file needs only ``openvino`` and ``numpy``, so that a product may bring it along.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import functools
import heapq
import itertools
import logging
import math
import os
import queue
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import openvino as ov
from numpy.typing import NDArray

CONFIG = {"PERFORMANCE_HINT": "LATENCY"}  # a device runs one region at a time
CALIBRATIONS = 3  # first inferences; their times decide which regions are urgent
HANDOVER_S = 50e-6  # that a thread may wait for Python's lock, behind another device's
MAX_REGIONS = 128  # that a cache keeps; on a CPU each has about two threads
MAX_BYTES = 2**31  # of the constants of the regions that a cache keeps
EXIT_S = 10.0  # how long the end of the process waits for what a device runs
NO_RUN = (0.0, 0.0, 0.0)  # of a region that did not run

Port = tuple[str, int]  # friendly name of an op, number of its output
Inputs = Mapping[Any, Any] | Sequence[Any]
_log = logging.getLogger("device_placement")


class DataflowError(RuntimeError):
    """Error of a model that can't be cut into its regions, or of an inference that failed."""


@dataclass(frozen=True)
class Region:
    """Ops that run on one device as one model."""

    device: str
    op_names: tuple[str, ...]  # in topological order; no Parameters, Results or constant ops


class RegionRun(NamedTuple):
    """When a region ran in an inference."""

    region: int
    device: str
    start_s: float  # since the inference began
    end_s: float
    cpu_s: float  # of the device's thread; a device of one core has no other


class Piece(NamedTuple):
    """Region as a model of its own."""

    model: ov.Model | None  # None once it is compiled, as it holds the weights
    inputs: tuple[Port, ...]  # tensors of other regions and of the model's inputs
    outputs: tuple[Port, ...]  # tensors that other regions or the model's Results read


@dataclass(frozen=True)
class Cut:
    """Model that was cut into its regions."""

    pieces: tuple[Piece, ...]  # (num_regions,)
    inputs: tuple[Port, ...]  # (num_inputs,) the model's Parameters
    outputs: tuple[Port, ...]  # (num_outputs,) the tensors of its Results
    constants: Mapping[Port, ov.Tensor]  # those of its outputs that no region computes


def cut_model(model: ov.Model, regions: Sequence[Region]) -> Cut:
    """Cut a model into one model per region.

    Args:
        model: with static shapes and without states. Its ops get other inputs, so it can't be used
            afterwards.
        regions: in topological order. They hold every op but Parameters, Results, and ops computed
            from Constants alone; each region that reads one of the latter has it, too.

    Raises:
        DataflowError: when a tensor between regions has no static shape, or an op is in no region;
            it names the op.
    """
    region_of = {name: number for number, one in enumerate(regions) for name in one.op_names}
    inputs = tuple(_port(op.output(0)) for op in model.get_parameters())
    results = [op.input_value(0) for op in model.get_results()]
    read: list[dict[Port, Any]] = [{} for _ in regions]  # Parameters, by what they stand for
    made: list[dict[Port, Any]] = [{} for _ in regions]  # outputs of ops
    for op in model.get_ordered_ops():
        reader = region_of.get(op.get_friendly_name())
        for entry in op.inputs():
            source = entry.get_source_output()
            port = _port(source)
            producer = region_of.get(port[0])
            if reader is None:
                if op.get_type_name() != "Result" and (producer is not None or port in inputs):
                    raise DataflowError(
                        f"The op {op.get_friendly_name()!r} ({op.get_type_name()}) is in no "
                        "region. Give regions that hold all ops of the model."
                    )
                continue
            if producer == reader or (producer is None and port not in inputs):
                continue
            if producer is not None:
                made[producer][port] = source
            if port not in read[reader]:
                read[reader][port] = _parameter(source)
            entry.replace_source_output(read[reader][port].output(0))
    constants = {}
    for source in results:
        port = _port(source)
        if (producer := region_of.get(port[0])) is not None:
            made[producer][port] = source
        elif port not in inputs:
            constants[port] = _constant(source)
    pieces = tuple(
        _piece(region, read[number], made[number]) for number, region in enumerate(regions)
    )
    return Cut(pieces, inputs, tuple(map(_port, results)), constants)


def _port(output: Any) -> Port:
    return output.get_node().get_friendly_name(), output.get_index()


def _parameter(source: Any) -> Any:
    """Return a Parameter that stands for a tensor of another region."""
    shape = source.get_partial_shape()
    if shape.is_dynamic:
        node = source.get_node()
        raise DataflowError(
            f"The op {node.get_friendly_name()!r} ({node.get_type_name()}) passes a tensor of the "
            f"dynamic shape {shape} to another region; the data-flow executor needs static shapes. "
            "Keep its readers on its device, or use the executor 'hetero'."
        )
    return ov.op.Parameter(source.get_element_type(), shape)


def _constant(source: Any) -> ov.Tensor:
    """Return the value of a model's output that is computed from Constants alone."""
    inner = ov.Model([ov.op.Result(source)], [], "constant")
    request = ov.Core().compile_model(inner, "CPU").create_infer_request()
    request.infer()
    computed = request.get_output_tensor(0)
    kept = ov.Tensor(computed.get_element_type(), computed.get_shape())
    computed.copy_to(kept)
    return kept


def _piece(region: Region, read: Mapping[Port, Any], made: Mapping[Port, Any]) -> Piece:
    results = [ov.op.Result(source) for source in made.values()]
    inner = ov.Model(results, list(read.values()), region.op_names[0])
    return Piece(inner, tuple(read), tuple(made))


class RegionCache:
    """Compiled regions of one model, reused by its later placements.

    A region is known by its device and its ops. The least recently used ones are dropped.

    Args:
        max_regions: most regions to keep.
        max_bytes: most bytes of constants to keep.
    """

    def __init__(self, max_regions: int = MAX_REGIONS, max_bytes: int = MAX_BYTES) -> None:
        self._max_regions, self._max_bytes = max_regions, max_bytes
        self._kept: OrderedDict[Region, tuple[ov.CompiledModel, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.num_hits = 0
        self.num_misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, region: Region) -> ov.CompiledModel | None:
        """Return a compiled region, or None."""
        with self._lock:
            if region not in self._kept:
                self.num_misses += 1
                return None
            self.num_hits += 1
            self._kept.move_to_end(region)
            return self._kept[region][0]

    def add(self, region: Region, compiled: ov.CompiledModel, num_bytes: int) -> None:
        """Keep a compiled region whose constants have that many bytes, if there is room for it."""
        if num_bytes > self._max_bytes:
            return  # all others would be dropped for it
        with self._lock:
            _, known = self._kept.pop(region, (None, 0))
            self._kept[region] = compiled, num_bytes
            self._bytes += num_bytes - known
            while len(self._kept) > self._max_regions or self._bytes > self._max_bytes:
                _, (_, freed) = self._kept.popitem(last=False)
                self._bytes -= freed

    def clear(self) -> None:
        """Drop all regions."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0


class DeviceThreads:
    """One thread per device, which compiles and runs its regions one at a time.

    Args:
        cores: the processor's cores that a device's thread is bound to, by the device's name. The
            threads that a plugin starts from it are bound, too, unless the plugin pins them.
    """

    def __init__(self, cores: Mapping[str, Sequence[int]] | None = None) -> None:
        self._cores = dict(cores or {})
        self._threads: dict[str, _DeviceThread] = {}
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    def __getitem__(self, device: str) -> _DeviceThread:
        """Return a device's thread.

        Raises:
            DataflowError: as `check`, or when the thread can't be bound to its cores.
        """
        self.check()
        with self._lock:
            self.check()  # it may have been closed meanwhile
            if device not in self._threads:
                self._threads[device] = _DeviceThread(device, self._cores.get(device, ()))
            return self._threads[device]

    def check(self) -> None:
        """Check that the threads live.

        Raises:
            DataflowError: after `close`, and in a fork of the process that started them.
        """
        if self._closed:
            raise DataflowError("The threads of the devices were closed; compile the model again.")
        if self._process != os.getpid():
            raise DataflowError(
                "This process was forked from the one that compiled the model, and has no threads "
                "of the devices. Compile the model again."
            )

    def next_number(self) -> int:
        """Return the number of the next inference; smaller ones go first."""
        return next(self._count)

    def has_one_core(self, device: str) -> bool:
        """Return whether a device's thread is bound to a single core."""
        return len(self._cores.get(device, ())) == 1

    def close(self) -> None:
        """End all threads, after what they have begun; inferences in flight fail."""
        if self._process != os.getpid():
            return  # a fork has no threads, and its locks may be held for ever
        with self._lock:
            self._closed = True
            threads = list(self._threads.values())
        for thread in threads:
            thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _DeviceThread:
    """Thread that runs the most urgent of its tasks."""

    def __init__(self, name: str, cores: Sequence[int]) -> None:
        self._name = name
        self._heap: list[tuple[int, float, int, Callable[[], None]]] = []
        self._lock = threading.Lock()
        self._tokens: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: look for tasks
        self._unique = itertools.count()
        self._closed = False
        self._thread = threading.Thread(
            target=_serve,
            args=(self._heap, self._lock, self._tokens),
            name=f"device {name}",
            daemon=True,
        )
        self._thread.start()
        self._end = weakref.finalize(self, self._tokens.put, False)
        _end_at_exit(self._thread, self._tokens)
        if cores:
            self._bind(cores)

    def push(self, number: int, urgency: float, task: Callable[[], None]) -> None:
        """Run a task: before those of later inferences, and before less urgent ones of its own.

        Raises:
            DataflowError: when the thread was closed.
        """
        with self._lock:
            if self._closed:
                raise DataflowError(f"the thread of {self._name} was closed")
            heapq.heappush(self._heap, (number, -urgency, next(self._unique), task))
            self._tokens.put(True)

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        """Run a function before all tasks that wait, and return its future."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self.push(-1, 0.0, run)
        return future

    def close(self) -> None:
        """End the thread after the tasks that wait."""
        with self._lock:
            self._closed = True
        self._end()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _bind(self, cores: Sequence[int]) -> None:
        listed = ", ".join(map(str, cores))
        try:
            bound = self.submit(lambda: bind_thread(cores)).result()
        except OSError as error:
            raise DataflowError(
                f"Can't bind the thread of {self._name} to the cores {listed}: {error}. Give cores "
                "that this process may use."
            ) from error
        if not bound:
            _log.warning(
                "This system can't bind threads to cores; %s runs on others than %s, too.",
                self._name,
                listed,
            )


_living: weakref.WeakKeyDictionary[threading.Thread, queue.SimpleQueue[bool]]
_living = weakref.WeakKeyDictionary()


def _end_at_exit(thread: threading.Thread, tokens: queue.SimpleQueue[bool]) -> None:
    """End a thread before the process: one that returns from a plugin later would abort it."""
    if not _living:
        atexit.unregister(_end_all)
        atexit.register(_end_all)
    _living[thread] = tokens


def _end_all() -> None:
    living = list(_living.items())
    for _, tokens in living:
        tokens.put(False)
    for thread, _ in living:
        thread.join(EXIT_S)


def _serve(
    heap: list[tuple[int, float, int, Callable[[], None]]],
    lock: threading.Lock,
    tokens: queue.SimpleQueue[bool],
) -> None:
    """Run tasks, which raise nothing, until the token to end comes."""
    more = True
    while more:
        more = tokens.get()
        while True:  # all that wait: a push that was interrupted may have left no token
            with lock:
                if not heap:
                    break
                task = heapq.heappop(heap)[-1]
            task()
            del task  # it would keep an inference alive until the next one


def bind_thread(cores: Iterable[int]) -> bool:
    """Bind the calling thread to cores of the processor; return whether this system can do so.

    Threads that it starts afterwards are bound to them, too, on Linux.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # 0: the calling thread
        return True
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.GetCurrentThread.restype = ctypes.c_void_p
        kernel.SetThreadAffinityMask.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        kernel.SetThreadAffinityMask.restype = ctypes.c_size_t
        mask = sum(1 << core for core in cores)
        return bool(kernel.SetThreadAffinityMask(kernel.GetCurrentThread(), mask))
    return False


class PlacedModel(abc.ABC):
    """Compiled placement of a model, under any executor."""

    def infer(self, inputs: Inputs) -> list[NDArray[Any]]:
        """Run the model once, and return copies of its outputs, in their order.

        Args:
            inputs: arrays, in the order of the model's inputs, or by number or name.

        Raises:
            ValueError: when an input is missing or unknown, or has another shape or type.
            RuntimeError: when the inference failed; a `DataflowError` if it is one of a
                `DataflowModel`.
        """
        return self.start_async(inputs).wait()

    @abc.abstractmethod
    def start_async(self, inputs: Inputs) -> Inference:
        """Begin an inference."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what the model holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DataflowModel(PlacedModel):
    """Compiled model whose regions run side by side.

    `infer` and `start_async` may be called by several threads at a time; with `requests` inferences
    in flight, the next caller waits. A device prefers the oldest inference.

    Args:
        core: has the devices.
        model: with static shapes and without states; not changed.
        regions: see `cut_model`.
        requests: how many inferences can be in flight.
        threads: of the devices, shared by all models that use them; own ones if None.
        cache: compiled regions of this model; None: compile all.
        config: OpenVINO's properties to compile with, in addition to those of the devices.
        cores: that own threads are bound to, as for `DeviceThreads`.

    Raises:
        DataflowError: when the model can't be cut; it names the op.
        RuntimeError: when OpenVINO can't compile a region.

    >>> from device_placement.envs import load_model
    >>> model = load_model("diamond")
    >>> names = [op.get_friendly_name() for op in model.get_ordered_ops()]
    >>> working = tuple(name for name in names if name.split("_")[1] not in NO_REGION)
    >>> with DataflowModel(ov.Core(), model, [Region("CPU", working)]) as compiled:
    ...     outputs = compiled.infer([np.zeros((1, 64), np.float32)])
    >>> outputs[0].shape
    (1, 64)
    """

    def __init__(
        self,
        core: ov.Core,
        model: ov.Model,
        regions: Sequence[Region],
        requests: int = 1,
        threads: DeviceThreads | None = None,
        cache: RegionCache | None = None,
        config: Mapping[str, Any] | None = None,
        cores: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._owns_threads = threads is None
        self.threads = DeviceThreads(cores) if threads is None else threads
        self.compiled = CompiledRegions(core, model, regions, self.threads, cache, config)
        self._pool = RequestPool(requests)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions, (num_regions,), in topological order."""
        return self.compiled.regions

    @property
    def num_regions(self) -> int:
        """Number of regions."""
        return len(self.regions)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The model's inputs, (num_inputs,)."""
        return self.compiled.inputs

    def create_infer_request(self) -> DataflowRequest:
        """Return a request with tensors of its own, to be used by one thread at a time."""
        return DataflowRequest(self.compiled)

    def start_async(self, inputs: Inputs) -> Inference:
        """Begin an inference; wait first while as many as `requests` are in flight.

        Args:
            inputs: as for `infer`; they are copied.

        Raises:
            ValueError: as `infer`.
            DataflowError: when the model was closed, or in a fork of the process.
        """
        self.threads.check()  # without them, no request would ever be free again
        request = self._pool.take(self.create_infer_request)
        try:
            request.set_inputs(inputs)
            request.start_async()
        except BaseException:
            # An interrupt may have left a running request some of whose regions never start.
            self._pool.give_back(None if request.is_running else request)
            raise
        return Inference(request, self._pool)

    def close(self) -> None:
        """End the threads of the devices, if they are the model's own."""
        if self._owns_threads:
            self.threads.close()


class CompiledRegions:
    """Compiled regions of a model, what each of them needs, and how urgent it is.

    The requests of a `DataflowModel` refer to it, and not to the model, which keeps idle ones.

    Args:
        core: as for `DataflowModel`, like all others.
        model: as above.
        regions: as above.
        threads: of the devices.
        cache: of compiled regions, or None.
        config: to compile with.
    """

    def __init__(
        self,
        core: ov.Core,
        model: ov.Model,
        regions: Sequence[Region],
        threads: DeviceThreads,
        cache: RegionCache | None,
        config: Mapping[str, Any] | None,
    ) -> None:
        self.core = core
        self.regions = tuple(regions)
        self.inputs = tuple(model.inputs)
        self.threads = threads
        cut = cut_model(model.clone(), self.regions)
        self.models = self._compile(cut, {**CONFIG, **(config or {})}, cache)
        self.cut = replace(cut, pieces=tuple(one._replace(model=None) for one in cut.pieces))
        makers = {port: n for n, piece in enumerate(self.cut.pieces) for port in piece.outputs}
        self.sources = [
            {makers[port] for port in piece.inputs if port in makers} for piece in self.cut.pieces
        ]
        self.readers: list[list[int]] = [[] for _ in self.regions]
        for number, sources in enumerate(self.sources):
            for source in sources:
                self.readers[source].append(number)
        self._seconds = [math.inf] * len(self.regions)  # of each region, the shortest so far
        self._calibrations = 0
        self.urgency = self._remaining([len(one.op_names) for one in self.regions])
        self._lock = threading.Lock()

    def learn(self, seconds: Sequence[float]) -> None:
        """Let the regions' times in one of the first inferences decide which are urgent."""
        with self._lock:
            if self._calibrations < CALIBRATIONS:
                self._calibrations += 1
                self._seconds = list(map(min, self._seconds, seconds))
                self.urgency = self._remaining(self._seconds)

    @property
    def is_calibrated(self) -> bool:
        """Whether later inferences change nothing."""
        return self._calibrations >= CALIBRATIONS

    def _remaining(self, costs: Sequence[float]) -> list[float]:
        """Return the cost of the longest path from each region to the end, (num_regions,)."""
        remaining = list(costs)
        for number in reversed(range(len(costs))):
            longest = max((remaining[one] for one in self.readers[number]), default=0.0)
            remaining[number] = costs[number] + longest
        return remaining

    def _compile(
        self, cut: Cut, config: Mapping[str, Any], cache: RegionCache | None
    ) -> list[ov.CompiledModel]:
        """Compile the regions, each in its device's thread, so devices compile side by side."""
        found = [None if cache is None else cache.get(one) for one in self.regions]
        futures: dict[int, Future[ov.CompiledModel]] = {}
        try:
            for number, region in enumerate(self.regions):
                if found[number] is None:
                    model = cut.pieces[number].model
                    futures[number] = self.threads[region.device].submit(
                        _compiler(self.core, model, region.device, config)
                    )
            concluded = [future.exception() for future in futures.values()]  # waits for all
        except BaseException:
            for future in futures.values():
                future.cancel()
            raise
        for error in filter(None, concluded):
            raise error
        for number, future in futures.items():
            found[number] = future.result()
            if cache is not None:
                size = _constant_bytes(cut.pieces[number].model)
                cache.add(self.regions[number], found[number], size)
        return found


def _compiler(
    core: ov.Core, model: ov.Model, device: str, config: Mapping[str, Any]
) -> Callable[[], ov.CompiledModel]:
    return lambda: core.compile_model(model, device, dict(config))


def _constant_bytes(model: ov.Model) -> int:
    return sum(op.get_byte_size() for op in model.get_ops() if op.get_type_name() == "Constant")


NO_REGION = ("Parameter", "Result", "Constant")


class DataflowRequest:
    """Inference of a `DataflowModel`, with tensors of its own, like ``openvino.InferRequest``."""

    def __init__(self, model: CompiledRegions) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()  # of one inference
        self._active = False
        self._error: DataflowError | None = None  # no further region begins
        self._outstanding = 0  # regions that were started and have not ended
        self._waiting: list[int] = []  # for how many regions each one waits
        self._runs: list[tuple[float, float, float]] = []
        self._start_s = 0.0
        self._number = 0
        self._threads: dict[str, _DeviceThread] = {}
        self._first = [n for n, sources in enumerate(model.sources) if not sources]
        self._one_core = [model.threads.has_one_core(one.device) for one in model.regions]
        # OpenVINO can't return texts without copying them, and warns if asked to.
        self._shares = [
            all(output.get_element_type() != ov.Type.string for output in compiled.outputs)
            for compiled in model.models
        ]
        self._used = [0.0, 0.0]  # wall and CPU time of the regions on devices of one core
        self._requests = self._create_requests()
        self._tensors = self._make_tensors()

    @property
    def is_running(self) -> bool:
        """Whether an inference was begun and not waited for."""
        return self._active

    def set_inputs(self, inputs: Inputs) -> None:
        """Copy arrays into the input tensors; see `DataflowModel.infer`.

        Raises:
            ValueError: when an input is missing or unknown, or has another shape or type.
            DataflowError: when an inference is running.
        """
        self._check_idle()
        for index, array in enumerate(read_inputs(self._model.inputs, inputs)):
            if self._model.inputs[index].get_element_type() == ov.Type.string:
                self.set_input_tensor(index, ov.Tensor(array))
            else:
                self._tensors[self._model.cut.inputs[index]].data[...] = array

    def set_input_tensor(self, index: int, tensor: ov.Tensor) -> None:
        """Let the model's input with this number use a tensor, which is not copied.

        Raises:
            ValueError: when it has another shape or type.
            DataflowError: when an inference is running.
        """
        self._check_idle()
        port = self._model.inputs[index]
        wanted = port.get_element_type(), tuple(port.get_shape())
        given = tensor.get_element_type(), tuple(tensor.get_shape())
        if given != wanted:
            raise ValueError(
                f"Got a tensor of {given[0]} and shape {given[1]} for the input {_title(port)}; "
                f"give {wanted[0]} and {wanted[1]}."
            )
        self._set_tensor(self._model.cut.inputs[index], tensor)

    @property
    def output_tensors(self) -> list[ov.Tensor]:
        """The model's outputs; the next inference overwrites them."""
        return [self._tensors[port] for port in self._model.cut.outputs]

    def infer(self) -> None:
        """Run the model once.

        Raises:
            DataflowError: when a region failed.
        """
        self.start_async()
        self.wait()

    def start_async(self) -> None:
        """Begin an inference.

        Raises:
            DataflowError: when one is running, or the threads of the devices have ended.
        """
        model = self._model
        self._check_idle()
        self._threads = {one.device: model.threads[one.device] for one in model.regions}
        self._error = None
        self._done = queue.SimpleQueue()
        self._waiting = [len(sources) for sources in model.sources]
        self._outstanding = len(self._first)
        self._number = model.threads.next_number()
        self._runs = [NO_RUN] * len(model.regions)
        self._active = True
        self._start_s = time.perf_counter()
        for number in self._first:
            self._push(number)

    def wait(self) -> None:
        """Wait until the inference has ended.

        When interrupted, by Ctrl-C for instance, no further region begins, and those that run are
        waited for, as they use the tensors.

        Raises:
            DataflowError: when a region failed.
        """
        if not self._active:
            return
        try:
            self._await_end()
        except BaseException:
            self._error = DataflowError("The inference was interrupted.")
            self._await_end()
            self._active, self._error = False, None
            raise
        self._active = False
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # it refers to this frame
        if not self._model.is_calibrated:
            self._model.learn([end - start for start, end, _ in self._runs])

    def _await_end(self) -> None:
        """Wait until no region runs; as often as wanted, as an interrupt may come at any time."""
        if self._outstanding:
            self._done.get()

    def _check_idle(self) -> None:
        if self._active:
            raise DataflowError("The request is running; wait for it before the next inference.")

    @property
    def timeline(self) -> list[RegionRun]:
        """When each region ran in the last inference, in the order of their beginning."""
        runs = [
            RegionRun(number, region.device, start - self._start_s, end - self._start_s, cpu)
            for number, (region, (start, end, cpu)) in enumerate(
                zip(self._model.regions, self._runs, strict=True)
            )
            if end
        ]
        return sorted(runs, key=lambda run: run.start_s)

    def take_core_share(self) -> float:
        """Return the share of their core that devices of one core got since the last call.

        It is thread time over wall time, of which `HANDOVER_S` a region are not counted, and 1 if
        there are no such devices.
        """
        wall_s, cpu_s = self._used
        self._used = [0.0, 0.0]
        return cpu_s / wall_s if wall_s > 0 else 1.0

    def _push(self, number: int) -> None:
        """Let the thread of a region's device run it."""
        device, urgency = self._model.regions[number].device, self._model.urgency[number]
        # The task keeps the request alive until it has run, even if nobody waits for it.
        task = functools.partial(self._run, number)
        try:
            self._threads[device].push(self._number, urgency, task)
        except DataflowError as error:
            self._conclude(number, NO_RUN, error)

    def _run(self, number: int) -> None:
        """Run a region, and then push those that it makes ready."""
        error: Exception | None = None
        start, cpu = time.perf_counter(), time.thread_time()
        if self._error is None:
            try:
                self._requests[number].infer(share_outputs=self._shares[number])
            except Exception as caught:
                error = caught
        cpu, end = time.thread_time() - cpu, time.perf_counter()
        self._conclude(number, (start, end, cpu), error)
        error = None  # it refers to this frame

    def _conclude(
        self, number: int, run: tuple[float, float, float], error: Exception | None
    ) -> None:
        """Note that a region has ended, and start those that waited for nothing else."""
        model, ready, done = self._model, [], None
        with self._lock:
            self._runs[number] = run
            if self._one_core[number]:
                wall_s, cpu_s = run[1] - run[0], run[2]
                self._used[0] += max(cpu_s, wall_s - HANDOVER_S)
                self._used[1] += cpu_s
            if error is not None and self._error is None:
                self._error = _failure(model.regions[number], error)
            if self._error is None:
                for reader in model.readers[number]:
                    self._waiting[reader] -= 1
                    if not self._waiting[reader]:
                        ready.append(reader)
            self._outstanding += len(ready) - 1
            if not self._outstanding:
                done = self._done  # from now on, another inference may begin
        for reader in ready:
            self._push(reader)
        if done is not None:
            done.put(None)

    def _create_requests(self) -> list[ov.InferRequest]:
        model = self._model
        futures = [
            model.threads[region.device].submit(compiled.create_infer_request)
            for region, compiled in zip(model.regions, model.models, strict=True)
        ]
        return [future.result() for future in futures]

    def _make_tensors(self) -> dict[Port, ov.Tensor]:
        """Return all tensors of the inference, after giving them to the regions' requests."""
        model, self._tensors = self._model, {}
        devices: dict[Port, list[str]] = {}
        ports: dict[Port, Any] = {}
        for region, piece, compiled in zip(
            model.regions, model.cut.pieces, model.models, strict=True
        ):
            for port, output in zip(
                (*piece.inputs, *piece.outputs),
                (*compiled.inputs, *compiled.outputs),
                strict=True,
            ):
                devices.setdefault(port, []).append(region.device)
                ports[port] = output
        for port, output in zip(model.cut.inputs, model.inputs, strict=True):
            ports.setdefault(port, output)
        for port, output in ports.items():
            made = make_tensor(
                model.core, devices.get(port, []), output.get_element_type(), output.get_shape()
            )
            self._set_tensor(port, made)
        return {**self._tensors, **model.cut.constants}

    def _set_tensor(self, port: Port, tensor: ov.Tensor) -> None:
        self._tensors[port] = tensor
        for request, piece in zip(self._requests, self._model.cut.pieces, strict=True):
            if port in piece.inputs:
                request.set_input_tensor(piece.inputs.index(port), tensor)
            if port in piece.outputs:
                request.set_output_tensor(piece.outputs.index(port), tensor)


def _failure(region: Region, error: Exception) -> DataflowError:
    others = len(region.op_names) - 1
    failed = DataflowError(
        f"The region of {region.op_names[0]!r} and {others} further ops failed on "
        f"{region.device}: {error}"
    )
    failed.__cause__ = error
    return failed


class RequestPool:
    """Requests of a compiled model, each lent to one caller at a time.

    Args:
        size: most requests; they are made when all others are in use.
    """

    def __init__(self, size: int) -> None:
        self._idle: list[Any] = []
        self._places: queue.SimpleQueue[None] = queue.SimpleQueue()  # one per request to be had
        for _ in range(max(size, 1)):
            self._places.put(None)

    def take(self, create: Callable[[], Any]) -> Any:
        """Return an idle request, or create one; wait while all are in use."""
        self._places.get()
        request = None
        try:
            with contextlib.suppress(IndexError):
                request = self._idle.pop()
            if request is None:
                return create()
            with contextlib.suppress(RuntimeError):  # of an inference that nobody waited for
                request.wait()
        except BaseException:
            self.give_back(request)
            raise
        return request

    def give_back(self, request: Any | None) -> None:
        """Take a request back; None if it is lost, and another one is to be created."""
        if request is not None:
            self._idle.append(request)
        self._places.put(None)


class Inference:
    """Inference in flight; wait for it to get the outputs."""

    def __init__(self, request: Any, pool: RequestPool) -> None:
        self._request = request
        self._pool = pool

    def wait(self) -> list[NDArray[Any]]:
        """Wait until it has ended, and return copies of the model's outputs, in their order.

        Raises:
            RuntimeError: when it failed, or was waited for before; a `DataflowError` if it is one
                of a `DataflowModel`.
        """
        request, self._request = self._request, None
        if request is None:
            raise DataflowError("The inference was waited for before; start another one.")
        try:
            request.wait()
            return [read_tensor(tensor) for tensor in request.output_tensors]
        finally:
            self._pool.give_back(request)

    def __del__(self) -> None:
        """Give the request back if nobody waited; the next one to take it does."""
        if self._request is not None:
            self._pool.give_back(self._request)


def make_tensor(
    core: ov.Core, devices: Iterable[str], element_type: ov.Type, shape: Any
) -> ov.Tensor:
    """Return a tensor in host memory that all devices can use, without copies if they offer it.

    GPUs and NPUs have such memory in their context; the CPU needs none.
    """
    for device in dict.fromkeys(devices):
        if "CPU" not in device:
            with contextlib.suppress(RuntimeError):  # it has no context: any memory will do
                context = core.get_default_context(device)
                return context.create_host_tensor(element_type, shape)
    return ov.Tensor(element_type, shape)


def read_tensor(tensor: ov.Tensor) -> NDArray[Any]:
    """Return a copy of what a tensor holds; bf16, which NumPy lacks, as f32."""
    kind = tensor.get_element_type()
    if kind == ov.Type.string:
        return np.array(tensor.str_data)
    if kind == ov.Type.bf16:
        return np.asarray((tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32))
    return np.array(tensor.data)


def read_inputs(ports: Sequence[Any], inputs: Inputs) -> list[NDArray[Any]]:
    """Return an array per input, in the order of the model's.

    Args:
        ports: (num_inputs,) the model's inputs, of static shapes.
        inputs: arrays in this order, or by number or name.

    Raises:
        ValueError: when one is missing or unknown, or has another shape or type.
    """
    arrays = [np.asarray(value) for value in _ordered(ports, inputs)]
    for port, array in zip(ports, arrays, strict=True):
        shape, kind = tuple(port.get_shape()), port.get_element_type()
        if array.shape != shape:
            raise ValueError(
                f"Got an array of shape {array.shape} for the input {_title(port)}; it has the "
                f"shape {shape}."
            )
        text = kind == ov.Type.string
        if array.dtype.kind not in "US" if text else array.dtype != kind.to_dtype():
            wanted = "texts" if text else kind.to_dtype()
            raise ValueError(
                f"Got an array of {array.dtype} for the input {_title(port)}; give {wanted}."
            )
    return arrays


def _title(port: Any) -> str:
    return repr(port.get_any_name() if port.get_names() else port.get_node().get_friendly_name())


def _ordered(ports: Sequence[Any], inputs: Inputs) -> list[Any]:
    """Return the inputs in the order of the model's."""
    known = ", ".join(map(_title, ports))
    if not isinstance(inputs, Mapping):
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if len(given) != len(ports):
            raise ValueError(f"Got {len(given)} inputs; the model has {len(ports)}: {known}.")
        return given
    found: dict[int, Any] = {}
    for key, value in inputs.items():
        index = next((n for n, port in enumerate(ports) if _means(key, n, port)), None)
        if index is None:
            raise ValueError(f"Unknown input {key!r}; the model has: {known}.")
        if index in found:
            raise ValueError(f"Got the input {_title(ports[index])} twice; give it once.")
        found[index] = value
    missing = [_title(port) for n, port in enumerate(ports) if n not in found]
    if missing:
        raise ValueError(f"Got no {', '.join(missing)}; give all inputs of the model: {known}.")
    return [found[index] for index in range(len(ports))]


def _means(key: Any, index: int, port: Any) -> bool:
    if isinstance(key, str):
        return key in port.get_names() or key == port.get_node().get_friendly_name()
    if isinstance(key, (int, np.integer)):
        return bool(key == index)
    return bool(port == key)
