"""The service put together, and run until it is told to stop."""

import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from threadpoolctl import threadpool_limits

import shardwright
from shardwright.errors import DataError, UserError
from shardwright.service import api, data, models, pages
from shardwright.service.guard import Guard
from shardwright.service.library import Library
from shardwright.service.rendering import STATIC
from shardwright.service.settings import Settings
from shardwright.service.sql import QueryPool
from shardwright.service.watch import Watch

_STOP_SECONDS = 30


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application.

    Raises:
        UserError: A folder holds no curation.
    """
    library = Library(settings.folders)
    queries = QueryPool(settings.limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        queries.close()
        library.close()

    app = FastAPI(
        title="Shardwright",
        version=shardwright.__version__,
        description="Curated data sets: what they are, their records, searches, and shards.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.library, app.state.queries, app.state.settings = library, queries, settings
    watch = Watch()
    app.include_router(api.router)
    app.include_router(data.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/health")
    def health() -> models.Health:
        """Says that the service answers."""
        return models.Health(curations=len(library.names))

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Requests and seconds by route, for Prometheus."""
        return Response(watch.text(), media_type=watch.media_type)

    app.add_exception_handler(UserError, _wrong)
    app.add_exception_handler(DataError, _damaged)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(watch.middleware)
    return app


async def _wrong(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


async def _damaged(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 500)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens.

    Raises:
        UserError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(
            f"{host}:{port}: cannot be listened on ({error.strerror or error}); choose another "
            "--host or --port"
        ) from None
    with listener:
        # Connections inherit it. asyncio itself sets it for sockets that name their protocol only;
        # without it each answer waits 40 ms for the client's acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def run(settings: Settings, listener: socket.socket) -> None:
    """Answers requests until SIGINT or SIGTERM; requests under way are finished first."""
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    host, port = listener.getsockname()[:2]
    where = f"[{host}]" if ":" in host else host
    names = ", ".join(settings.folders)
    print(f"http://{where}:{port} serves {names}; Ctrl-C ends it", file=sys.stderr, flush=True)
    # Its threads would wait busily for the next product while those of a search need the cores.
    threadpool_limits(1, user_api="blas")
    with suppress(KeyboardInterrupt):  # which uvicorn raises again when all is done
        uvicorn.Server(config).run([listener])
