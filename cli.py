"""The command line: `python cli.py --help`. Thin: each command is a few calls of the modules that do the work."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import httpx
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from clients import file_import, jobs
from clients import reindex as client_reindex
from clients.catalogue_import import (
    CatalogueError,
    KeyNeeded,
    Loaded,
    ServiceClient,
    load_catalogue,
    open_client,
    read_catalogue,
    wait_until_indexed,
)
from data_models import KEY_SCOPES, ImportMode
from demo.stack import Stopped, demo_stack, stop_on_signals, wait_for_exit
from tuwen.errors import AppError, MilvusFileInUse
from tuwen.settings import PROJECT_ROOT, Settings, load_settings

if TYPE_CHECKING:
    from evaluation.calibration import Labelled
    from evaluation.queries import Query
    from evaluation.run import Run
    from tuwen.database.engine import Database
    from tuwen.indexing.reconciliation import Drift

Item = TypeVar("Item")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys = typer.Typer(no_args_is_help=True, help="API keys: who may call the service, and do what.")
app.add_typer(keys, name="keys")
console = Console(highlight=False)
say = partial(console.print, markup=False, soft_wrap=True)  # as it is, for what is copied from it
error_console = Console(highlight=False, stderr=True, soft_wrap=True)
hint = partial(error_console.print, markup=False)

DEMO_CATALOGUE = PROJECT_ROOT / "demo" / "catalogue.jsonl"
DEMO_VIEWS = PROJECT_ROOT / "evaluation" / "views"
OPENAPI_FILE = PROJECT_ROOT / "docs" / "openapi.json"
TEXT_MODES, PICTURE_MODES = ("text_to_text", "text_to_image", "hybrid"), ("image_to_image", "image_to_text")
COULD_NOT_LOOK = 2
INTERRUPTED = 130
ROWS_FAILED = 3
HELD_BY_THE_API = (
    "A running API reconciles by itself, at its start and every RECONCILE_INTERVAL_S seconds, and GET /metrics says "
    "what it found; to reconcile by hand, stop it first."
)

Percent = Annotated[
    float | None,
    typer.Option(metavar="PERCENT", min=0, max=100, help="With replace_all: how many of all products may go."),
]
ApiUrl = Annotated[str, typer.Option(help="Address of the running service; by default the one of the settings.")]
ApiKeyOption = Annotated[str, typer.Option("--api-key", help="By default API_KEY's, or what API_KEY_FILE has in it.")]
KeyNameOption = Annotated[str, typer.Option("--name", help="Of whom or what uses it: front-end, nightly-feed.")]


@app.command()
def demo(catalogue: Annotated[Path, typer.Option(help="JSON lines to load.")] = DEMO_CATALOGUE) -> None:
    """Start the API and the pages, load the demo catalogue, and run until Ctrl-C."""
    settings = load_settings()
    started = time.monotonic()
    stop_on_signals()
    try:
        console.print("Starting the API and the pages ...")
        with demo_stack(settings, console.print) as processes, _service_client() as client:
            try:
                loaded = _load_with_progress(client, catalogue)
                say(f"\n{loaded.created} products loaded, {loaded.present} were there;", end=" ")
            except KeyNeeded as error:
                say(f"\nThe catalogue is not all loaded: {error.detail}")
                say("The next start with a key of the scopes search and write in API_KEY loads the rest; now", end=" ")
            _print_welcome(settings, time.monotonic() - started)
            wait_for_exit(processes)
            console.print(f"One of the two ended by itself; its log is in {settings.data_dir / 'logs'}. Stopping.")
            raise typer.Exit(1)
    except Stopped:
        console.print("\nStopped.")


@app.command("import")
def import_catalogue(
    file: Annotated[
        Path | None,
        typer.Argument(help="CSV, XLSX, JSON lines, or a ZIP of one of them; pictures in the ZIP or beside the file."),
    ] = None,
    mode: Annotated[
        ImportMode,
        typer.Option(
            help="create leaves products whose sku is there; upsert changes them; replace_all deletes others, too."
        ),
    ] = "create",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; count what would be.")] = False,
    allow_deletes: Percent = None,
    mask_personal_data: Annotated[
        bool, typer.Option("--mask-personal-data", help="Phone and ID numbers and mail addresses become asterisks.")
    ] = False,
    follow: Annotated[int | None, typer.Option(metavar="JOB", min=1, help="Follow this job.")] = None,
    cancel: Annotated[int | None, typer.Option(metavar="JOB", min=1, help="Give up this job.")] = None,
    api_url: ApiUrl = "",
    api_key: ApiKeyOption = "",
) -> None:
    """Import a file of products, and its pictures. Ctrl-C ends this command, not the import.

    Exit status: 0 where every row is in; 3 where some are not, which are written beside the file, with their reasons.
    """
    if sum(each is not None for each in (file, follow, cancel)) != 1:
        raise typer.BadParameter("Name a file, or use --follow JOB or --cancel JOB.")
    with _service_client(api_url, api_key) as client:
        if cancel:
            say(file_import.cancel(client, cancel))
            return
        if file is not None:
            options = {"mask_personal_data": mask_personal_data, "dry_run": dry_run}
            with _progress("Uploading bytes", None) as advance:
                job = file_import.begin_import(
                    client, file, mode, advance, allow_deletes_percent=allow_deletes, **options
                )
        else:
            job = file_import.read_job(client, follow or 0)
        _follow_import(client, job, file or Path(Path(job["file_name"]).name))


@app.command()
def evaluate(
    queries: Annotated[
        Path | None,
        typer.Argument(
            help="JSON lines of ours; NAME_texts.jsonl in Chinese-CLIP's layout (MUGE, Flickr30k-CN); a folder of "
            "queries, corpus and qrels (EcomRetrieval). Without: every product of the catalogue, by A1 to A4."
        ),
    ] = None,
    mode: Annotated[str, typer.Option(help="Of all queries, in place of what the file says or is usual.")] = "",
    search: Annotated[str, typer.Option(metavar="JSON", help="Further fields of every search.")] = "{}",
    exact: Annotated[
        bool, typer.Option("--exact", help="Without the index's own losses. Needs the scope admin.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Keep the run there, for compare-runs.")] = None,
    chart: Annotated[Path | None, typer.Option(help="PNG. Needs matplotlib.")] = None,
    write_catalogue: Annotated[
        Path | None, typer.Option(help="Search nothing; write a data set's products there, a ZIP for 'import'.")
    ] = None,
    catalogue: Path = DEMO_CATALOGUE,
    views: Annotated[Path, typer.Option(help="Query pictures <sku>_<n>.webp, never indexed.")] = DEMO_VIEWS,
    sample: Annotated[int, typer.Option(help="Only so many queries or products, evenly spread; 0 for all.")] = 0,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Below which nothing fits.")] = 0.15,
    api_url: ApiUrl = "",
    api_key: ApiKeyOption = "",
) -> None:
    """Ask a running service, and say how well it finds, and how well it tells that nothing fits."""
    from evaluation import run  # noqa: PLC0415

    if write_catalogue is not None:
        _write_catalogue(queries, mode, write_catalogue)
        return
    fields = run.search_fields(search) | ({"exact": True} if exact else {})
    asked = _queries_to_ask(queries, mode, catalogue, views, sample)
    with _service_client(api_url, api_key) as client, _progress("Searching", len(asked)) as advance:
        found = run.run_queries(client, asked, fields, advance)
    _show_run(found, min_score, out, chart)


def _show_run(found: "Run", min_score: float, out: Path | None, chart: Path | None) -> None:
    from evaluation import charts, no_match, report, run  # noqa: PLC0415
    from evaluation.measures import summarise  # noqa: PLC0415

    console.print(report.run_table(summarise(found.results)))
    if separations := no_match.separations(found.results, min_score):
        console.print(report.separation_table(separations, min_score))
    if out is not None:
        run.save_run(found, out)
    if chart is not None:
        charts.draw({"": summarise(found.results)}, chart)


def _write_catalogue(source: Path | None, mode: str, archive: Path) -> None:
    from evaluation.datasets import write_catalogue  # noqa: PLC0415

    if source is None:
        raise typer.BadParameter("needs a data set", param_hint="--write-catalogue")
    say(f"{archive}: {write_catalogue(source, mode, archive)} products.")


def _queries_to_ask(source: Path | None, mode: str, catalogue: Path, views: Path, sample: int) -> "list[Query]":
    from evaluation import catalogue_queries, datasets  # noqa: PLC0415

    if source is not None:
        return _evenly(datasets.read_queries(source, mode), sample)
    items = read_catalogue(catalogue)
    return catalogue_queries.queries_of(_evenly(items, sample), items, views)


def _evenly(items: list[Item], sample: int) -> list[Item]:
    return items[:: max(1, len(items) // sample)][:sample] if sample else items


@app.command()
def calibrate(
    queries: Annotated[
        list[Path] | None,
        typer.Option(help="A query file, as 'evaluate' takes them; again for each. Without: made of the catalogue."),
    ] = None,
    mode: Annotated[list[str] | None, typer.Option(help="Again for each; by default all that queries can ask.")] = None,
    sample: Annotated[int, typer.Option(min=20, help="Without query files: ask for so many products.")] = 400,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Fit and say how good it is; keep nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="What was fitted, as JSON.")] = None,
    api_url: ApiUrl = "",
    api_key: ApiKeyOption = "",
) -> None:
    """Fit by how much a hit's signals make it likely what was asked for, so that searches can say that nothing fits.

    Needs the scope admin. Fitted for the models that answer: after a change of them, again.
    """
    from evaluation import calibration  # noqa: PLC0415

    with _service_client(api_url, api_key) as client:
        found = []
        for each in mode or (TEXT_MODES if queries else (*TEXT_MODES, *PICTURE_MODES)):
            asked = _searches_to_fit_on(client, queries or [], each, sample)
            with _progress(each, len(asked)) as advance:
                found.append(calibration.calibrate(client, each, asked, advance))
        console.print(calibration.table(found))
        if out is not None:
            calibration.save(client, found, out)
        for fitted in [] if dry_run else found:
            calibration.store(client, fitted)
    say("Nothing is kept." if dry_run else "Kept with the index; every process has it within two seconds.")


def _searches_to_fit_on(client: httpx.Client, files: list[Path], mode: str, sample: int) -> "list[Labelled]":
    from evaluation import calibration, datasets  # noqa: PLC0415

    if files:
        return calibration.labelled([query for file in files for query in datasets.read_queries(file, mode)])
    return calibration.made_of_catalogue(client, mode, sample, calibration.what_no_shop_sells())


@app.command()
def compare_runs(
    before: Annotated[Path, typer.Argument(help="What 'evaluate --out' wrote.")],
    after: Annotated[Path, typer.Argument(help="The same queries, asked again.")],
    out: Annotated[Path | None, typer.Option(help="The table as JSON.")] = None,
    chart: Annotated[Path | None, typer.Option(help="PNG. Needs matplotlib.")] = None,
) -> None:
    """Say whether one run is better than another, query by query, or whether that is chance."""
    from evaluation import charts, report, run  # noqa: PLC0415
    from evaluation.measures import compare, summarise  # noqa: PLC0415

    runs = {file.stem: run.read_run(file).results for file in (before, after)}
    if len(runs) == 1:
        raise typer.BadParameter("have the same name; rename one", param_hint="The two runs")
    differences = compare(*runs.values())
    console.print(report.comparison_table(differences))
    if out is not None:
        report.save(differences, out)
    if chart is not None:
        charts.draw({name: summarise(results) for name, results in runs.items()}, chart)


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from tuwen.database.start import open_database  # noqa: PLC0415  # other commands need no database

    open_database(load_settings().model_copy(update={"auto_migrate": True})).close()
    console.print("The database schema is current.")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="Where to. One that has a backup gets what is new.")],
) -> None:
    """Copy the embedded default's database and pictures, while it runs."""
    from tuwen.database.backup import back_up  # noqa: PLC0415  # other commands need no database

    copied = back_up(load_settings(), folder)
    console.print(f"{folder} has {copied.products} products; {copied.pictures} files of pictures were new.")


