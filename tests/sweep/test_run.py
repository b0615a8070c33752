"""Runs: the same answers from every engine, and nothing that a cell does stops the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyhess as ph
from pyhess import InputError, InputTypeError, PyhessError
from pyhess.sweep import Store, Sweep, SweepSpec, make_plan
from pyhess.sweep.workqueue import WorkQueue

from .conftest import HERE, answers, chaos_spec, finished, python

SEARCHES = {
    "compute": {"kind": "bracket", "starts": 2},
    "warm": "width",
    "grid": {"data": "xor", "n": 12, "width": [2, 3], "radius": [0.7, 0.9]},
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, ...]]:
    path = tmp_path_factory.mktemp("expected") / "run.db"
    assert ph.sweep(SEARCHES, path, 0).counts == {"done": 4, "failed": 0, "crashed": 0, "pending": 0}
    return answers(path)


def test_a_cell_is_what_the_library_says(tmp_path: Path, expected: dict[str, tuple[Any, ...]]) -> None:
    plan = make_plan(SweepSpec.from_dict(SEARCHES))
    net, data = ph.MLP([2, 2, 1]), ph.datasets.load("xor", n=12)
    direct = ph.lambda_threshold(ph.Objective(net, data, "logistic"), ph.Box(-0.7, 0.7), rng=20261, starts=2)
    cell = next(c for c in plan.cells if (c.axes["width"], c.axes["radius"]) == (2, 0.7))
    lam_lower, lam_upper = expected[cell.key][1:3]
    assert (lam_lower, lam_upper) == (direct.lam_lower, direct.lam_upper)


@pytest.mark.parametrize("region", ["box", "ball"])
def test_lower_ends_of_a_chain_of_widths_do_not_fall(tmp_path: Path, region: str) -> None:
    # In standard parametrisation the wide network with further units at zero is the narrow one, however early a cell is ended.
    spec = {
        "compute": {"kind": "search", "starts": 2, "time_limit": 0.02}, "warm": "width",
        "grid": {"data": "teacher_student", "n": 20, "width": [2, 3, 7, 40], "depth": 2, "region": region, "radius": 1.0},
    }  # fmt: skip
    ph.sweep(spec, tmp_path / "run.db", 0)
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        ends = [row["lam_lower"] for row in store.rows("done")]
    assert len(ends) == 4 and ends[0] > 0.0
    assert all(wide >= narrow * (1.0 - 1e-9) for narrow, wide in pairwise(ends))


@pytest.mark.parametrize("workers", [0, 1])
def test_data_in_memory_reach_the_workers(tmp_path: Path, workers: int) -> None:
    rng = np.random.default_rng(37)
    data = ph.Dataset(rng.standard_normal((10, 3)), rng.standard_normal(10))
    spec = chaos_spec(8, grid={"data": data, "n": 9}, warm="width")
    assert ph.sweep(spec, tmp_path / "run.db", workers).counts["done"] == 8
    part = ph.Dataset(data.X[:9], data.y[:9])
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        for row in store.rows():
            net = ph.MLP([3, row["axes"]["width"], 1])
            assert row["lam_lower"] == ph.Objective(net, part, "squared_error").value(net.init(rng=row["axes"]["seed"]))
            assert row["axes"]["data"] == f"data@{data.content_hash[:8]}"


def _dask() -> Any:
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    return distributed.LocalCluster(n_workers=2, threads_per_worker=1, protocol="tcp", dashboard_address=None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["processes", "loky", "dask", "executorlib", "threads", "spawn pool"])
def test_every_engine_gives_the_same_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, expected: dict[str, tuple[Any, ...]]
) -> None:
    # Workers of executorlib look for modules in the working directory first: in a source tree that is the one without its core.
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.db"
    if engine == "processes":
        ph.sweep(SEARCHES, path, 2)
    elif engine == "loky":
        loky = pytest.importorskip("loky", reason="loky is not installed")
        executor = loky.get_reusable_executor(max_workers=2)
        ph.sweep(SEARCHES, path, executor)
        executor.shutdown(wait=True, kill_workers=True)
    elif engine == "dask":
        with _dask() as cluster, cluster.get_client() as client:
            ph.sweep(SEARCHES, path, client)
    elif engine == "executorlib":
        executorlib = pytest.importorskip("executorlib", reason="executorlib is not installed")
        with executorlib.SingleNodeExecutor(max_workers=2, block_allocation=True) as executor:
            ph.sweep(SEARCHES, path, executor, workers=2)
    elif engine == "threads":
        with ThreadPoolExecutor(2) as executor:
            ph.sweep(SEARCHES, path, executor)
    else:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
            ph.sweep(SEARCHES, path, executor)
    assert answers(path) == expected


@pytest.mark.filterwarnings("ignore")
def test_mpi_gives_the_same_answers(tmp_path: Path, expected: dict[str, tuple[Any, ...]]) -> None:
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    import sys

    mpiexec = Path(sys.executable).parent / "mpiexec"
    if not mpiexec.exists():
        pytest.skip("no mpiexec beside this Python")
    spec = tmp_path / "s.toml"
    spec.write_text(
        'warm = "width"\n[compute]\nkind = "bracket"\nstarts = 2\n'
        '[grid]\ndata = "xor"\nn = 12\nwidth = [2, 3]\nradius = [0.7, 0.9]\n'
    )
    command = [
        str(mpiexec),
        "-n",
        "3",
        *python("-m", "mpi4py.futures", "-m", "pyhess", "sweep", "run", str(spec), "--engine", "mpi"),
    ]
    done = subprocess.run([*command, "-q"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path / "s.db") == expected


def test_threads_per_cell_do_not_change_answers(tmp_path: Path, expected: dict[str, tuple[Any, ...]]) -> None:
    ph.sweep(SEARCHES, tmp_path / "run.db", 1, threads_per_cell=2)
    assert answers(tmp_path / "run.db") == expected
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        assert {row["threads"] for row in store.rows()} == {2}


def test_cells_carried_out_together_have_the_answers_of_cells_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"data": "xor", "n": 24, "width": [2, 3], "radius": [0.7, 1e200], "activation": "gelu", "seed": [11, 12, 13]}
    spec = {"compute": {"kind": "search", "starts": 2}, "grid": grid}
    found = {}
    for together, threads in ((1, 1), (2, 1), (16, 2)):
        monkeypatch.setattr("pyhess.sweep.worker._TOGETHER", together)
        path = tmp_path / f"{together}.db"
        assert ph.sweep(spec, path, 0, threads_per_cell=threads).counts == {"done": 6, "failed": 6, "crashed": 0, "pending": 0}
        found[together] = answers(path)
        with Store.open(path, readonly=True) as store:
            arrays = [store.arrays(row["key"]) for row in store.rows("done")]
        found[together]["witnesses"] = tuple(array.tobytes() for pair in arrays for array in pair.values())
    assert found[1] == found[2] == found[16]
    rows = Sweep(tmp_path / "16.db", {}).rows()
    row = next(row for row in rows if row["status"] == "done" and (row["axes"]["width"], row["axes"]["seed"]) == (3, 12))
    obj = ph.Objective(ph.MLP([2, 3, 1], activation="gelu"), ph.datasets.load("xor", n=24), "logistic")
    direct = ph.search(obj, ph.Box(-0.7, 0.7), rng=12, starts=2)
    assert row["num_jets"] == direct.num_jets and row["lam_lower"] == pytest.approx(direct.lam_lower, rel=1e-9)


def test_the_witness_is_kept_and_checks(tmp_path: Path) -> None:
    ph.sweep({**SEARCHES, "grid": {**SEARCHES["grid"], "radius": 0.7}}, tmp_path / "run.db", 0)
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        row = store.rows()[0]
        arrays = store.arrays(row["key"])
        run = store.runs()[0]
    obj = ph.Objective(ph.MLP([2, row["axes"]["width"], 1]), ph.datasets.load("xor", n=12), "logistic")
    quotient = arrays["v"] @ obj.hvp(arrays["theta"], arrays["v"]) / (arrays["v"] @ arrays["v"])
    assert quotient == pytest.approx(row["psi_upper"], rel=1e-9) and np.abs(arrays["theta"]).max() <= 0.7
    assert run["state"] == "finished" and run["spec"]["grid"]["width"] == [2, 3] and run["provenance"]["config"]["version"]


def test_a_narrow_neighbour_helps_and_a_small_radius_too(tmp_path: Path) -> None:
    grid = {"data": "xor", "n": 24, "width": 3, "radius": [1.0, 0.5, 2.0]}
    ph.sweep({"compute": {"kind": "search", "starts": 2}, "warm": "radius", "grid": grid}, tmp_path / "run.db", 0)
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        rows = sorted(store.rows(), key=lambda row: row["axes"]["radius"])
    assert [row["start"] for row in rows] == ["cold", "warm", "warm"] and rows[2]["parent"] == rows[1]["key"]
    assert rows[0]["lam_lower"] <= rows[1]["lam_lower"] <= rows[2]["lam_lower"]


def test_extreme_eigenvalues_at_samples(tmp_path: Path) -> None:
    grid = {"data": "xor", "n": 24, "width": 3, "radius": 0.5}
    spec = {"compute": {"kind": "eigvals", "samples": 20}, "grid": grid}
    assert ph.sweep(spec, tmp_path / "run.db", 0).counts["done"] == 1
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        row = store.rows()[0]
        arrays = store.arrays(row["key"])
    obj = ph.Objective(ph.MLP([2, 3, 1]), ph.datasets.load("xor", n=24), "logistic")
    thetas = ph.Box(-0.5, 0.5).sample(20, obj, rng=20261)
    dense = np.array([np.linalg.eigvalsh(obj.hessian(theta).to_dense()) for theta in thetas])
    np.testing.assert_allclose(arrays["eigval_min"], dense[:, 0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(arrays["eigval_max"], dense[:, -1], rtol=1e-5)
    assert row["psi_upper"] == arrays["eigval_min"].min() and row["lam_lower"] == -0.5 * row["psi_upper"]


def test_a_time_limit_that_bites_is_marked(tmp_path: Path) -> None:
    grid = {"data": "digits", "n": 400, "width": 24, "radius": 0.5}
    spec = {"compute": {"kind": "search", "time_limit": 0.3}, "grid": grid}
    ph.sweep(spec, tmp_path / "run.db", 0)
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        row = store.rows()[0]
    assert row["status"] == "done" and row["time_limited"] is True and row["lam_lower"] > 0.0
    assert ph.sweep(spec, tmp_path / "run.db", 0).counts["done"] == 1


def test_a_time_limit_that_bites_branch_and_bound_is_marked(tmp_path: Path) -> None:
    grid = {"data": "xor", "n": 24, "width": 3, "radius": 0.5, "activation": "tanh"}
    spec = {"compute": {"kind": "bracket", "starts": 2, "time_limit": 1.5}, "grid": grid}
    ph.sweep(spec, tmp_path / "run.db", 0)
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        row = store.rows()[0]
    assert row["status"] == "done" and row["time_limited"] is True and row["outcome"] == "bracketed"


def test_batches_shrink_when_little_is_left() -> None:
    queue = WorkQueue(make_plan(SweepSpec.from_dict(chaos_spec(40, pause=0.09))).cells)  # predicted to take 0.1 s each
    sizes = []
    while cells := queue.take(0.5, 1.0, 2):
        sizes.append(len(cells))
    assert sum(sizes) == 40 and sizes[0] == 5 and sizes[-4:] == [1, 1, 1, 1] and sorted(sizes, reverse=True) == sizes


# --- accidents --------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["processes", "spawn pool", "loky"])
def test_a_poison_cell_is_named_and_the_others_are_done(tmp_path: Path, engine: str) -> None:
    spec, path = chaos_spec(seeds=[11, 666, 12, 777], grid={"width": 2}), tmp_path / "run.db"
    executor: Any = 2
    if engine == "spawn pool":
        executor = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    if engine == "loky":
        executor = pytest.importorskip("loky", reason="loky is not installed").get_reusable_executor(max_workers=2)
    result = ph.sweep(spec, path, executor, retries=1)
    assert result.counts == {"done": 2, "failed": 1, "crashed": 1, "pending": 0}
    with Store.open(path, readonly=True) as store:
        for row in store.rows():
            seed = row["axes"]["seed"]
            assert row["status"] == {666: "crashed", 777: "failed"}.get(seed, "done"), row
            if seed == 666:
                assert row["attempts"] == 2 and "alone" in row["error"] and row["error_type"] == "WorkerDied"
            elif seed == 777:
                assert row["error_type"] == "UnpicklableError" and "needed 3" in row["error"] and "chaos_kind" in row["traceback"]
            else:
                assert row["attempts"] == 1
    # Failed cells wait for --retry-failed, crashed ones are tried by every run; finished ones are left alone.
    before = finished(path)
    assert ph.sweep(spec, path, 1, retries=0).counts["crashed"] == 1
    assert finished(path) == before


def test_a_worker_that_dies_once_with_a_cell_and_once_before(tmp_path: Path) -> None:
    spec = chaos_spec(seeds=[11, 888], compute={"folder": str(tmp_path)}, grid={"width": [2]})
    states: list[dict[str, Any]] = []
    assert ph.sweep(spec, tmp_path / "run.db", 2, progress=states.append).counts["done"] == 2
    assert {path.name for path in tmp_path.glob("died*")} == {"died with 2", "died with 16"}
    assert states[0]["compiling"] and not states[-1]["compiling"]
    with Store.open(tmp_path / "run.db", readonly=True) as store:
        assert sorted(row["attempts"] for row in store.rows()) == [1, 2]


def test_children_of_a_failed_parent_run_cold_and_again_when_it_is_mended(tmp_path: Path) -> None:
    spec = chaos_spec(seeds=[777], warm="width", grid={"width": [1, 2]})
    path = tmp_path / "run.db"
    ph.sweep(spec, path, 0)
    with Store.open(path, readonly=True) as store:
        assert [row["start"] for row in store.rows()] == ["cold", "cold, parent failed"]
    good = chaos_spec(seeds=[11], warm="width", grid={"width": [1, 2, 4]})
    other = tmp_path / "other.db"
    ph.sweep(good, other, 0)
    undisturbed = answers(other)
    with Store.open(other) as store:
        rows = store.rows()
        with store.transaction():
            store.put(rows[0]["key"], {"status": "crashed", "error_type": "WorkerDied", "error": "for the test"})
            store.put(rows[1]["key"], {"start": "cold, parent failed", "lam_lower": 0.125})
    ph.sweep(good, other, 0)
    assert answers(other) == undisturbed


def test_a_sweep_of_a_changed_specification_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    ph.sweep(chaos_spec(8), path, 0)
    before = finished(path)
    counts = ph.sweep(chaos_spec(16), path, 0).counts
    after = finished(path)
    assert counts["done"] == 16 and all(after[key] == when for key, when in before.items())


def test_what_is_no_executor_is_refused(tmp_path: Path) -> None:
    spec = chaos_spec(4)
    for bad, error, words in (
        (True, InputTypeError, "executor is True"), (-1, InputError, ">= 0"), ("dask", InputTypeError, "distributed.Client"),
        (ProcessPoolExecutor(1, mp_context=get_context("fork")), InputError, "forks"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            ph.sweep(spec, tmp_path / "run.db", bad)
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    with pytest.raises(PyhessError, match="does not work"):
        ph.sweep(spec, tmp_path / "run.db", closed)


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import pyhess as ph, chaos_kind\nph.sweep({chaos_spec(4)!r}, {str(tmp_path / 'run.db')!r}, 1)\n")
    done = subprocess.run(python(str(script)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0 and "if __name__ == '__main__'" in done.stderr


#: The command line, with the chaos kind.
_CLI = "import chaos_kind; from pyhess.cli import main; main()"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, signal.SIGTERM])
def test_signals_drain_and_save(tmp_path: Path, number: signal.Signals) -> None:
    spec, path = tmp_path / "spec.json", tmp_path / "run.db"
    spec.write_text(json.dumps(chaos_spec(120, pause=0.2)))
    command = python(str(HERE / "chaos_run.py"), "2", str(path), str(spec))
    if number == signal.SIGTERM:
        toml = tmp_path / "run.toml"
        toml.write_text(
            '[compute]\nkind = "chaos"\npause = 0.2\n[grid]\ndata = "xor"\nn = 16\nradius = 0.5\nwidth = [1, 2, 3, 4]\n'
            "seed = { first = 11, count = 30 }\n"
        )
        command = python("-c", _CLI, "sweep", "run", str(toml), "--workers", "2", "-q")
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120.0
    while not finished(path) and time.monotonic() < deadline:
        time.sleep(0.1)
    if number == signal.SIGTERM:  # a second driver is sent away, and disturbs nothing
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 5 and f"process {process.pid}" in second.stderr
    os.killpg(process.pid, number)  # to all of them, as a terminal and Slurm do
    assert process.wait(60) == 128 + number
    done = finished(path)
    assert 0 < len(done) < 120
    with Store.open(path, readonly=True) as store:
        assert store.runs()[-1]["state"] == "interrupted"
        assert store.counts()["failed"] == store.counts()["crashed"] == 0
