"""The columns of a cell, in groups: what was asked, what came out, what it took."""

from __future__ import annotations

#: What makes the cell; ``axes`` is a dictionary. ``parent`` is the key of the cell whose witness its search starts from.
QUESTION = ("key", "kind", "axes", "parent")
#: What was found: the same for every engine, number of workers and schedule. ``certificate`` is a list of dictionaries, one per
#: method; ``extra`` a dictionary of what the kind of work found besides; ``start`` is "cold", "warm" or "cold, parent failed".
ANSWER = (
    "status", "lam_lower", "lam_upper", "psi_upper", "psi_lower", "outcome", "scope", "method", "certificate", "best_family",
    "extra", "start", "time_limited", "num_params", "num_samples", "num_starts", "num_jets", "num_matvecs", "error_type", "error",
)  # fmt: skip
#: What depends on the machine and the moment; ``timing`` is a dictionary of seconds per stage and method.
MEASURED = (
    "traceback", "seconds", "cpu_seconds", "predicted_seconds", "predicted_bytes", "peak_bytes", "attempts", "threads", "host",
    "finished", "run_id", "timing",
)  # fmt: skip
COLUMNS = (*QUESTION, *ANSWER, *MEASURED)
#: Columns kept as JSON text.
JSON = frozenset(("axes", "work", "certificate", "extra", "timing"))

#: Statuses of a cell: `FAILED` ended in an error, `CRASHED` ended its worker again and again.
PENDING, DONE, FAILED, CRASHED = "pending", "done", "failed", "crashed"
STATUSES = (DONE, FAILED, CRASHED, PENDING)