@app.command()
def reconcile(
    passes: Annotated[int, typer.Option(min=1, help="How often to look.")] = 1,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is found; without it nothing is changed.")
    ] = False,
    delete_many: Annotated[
        bool, typer.Option("--delete-many", help="With --repair: believe many unused or missing pictures, too.")
    ] = False,
) -> None:
    """Say where the database, Milvus and the picture store disagree. Workers look and mend by themselves.

    Exit status: 0 where nothing disagrees, or all that did is mended; 1 where something is left; 2 where it could not
    be looked.
    """
    if delete_many and not repair:
        raise typer.BadParameter("it goes with --repair", param_hint="--delete-many")
    from tuwen.background import LeaseLost  # noqa: PLC0415  # other commands need no stores

    settings = load_settings().model_copy(update={"auto_migrate": False})
    try:
        for findings in _reconcile(settings, passes, repair=repair, delete_many=delete_many):
            console.print(_drift_table(findings))
    except LeaseLost:
        error_console.print("Another process reconciles at this moment, and mends what there is: try again later.")
        raise typer.Exit(COULD_NOT_LOOK) from None
    except AppError as error:
        held = isinstance(error, MilvusFileInUse)
        error_console.print(f"{error.detail} {HELD_BY_THE_API}" if held else error.detail)
        raise typer.Exit(COULD_NOT_LOOK) from None
    if any(drift.found > drift.mended or drift.failed for drift in findings.values()):
        raise typer.Exit(1)


