"""``pyhess data``: which data sets there are."""

from __future__ import annotations

from dataclasses import asdict

import click

from .common import exit_codes, json_option, print_json, verbose_option


@click.group()
def data() -> None:
    """Data sets that need no download."""


@data.command(name="list")
@json_option
@verbose_option
def list_(as_json: bool, verbose: bool) -> None:
    """List the data sets."""
    with exit_codes(verbose):
        from .. import datasets

        infos = [datasets.info(name) for name in datasets.available()]
        if as_json:
            print_json([asdict(info) for info in infos])
            return
        for info in infos:
            classes = f"{info.num_classes} classes" if info.num_classes else "regression"
            click.echo(f"{info.name:<18} {info.num_samples:>6} x {info.num_features:<4} {classes}")


@data.command()
@click.argument("name")
@json_option
@verbose_option
def show(name: str, as_json: bool, verbose: bool) -> None:
    """Show sizes, scaling, licence and citation of a data set."""
    with exit_codes(verbose):
        from .. import datasets

        content = asdict(datasets.info(name))
        if as_json:
            print_json(content)
            return
        for key, value in content.items():
            click.echo(f"{key.replace('_', ' '):<14} {value}")
