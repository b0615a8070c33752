"""``pyhess doctor``: what this installation consists of."""

from __future__ import annotations

import click

from .common import exit_codes, json_option, print_json, verbose_option


@click.command()
@json_option
@verbose_option
def doctor(as_json: bool, verbose: bool) -> None:
    """Print versions, instruction set, BLAS and threads, for a bug report or beside a benchmark."""
    with exit_codes(verbose):
        import pyhess as ph

        config = ph.show_config()
        if as_json:
            print_json(config)
            return
        blas = config["blas"]
        rows = [
            ("pyhess", config["version"]),
            ("python", f"{config['python']} on {config['platform']}"),
            *((name, version or "not installed") for name, version in config["packages"].items()),
            ("compiler", config["compiler"]),
            ("instruction set", f"{config['isa']} (available: {', '.join(config['isa_available'])}; PYHESS_ISA overrides)"),
            ("BLAS", f"{blas['source']}, {8 * blas['int_bytes']}-bit integers"),
            *(
                ("  library", f"{lib['internal_api']} {lib['version']}, {lib['architecture']}, {lib['num_threads']} threads")
                for lib in blas["libraries"]
            ),
            ("threads", f"{config['threads']} (BLAS is held at one thread inside pyhess)"),
            ("threading layer", config["threading_layer"] or "chosen at the first parallel call"),
        ]
        for name, text in rows:
            click.echo(f"{name:<16} {text}")