def _reconcile(settings: Settings, passes: int, *, repair: bool, delete_many: bool) -> "Iterator[dict[str, Drift]]":
    """What each pass finds. Raises AppError, or LeaseLost where another process is at it."""
    from tuwen.assembly import new_reconciler, open_stores  # noqa: PLC0415
    from tuwen.background import LeaseLost  # noqa: PLC0415
    from tuwen.database.start import require_installation  # noqa: PLC0415
    from tuwen.vectors.registry import require_live_index  # noqa: PLC0415

    require_installation(settings)
    with open_stores(settings) as stores:
        index = partial(require_live_index, stores.database, stores.vector_db)
        reconciler = new_reconciler(stores, index, may_delete_many=delete_many)
        for _ in range(passes):
            findings = reconciler.reconcile() if repair else reconciler.look()
            if findings is None:
                raise LeaseLost
            yield findings


def _drift_table(findings: "Mapping[str, Drift]") -> Table:
    table = Table("kind", "found", "mended", Column("for example", overflow="fold"))
    for name, drift in findings.items():
        found = f"{drift.found}, and then it failed: see the log" if drift.failed else str(drift.found)
        table.add_row(name.replace("_", " "), found, str(drift.mended), "\n".join(map(str, drift.sample)))
    return table


@app.command()
def retry_failed(
    reason_contains: Annotated[str, typer.Option(help="Only products whose `index_error` has this in it.")] = "",
) -> None:
    """Have products that failed indexed again, once the reason is mended. Safe beside running services, which do it."""
    from tuwen.database.engine import Database  # noqa: PLC0415  # other commands need no database
    from tuwen.database.start import require_installation  # noqa: PLC0415
    from tuwen.indexing.retry import retry_failed as retry  # noqa: PLC0415

    settings = load_settings()
    require_installation(settings)
    database = Database(settings.database_dsn, settings.database_timeout_s)
    database.require_current_schema()
    queued = sum(retry(database, settings.kafka_topic, reason_contains))
    database.close()
    console.print(f"{queued} products that failed are queued to be indexed again.")


