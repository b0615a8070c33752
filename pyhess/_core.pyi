from typing import Any

import numpy as np
import numpy.typing as npt

abi_version: int
compiler: str
accumulator_bytes: int

job_size: int
unit_job_size: int
relaxed_job_size: int
cells_per_task: int

def capi() -> dict[str, int]: ...
def run_samples(job: int) -> int: ...
def address(array: npt.NDArray[Any]) -> int: ...
def best_isa() -> str: ...
def isa_available(name: str) -> bool: ...
def gemm_agrees(blas: int, int_bytes: int, single: bool) -> bool: ...
def capsule_pointer(capsule: Any) -> tuple[int, str]: ...
def descent_scratch_size(num_params: int, memory: int) -> int: ...
def unit_scratch_size(num_data: int, dim: int, outputs: int, num_generators: int) -> int: ...
def relaxed_scratch_size(num_data: int, dim: int, num_units: int) -> int: ...
def problem_sizes(
    *,
    widths: list[int],
    activations: list[int],
    betas: list[float],
    scales: list[float],
    bias: bool,
    loss: int,
    num_samples: int,
    single: bool,
    isa: str,
    streaming: bool,
    accumulator_bytes: int,
) -> dict[str, int | bool]: ...

class Problem:
    def __init__(
        self,
        *,
        widths: list[int],
        activations: list[int],
        betas: list[float],
        scales: list[float],
        bias: bool,
        loss: int,
        x: npt.NDArray[np.float64],
        target: npt.NDArray[np.float64],
        weight: npt.NDArray[np.float64],
        single: bool,
        blas: int,
        blas_int_bytes: int,
        isa: str,
        lane_width: int = -1,
        streaming: bool = False,
        accumulator_bytes: int = ...,
    ) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def num_params(self) -> int: ...
    @property
    def lanes(self) -> bool: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def num_chunks(self) -> int: ...
    @property
    def block_rows(self) -> int: ...
    @property
    def state_size(self) -> int: ...
    @property
    def work_size(self) -> int: ...
    @property
    def transposed_size(self) -> int: ...
    def naive_products(self, theta: npt.NDArray[np.float64], v: npt.NDArray[np.float64]) -> dict[str, Any]: ...
