"""``pyhess threshold``: the bracket for one network, data set and region."""

from __future__ import annotations

import sys
from typing import Any

import click

from .common import INTERRUPTED, DataError, exit_codes, json_option, print_json, verbose_option
from .problem import (
    PENALTIES,
    check_destination,
    check_penalty_options,
    check_region_options,
    make_penalty,
    make_region,
    save_proof,
    save_upper,
)


def _numbers(kind: type, name: str) -> Any:
    def convert(_context: click.Context, _parameter: click.Parameter, value: str | None) -> list[Any] | None:
        if value is None:
            return None
        try:
            return [kind(part) for part in value.split(",")]
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a comma-separated list of {name}.") from None

    return convert


def _choose_loss(loss: str, data: Any, outputs: int) -> str:
    """``auto``: the loss that integer labels and the number of outputs suggest."""
    if loss != "auto":
        return loss
    if data.is_labels and outputs > 1:
        return "cross_entropy"
    labels = {float(value) for value in data.y.reshape(-1)[:1000]} if outputs == 1 else set()
    return "logistic" if data.is_labels and labels <= {0.0, 1.0} else "squared_error"


@click.command()
@click.option("--data", "source", required=True, metavar="NAME|FILE.npz", help="A data set (`pyhess data list`) or arrays X, y.")
@click.option("--widths", required=True, callback=_numbers(int, "integers"), help="d_in,h_1,…,d_out; for example 64,16,10.")
@click.option("--activation", default="tanh", show_default=True, help="One name, or one per hidden layer, separated by commas.")
@click.option("--beta", default="1", callback=_numbers(float, "numbers"), help="Sharpness of softplus, one or per layer.")
@click.option("--bias/--no-bias", default=True, show_default=True, help="Biases in every layer.")
@click.option("--parametrization", type=click.Choice(["standard", "ntk"]), default="standard", show_default=True)
@click.option(
    "--loss", type=click.Choice(["auto", "squared_error", "cross_entropy", "logistic"]), default="auto", show_default=True,
    help="auto: cross_entropy for labels and several outputs, logistic for labels 0/1 and one output, else squared_error.",
)  # fmt: skip
@click.option("--box", type=float, metavar="R", help="Region: every |parameter| <= R.")
@click.option("--ball", type=float, metavar="R", help="Region: Euclidean norm of the parameters <= R.")
@click.option("--box-scaled", type=float, metavar="C", help="Region: every |parameter| of a layer <= C/sqrt(fan-in).")
@click.option("--around", metavar="FILE.npy|npz", help="Centre of the region: theta (P,); by default 0.")
@click.option("--ordered", is_flag=True, help="Only networks whose hidden units are in the order of their biases.")
@click.option(
    "--penalty", type=click.Choice(PENALTIES), default="l2", show_default=True,
    help="l2: lam |theta|²; l2-weights: without biases; shifted: lam |theta - EPS|²; weighted: lam sum w_i theta_i²; "
    "geometric: sum lam^i theta_i².",
)  # fmt: skip
@click.option("--shift", type=float, metavar="EPS", help="For --penalty shifted.")
@click.option("--penalty-weights", metavar="FILE.npy|npz", help="For --penalty weighted: w (P,), all positive.")
@click.option("--n", type=click.IntRange(min=1), help="Use the first N rows.")
@click.option("--standardize/--no-standardize", default=None, help="Scale the data (`pyhess data show` says how).")
@click.option("--seed", type=click.IntRange(min=0), default=20261, show_default=True, help="Seed of the search.")
@click.option("--time-limit", type=float, help="Seconds after which the best so far is printed.")
@click.option("--starts", type=click.IntRange(min=1), help="Number of starts of the search; by default chosen from the cost.")
@click.option(
    "--certificate", default="auto", show_default=True,
    type=click.Choice(
        [
            "auto", "moment", "centre", "comparison", "deif", "blocks", "taylor", "slabs", "units", "boxes", "cells", "full",
            "exact", "none",
        ]
    ),
    help="Method of the upper end.",
)  # fmt: skip
@click.option("--save-witness", metavar="FILE.npz", help="Write what proves the lower end, for `pyhess verify FILE.npz`.")
@click.option("--save-certificate", metavar="FILE.npz", help="Write what proves the upper end, for `pyhess verify FILE.npz`.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads; by default all cores.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@json_option
@verbose_option
def threshold(
    source: str, widths: list[int], activation: str, beta: list[float], bias: bool, parametrization: str, loss: str,
    box: float | None, ball: float | None, box_scaled: float | None, around: str | None, ordered: bool, penalty: str,
    shift: float | None, penalty_weights: str | None, n: int | None, standardize: bool | None, seed: int,
    time_limit: float | None, starts: int | None, certificate: str, save_witness: str | None, save_certificate: str | None,
    threads: int | None, quiet: bool,
    as_json: bool, verbose: bool,
) -> None:  # fmt: skip
    """Bracket the penalty strength lam at which L(theta) + lam |theta|², or another penalty, becomes convex on a region."""
    check_region_options(box, ball, box_scaled)
    check_penalty_options(penalty, shift, penalty_weights)
    with exit_codes(verbose):
        check_destination(save_witness)
        check_destination(save_certificate)
        import numba

        import pyhess as ph

        from .files import load_data
        from .progress import Reporter

        data = load_data(source, n, standardize, seed)
        names = activation.split(",")
        net = ph.MLP(
            widths,
            activation=names[0] if len(names) == 1 else names,
            beta=beta[0] if len(beta) == 1 else beta,
            bias=bias,
            parametrization=parametrization,
        )
        if net.widths[0] != data.num_features:
            raise DataError(f"{source} has {data.num_features} features but --widths starts with {net.widths[0]}.")
        obj = ph.Objective(net, data, loss=_choose_loss(loss, data, net.widths[-1]))
        region = make_region(net, box, ball, box_scaled, around, ordered)
        charged = make_penalty(net, penalty, shift, penalty_weights)
        if threads is not None:
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        with Reporter(quiet, time_limit, in_lam=penalty in ("l2", "shifted")) as progress:
            result = ph.lambda_threshold(
                obj,
                region,
                charged,
                rng=seed,
                time_limit=time_limit,
                starts=starts,
                certificate=None if certificate == "none" else certificate,
                progress=progress,
            )
        if as_json:
            print_json(result.to_dict())
        else:
            click.echo(str(result))
        if save_witness is not None:
            save_proof(result, save_witness)  # last, so that a full disk does not cost the result
        if save_certificate is not None:
            save_upper(result, save_certificate)
    if result.stats["interrupted"]:
        sys.exit(INTERRUPTED)