@app.command()
def reindex(
    context: typer.Context,
    clip_model: Annotated[str, typer.Option(help="As CLIP_MODEL; every process must find it under this name.")] = "",
    text_model: Annotated[str, typer.Option(help="As TEXT_MODEL.")] = "",
    queries: Annotated[Path | None, typer.Option(help="JSON lines: text, mode, sku or product_id.")] = None,
    margin: Annotated[float, typer.Option(help="By how much recall at 10 over the queries may fall.")] = 0.02,
    switch: Annotated[bool, typer.Option("--switch/--no-switch", help="Use the new index once it passed.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Switch whatever the check says.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the index before. Safe to repeat.")] = False,
    to: Annotated[str | None, typer.Option(help="With --rollback: this collection, to go the other way, too.")] = None,
    drop_retired: Annotated[
        bool, typer.Option("--drop-retired", help="Drop the index before, and given up ones.")
    ] = False,
    cancel: Annotated[int | None, typer.Option(metavar="JOB", min=1, help="Give up this job, and its index.")] = None,
    api_url: ApiUrl = "",
    api_key: ApiKeyOption = "",
) -> None:
    """Change the models of a running service without an outage. Ctrl-C ends this command, not the change."""
    sources = {name: context.get_parameter_source(name) for name in context.params if not name.startswith("api_")}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    if contradiction := client_reindex.contradiction_in(given):
        raise typer.BadParameter(contradiction)
    with _service_client(api_url, api_key) as client:
        if rollback:
            say(client_reindex.roll_back(client, to))
        elif drop_retired:
            say(client_reindex.drop_retired(client))
        elif cancel:
            say(client_reindex.cancel(client, cancel))
        else:
            request = {
                "clip_model": client_reindex.model_name(clip_model),
                "text_model": client_reindex.model_name(text_model),
                "queries": client_reindex.read_queries(queries) if queries else [],
                "margin": margin,
                "switch": switch,
                "force": force,
            }
            _follow_reindex(client, request)


