"""The little of CUDA that running an engine takes, through the driver's own library: no toolkit, no package."""

from __future__ import annotations

import ctypes
from typing import Any

from numpy.typing import NDArray

from edgerec.errors import EdgerecError

LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED


class NoGPUError(EdgerecError):
    """There is no NVIDIA driver or no GPU."""


class Cuda:
    """The first GPU, its primary context and one stream.

    Raises:
        NoGPUError: There is none. Nothing of TensorRT's may be called then: without a driver it ends the process.
    """

    def __init__(self) -> None:
        self._driver = open_driver()
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), 1)  # does not wait for the default stream
        self._device, self.stream = device, int(stream.value or 0)

    @property
    def architecture(self) -> int:
        """The GPU's architecture: 87 for SM 8.7."""
        numbers = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, self._device)
            numbers.append(value.value)
        return 10 * numbers[0] + numbers[1]

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` bytes of device memory."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return int(address.value)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the device, in the stream's order."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes), self._queue)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the device into a contiguous array, in the stream's order."""
        target = ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes), self._queue)

    def wait(self) -> None:
        """Wait until the stream has done everything."""
        self._call("cuStreamSynchronize", self._queue)

    def begin_capture(self) -> None:
        """Record what is put into the stream, instead of doing it."""
        self._call("cuStreamBeginCapture_v2", self._queue, RELAXED)

    def end_capture(self) -> int:
        """Return a CUDA graph of what was recorded, ready to be launched."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", self._queue, ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)
        return int(ready.value or 0)

    def launch(self, graph: int) -> None:
        """Put a CUDA graph into the stream."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), self._queue)

    def discard(self, graph: int) -> None:
        """Give a CUDA graph back."""
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    @property
    def _queue(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.stream)

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver's."""
        if code := getattr(self._driver, name)(*arguments):
            raise NoGPUError(f"CUDA's {name} failed with code {code}; expected a working NVIDIA GPU: see nvidia-smi")


def open_driver() -> Any:
    """Load the driver's library."""
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise NoGPUError(f"no NVIDIA driver ({LIBRARIES[0]} cannot be loaded); expected a GPU: run where there is one")
