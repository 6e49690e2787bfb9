"""``taylorir data``: list the image sets, check a folder of them, fetch them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from taylorir.cli.output import AsJson, Out, check_out, print_json, write_csv

data_app = typer.Typer(
    help="Image sets: list, card, check, fetch.", no_args_is_help=True, rich_markup_mode=None
)

DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with benchmarks/SET/* and train/SET/*; else the variable TAYLORIR_DATA."),
]


@data_app.command("list")
def data_list(data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """The image sets: how many images, where from, under which licence, and what of them is here."""
    import pandas as pd

    from taylorir.datasets import SAMPLE_SETS, data_root as find_root, read_manifest, set_files

    root, wheels = find_root(data_root), "the wheels of scikit-image and scikit-learn"
    rows = [
        {"set": name, "images": len(members), "here": len(members), "source": wheels, "licence": "their own"}
        for name, members in SAMPLE_SETS.items()
    ] + [
        {
            "set": entry.name,
            "images": entry.images,
            "here": len(set_files(entry, root)) if root else 0,
            "source": entry.source,
            "licence": entry.licence,
        }
        for entry in read_manifest()
    ]
    if as_json:
        print_json(pd.DataFrame(rows))
        return
    for row in rows:
        typer.echo("{set}: {images} images, {here} here, {source}; licence: {licence}".format(**row))


@data_app.command("card")
def data_card(name: Annotated[str, typer.Argument(help="A set, e.g. Set5.")]) -> None:
    """What a set holds, where it comes from, under which licence, and what to beware of."""
    from taylorir.datasets import dataset_card, manifest_entry

    typer.echo(dataset_card(manifest_entry(name)), nl=False)


@data_app.command("check")
def data_check(
    root: Annotated[
        Path | None, typer.Argument(help="Data root; default: the variable TAYLORIR_DATA.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Say which images are canonical, differ or are missing, by the hash of their RGB pixels."""
    from taylorir.datasets import check_root, data_root as find_root

    check_out(out)
    chosen = find_root(root)
    if chosen is None:
        raise ValueError("give a data root, or set TAYLORIR_DATA")
    rows = check_root(chosen, progress=sys.stderr.isatty())
    write_csv(rows, out)
    wrong = False
    for name, group in rows.groupby("set", sort=False):
        counts = group.status.value_counts()
        absent = counts.get("missing", 0) == len(group)
        wrong = wrong or not (absent or set(counts.index) <= {"canonical", "not listed"})
        if as_json:
            continue
        typer.echo(
            f"{name}: "
            + ("missing" if absent else ", ".join(f"{n} {status}" for status, n in counts.items()))
        )
        if not absent:
            for row in group[~group.status.isin(["canonical", "not listed"])].itertuples():
                typer.echo(f"  {row.status}: {row.image}")
    if as_json:
        print_json(rows)
    if wrong:
        raise typer.Exit(1)


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A set, e.g. Set5.")],
    root: Annotated[Path | None, typer.Option("--data-root", help="Data root to put it in.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read the licence and your use is within it.")
    ] = False,
) -> None:
    """Download a set, resuming where a run before stopped, and check every image."""

    from taylorir.datasets import DATA_ROOT_VARIABLE, fetch_set, manifest_entry

    entry = manifest_entry(name)
    chosen = root or os.environ.get(DATA_ROOT_VARIABLE)
    if not chosen:
        raise ValueError(f"give --data-root, or set {DATA_ROOT_VARIABLE}")
    typer.echo(f"{entry.name}: {entry.images} images from {entry.source}; licence: {entry.licence}")
    if not accept_licence:
        raise ValueError("nothing was fetched: read the licence above, then add --accept-licence")
    folder = fetch_set(entry, Path(chosen), progress=sys.stderr.isatty())
    typer.echo(f"{entry.name} is complete in {folder}")