@keys.command("create")
def create_key(
    name: KeyNameOption,
    scope: Annotated[list[str], typer.Option(help=f"Again for each: {', '.join(KEY_SCOPES)}. None has another in it.")],
    expires: Annotated[str, typer.Option(help="A date, as 2027-01-01 (UTC), or days, as 90d; by default never.")] = "",
    shop: Annotated[str, typer.Option(help="Of which alone it sees and changes anything; by default of all.")] = "",
    file: Annotated[
        Path | None,
        typer.Option(
            help="Write the key there instead of showing it. A good key of this name, or a revoked one, stays."
        ),
    ] = None,
    limit: Annotated[
        str, typer.Option(help="Its own RATE_LIMITS: search=100/second, generate=50/day; by default the settings'.")
    ] = "",
) -> None:
    """Make an API key, and show it this once. From the first key on, whoever calls the service needs one.

    Before the first start of a service it makes the database, too, and says so.
    """
    from tuwen.access.key_file import keep_key_in_file  # noqa: PLC0415
    from tuwen.access.keys import create_key as create  # noqa: PLC0415  # other commands need no database
    from tuwen.access.keys import new_key  # noqa: PLC0415

    wanted = new_key(name, scope, expires, limit, shop)
    with _database(may_be_new=True) as database:
        if file is not None:
            keep_key_in_file(database, wanted, file)
            return
        with database.write() as session:
            created = create(session, wanted)
    of_shop = f" of the shop {created.shop_id}" if created.shop_id else ""
    hint(f"The API key {created.name!r} ({', '.join(created.scopes)}){of_shop}, shown this once:")
    say(created.key)


