"""The command line. Everything after ``--`` goes to Beam unchanged."""

import json
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardwright.errors import DataError, UserError
from shardwright.metadata.credentials import without_credentials
from shardwright.metadata.memory import ENVIRONMENT, parse_limit

app = typer.Typer(
    name="shardwright",
    help="Curated training shards from raw code and image collections.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Folder = Annotated[
    str, typer.Argument(metavar="DIR", help="Output of a curation: a folder, or in a store.")
]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Output = Annotated[
    str, typer.Option(help="Folder for tables, shards and metadata, or its address in a store.")
]
Work = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Local folder in which an output in a store is built."),
]
Input = Annotated[str | None, typer.Option("--input", metavar="URI", help="Replaces source.uri.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Changes the recipe.")
]


@app.command()
def curate(
    context: typer.Context,
    recipe: RecipeFile,
    output: Output,
    source: Input = None,
    overrides: Overrides = None,
    stages: Annotated[
        list[str] | None, typer.Option("--stage", metavar="NAME", help="Runs only these stages.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many inputs.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Redoes what could be reused.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Prints recipe and plan, runs nothing.")
    ] = False,
    publish: Annotated[
        str | None,
        typer.Option("--publish-as", metavar="URL", help="Sets about.publish_as, a repository."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict-metadata", help="Runs only if the recipe's `about` is complete."),
    ] = False,
    openlineage: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Tells OpenLineage of each stage."),
    ] = None,
    work: Work = None,
    prometheus: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="Tells Prometheus what each stage did."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            envvar=ENVIRONMENT,
            help="Most memory of the run's processes here, such as 4GB.",
        ),
    ] = None,
) -> None:
    """Runs a recipe's stages, or the named ones. Beam's options go behind ``--``."""
    from shardwright.pipelines import curate as curation
    from shardwright.pipelines.about import check_metadata
    from shardwright.pipelines.recipe import load_recipe

    published = [] if publish is None else [f"about.publish_as={json.dumps(publish)}"]
    resolved = load_recipe(recipe, [*(overrides or ()), *published], source)
    if strict:
        check_metadata(resolved.about)
    beam_arguments = context.obj or []
    folder, store = _output_places(output, work)
    if dry:
        text = curation.dry_run(
            resolved,
            folder,
            stages=stages or (),
            limit=limit,
            force=force,
            beam_arguments=beam_arguments,
        )
        print(text)
        return
    summary = curation.curate(
        resolved,
        folder,
        stages=stages or (),
        limit=limit,
        force=force,
        beam_arguments=beam_arguments,
        openlineage=openlineage,
        store=store,
        prometheus=prometheus,
        memory=None if memory is None else parse_limit(memory, "--memory-limit"),
    )
    if summary is None:
        return
    console = Console()
    # a line of its own, whole however long: a path is there to be copied
    console.print(Text(f"{resolved.name}: {output}"), soft_wrap=True)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("seen", f"{summary.seen:,}")
    table.add_row("rejected", f"{summary.rejected:,}")
    for reason, count in summary.dropped.items():
        table.add_row(f"dropped: {reason}", f"{count:,}")
    table.add_row("kept", f"{summary.kept:,}")
    table.add_row("shards", f"{summary.shards:,}")
    table.add_row("seconds", f"{summary.seconds:,.1f}")
    console.print(table)


def _output_folder(output: str) -> Path:
    folder, store = _output_places(output, None)
    if store is not None:
        raise UserError(f"--output {output}: name a local folder; only curate writes to a store")
    return folder


def _output_places(output: str, work: Path | None) -> tuple[Path, str | None]:
    """The local folder of an output, and the store that it goes to, if to one."""
    from shardwright.metadata.mirror import is_store, work_folder

    if not output:
        raise UserError("--output is empty; name a folder")
    if is_store(output):
        return work or work_folder(output), output
    if work is not None:
        raise UserError(f"--work {work}: is for an --output in a store; {output} is built in place")
    return Path(output), None


@app.command()
def evaluate(
    context: typer.Context,
    recipe: RecipeFile,
    output: Output,
    source: Input = None,
    overrides: Overrides = None,
) -> None:
    """Curates, and tells how well each method finds damage that is planted into a sample."""
    from shardwright.metadata.layout import Layout
    from shardwright.pipelines.curate import curate as run_all
    from shardwright.pipelines.quality_sections import Evaluate
    from shardwright.pipelines.recipe import load_recipe
    from shardwright.pipelines.verdicts import verdicts

    resolved = load_recipe(recipe, overrides or (), source)
    if resolved.evaluate is None:
        resolved = resolved.model_copy(update={"evaluate": Evaluate()})
    folder = _output_folder(output)
    run_all(resolved, folder, beam_arguments=context.obj or [])
    console = Console()
    console.print(Text(f"{resolved.name}: {output}"), soft_wrap=True)
    for table in verdicts(Layout(folder)):
        console.print(table)


@app.command()
def audit_precision(
    context: typer.Context,
    recipe: RecipeFile,
    output: Output,
    records: Annotated[int, typer.Option(min=40, help="Records of the sample.")] = 500,
    source: Input = None,
    overrides: Overrides = None,
) -> None:
    """Embeds a sample at other precisions, and tells which decisions that turns."""
    from shardwright.pipelines.precision import audit_precision as audit
    from shardwright.pipelines.recipe import load_recipe
    from shardwright.service.precision import shown_audit

    resolved = load_recipe(recipe, overrides or (), source)
    folder = _output_folder(output)
    found = audit(resolved, folder, records=records, beam_arguments=context.obj or [])
    console = Console()
    console.print(Text(f"{resolved.name}: {output}"), soft_wrap=True)
    for part in shown_audit(found):
        console.print(part)