@keys.command("list")
def list_keys() -> None:
    """All API keys, with those that ended. The keys themselves are kept nowhere."""
    from tuwen.access.keys import list_keys as listed  # noqa: PLC0415

    folded = [Column(name, overflow="fold") for name in ("name", "scopes", "shop", "limits")]
    moments = [Column(name, no_wrap=True) for name in ("created", "expires", "revoked", "last use")]
    table = Table(*folded[:3], *moments, folded[3], padding=0)
    with _database() as database, database.read() as session:
        for key in listed(session):
            times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
            shown = (f"{each:%Y-%m-%d\n%H:%M}" if each else "" for each in times)
            cells = key.name, ", ".join(key.scopes), key.shop_id or "", *shown, key.rate_limits or ""
            table.add_row(*(Text(cell) for cell in cells))  # no cell is markup
    console.print(table)


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Every process refuses it within five seconds."""
    from tuwen.access.keys import revoke_key as revoke  # noqa: PLC0415

    with _database() as database, database.write() as session:
        revoke(session, name)
    say(f"The API key {name!r} is revoked.")


@contextmanager
def _database(*, may_be_new: bool = False) -> "Iterator[Database]":
    """That of the settings, said on stderr: a key in another is good for nothing. Safe beside running services."""
    from tuwen.database.start import has_installation, open_database, place_of, require_installation  # noqa: PLC0415

    settings = load_settings()
    is_new = may_be_new and not has_installation(settings)
    if not is_new:
        require_installation(settings)
        settings = settings.model_copy(update={"auto_migrate": False})
    database = open_database(settings)
    hint(f"{'A new database' if is_new else 'Database'}: {place_of(settings)}")
    try:
        yield database
    finally:
        database.close()


def _service_client(api_url: str = "", api_key: str = "") -> ServiceClient:
    settings = load_settings()
    try:
        return open_client(api_url or settings.api_address, settings.key_to_send(api_key))
    except ValueError as error:
        raise CatalogueError(str(error)) from error


@app.command()
def openapi() -> None:
    """Write docs/openapi.json."""
    from main import app as api  # noqa: PLC0415  # loads everything that the service needs

    document = json.dumps(api.openapi(), ensure_ascii=False, indent=2, sort_keys=True)
    OPENAPI_FILE.write_text(document + "\n", encoding="utf-8")
    console.print(f"Wrote {OPENAPI_FILE.relative_to(PROJECT_ROOT)}.")


def _load_with_progress(client: httpx.Client, file: Path) -> Loaded:
    items = read_catalogue(file)
    with _progress("Uploading", len(items)) as advance:
        loaded = load_catalogue(client, items, advance)
    with _progress("Indexing ", len(items)) as advance:
        wait_until_indexed(client, advance)
    return loaded


def _follow_import(client: httpx.Client, job: dict[str, Any], file: Path) -> None:
    say(f"Job {job['job_id']}: {str(client.base_url).rstrip('/')}{job['status_url']}")
    try:
        with _progress("waiting", None) as advance:
            job = jobs.follow(
                client,
                job,
                lambda job: advance(**file_import.progress_of(job)),
                say,
                f"'cli.py import --follow {job['job_id']}' follows it",
            )
        say(file_import.summary_of(job))  # at once: the index may take long, or the service end meanwhile
        errors = file_import.save_errors(client, job, file)
        if errors is not None:
            say(f"{errors} has the rows that are not in, each with its reason, and warnings of others.")
        with _progress("Indexed", None) as advance:
            wait_until_indexed(client, advance)
    except KeyboardInterrupt:
        say(f"\n{file_import.ways_back(job)}")
        raise typer.Exit(INTERRUPTED) from None
    if job["status"] != "done":
        raise CatalogueError(f"Job {job['job_id']} {job['status']}: {job['error'] or ''}")
    if job["failed"]:
        raise typer.Exit(ROWS_FAILED)


def _follow_reindex(client: httpx.Client, request: dict[str, Any]) -> None:
    job = client_reindex.begin(client, request)
    where = str(client.base_url).rstrip("/") + job["status_url"]
    say(f"Job {job['job_id']}: {where}")
    try:
        with _progress("waiting", None) as advance:
            job = jobs.follow(client, job, lambda job: advance(**client_reindex.progress_of(job)), say)
    except KeyboardInterrupt:
        say(f"\n{client_reindex.ways_back(job, where)}")
        raise typer.Exit(INTERRUPTED) from None
    for line in client_reindex.findings_of(job):
        say(line)
    say(client_reindex.outcome_of(job))


@contextmanager
def _progress(label: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A progress bar; yields the function that says how many are done, and what else has changed."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(label, total=total)
        yield lambda completed, **changes: progress.update(task, completed=completed, **changes)


def _print_welcome(settings: Settings, seconds: float) -> None:
    console.print(f"ready after {seconds:.0f} s.")
    if settings.uses_demo_models:
        console.print("The small built-in demo models answer; README.md says how to switch to production models.")
    console.print(f"  Pages: http://127.0.0.1:{settings.web_port}")
    console.print(f"  API:   {settings.api_address}/docs")
    console.print("Ctrl-C stops both.")


if __name__ == "__main__":
    try:
        app()
    except AppError as error:
        sys.exit(error.detail)