@app.command()
def verify(folder: Folder) -> None:
    """Re-hashes every file, checks the accounting, validates the Croissant."""
    from shardwright.metadata.mirror import at_hand
    from shardwright.metadata.verify import verify as faults_of

    with at_hand(folder) as layout:
        faults = faults_of(layout)
    for fault in faults:
        print(fault)
    if faults:
        raise DataError(f"{folder}: {len(faults)} faults")
    print(f"{folder}: every file, row and count is as the manifests say")


@app.command()
def query(
    folder: Folder,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A query over the tables.")],
    form: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Answers a read-only query with DuckDB over the tables."""
    from shardwright.metadata.mirror import at_hand
    from shardwright.metadata.query import format_result
    from shardwright.metadata.query import query as answer

    if form not in ("table", "csv", "json"):
        raise UserError(f"--format {form}: no such format; choose table, csv or json")
    with at_hand(folder, only_manifests=True) as layout:
        sys.stdout.write(format_result(answer(layout, sql), form))


@app.command()
def explain(
    folder: Folder,
    record: Annotated[str, typer.Argument(metavar="RECORD", help="A record's id or path.")],
) -> None:
    """Tells one record's life: source, scores, decision, nearest kept neighbour, shard."""
    from shardwright.metadata.explain import explain as life_of
    from shardwright.metadata.mirror import at_hand
    from shardwright.service.text import shown

    with at_hand(folder) as layout:
        life = life_of(layout, record)
    for name, value in life.items():
        text = json.dumps(value) if isinstance(value, dict | list) else value
        print(f"{name:<20} {shown(text, 2000)}")


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Output of a curation.")],
    b: Annotated[str, typer.Argument(metavar="B", help="That of another one.")],
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Tells what changed between two curations, why, and what that is for a version."""
    from shardwright.metadata.compare import compare as compared
    from shardwright.metadata.compare import write_json
    from shardwright.metadata.mirror import at_hand
    from shardwright.service.comparison import shown_comparison

    if form not in ("table", "json"):
        raise UserError(f"--format {form}: no such format; choose table or json")
    if form == "json":
        with at_hand(a) as left, at_hand(b) as right:
            write_json(left.root, right.root, sys.stdout)
        return
    console = Console()
    with at_hand(a) as left, at_hand(b) as right:
        for part in shown_comparison(compared(left.root, right.root)):
            console.print(part)


@app.command()
def report(folder: Folder) -> None:
    """Writes ``report/index.html``, one self-contained page."""
    from shardwright.metadata.mirror import at_hand, is_store, put_loose
    from shardwright.service.report import write_report

    with at_hand(folder) as layout:
        page = write_report(layout)
        print(put_loose(folder, layout, page) if is_store(folder) else page)


@app.command()
def serve(
    folders: Annotated[list[str], typer.Argument(metavar="DIR...", help="Outputs of curations.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    sendfile: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="A web server in front sends shards from there."),
    ] = None,
    rate: Annotated[
        int, typer.Option(min=0, help="Requests a minute of one client, on average; 0: any.")
    ] = 1200,
) -> None:
    """Serves pages, an API and shards; addresses that others reach need SHARDWRIGHT_TOKEN."""
    from shardwright.metadata.mirror import at_hand

    try:
        from shardwright.service.app import bound, run
    except ModuleNotFoundError as error:
        raise UserError(f"serve: {error}; pip install 'shardwright[service]'") from None
    from shardwright.service.settings import TOKEN, Limits, Settings, checked_token, named_folders

    token = checked_token(host, os.environ.get(TOKEN) or None)
    with ExitStack() as stack:
        roots = [stack.enter_context(at_hand(folder)).root for folder in folders]
        limits = Limits(requests_a_minute=rate)
        settings = Settings(named_folders(folders, roots), token, limits, sendfile)
        listener = stack.enter_context(bound(host, port))
        run(settings, listener)


@app.command()
def doctor() -> None:
    """Shows versions and devices, and checks the distance kernels against float64."""
    from shardwright.pipelines.doctor import examine

    lines, healthy = examine()
    for line in lines:
        print(line)
    if not healthy:
        raise DataError("a check failed; see the lines that say FAILED")


def main() -> None:
    """Runs the command line; a user's mistake exits 2, failed data exits 1."""
    if sys.platform == "linux":
        # Read when Arrow is imported, in workers too: jemalloc gives pages back, the default holds
        # on to a quarter more.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    arguments = sys.argv[1:]
    beam_arguments: list[str] = []
    if "--" in arguments and arguments[0] in ("curate", "evaluate", "audit-precision"):
        at = arguments.index("--")
        arguments, beam_arguments = arguments[:at], arguments[at + 1 :]
    try:
        app(arguments, obj=beam_arguments)
    except UserError as error:
        print(f"shardwright: {without_credentials(str(error))}", file=sys.stderr)
        sys.exit(2)
    except DataError as error:
        print(f"shardwright: {without_credentials(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("shardwright: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
