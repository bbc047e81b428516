"""The web application and its routes. The interface is described in ``docs/clinic.md``."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.outlining import Outliner
from monai_fedlora.clinic.threads import torch_threads
from monai_fedlora.serve.card import describe_models
from monai_fedlora.serve.feedback_store import keep_feedback
from monai_fedlora.serve.kinds import make_study
from monai_fedlora.serve.names import stored_suffix, typed_name
from monai_fedlora.serve.offers import describe, describe_session, download
from monai_fedlora.serve.pace import Pace, in_time
from monai_fedlora.serve.pages import INDEX, KINDS, VIEWER, find_pages
from monai_fedlora.serve.refusal import BAD_REQUEST, DISK_FULL, NOT_FOUND, TIMED_OUT, Refused
from monai_fedlora.serve.security import Guard, page_key, session_of, set_session_cookie, upload_id
from monai_fedlora.serve.sessions import Session, Sessions
from monai_fedlora.serve.settings import ServeSettings
from monai_fedlora.serve.storage import Storage
from monai_fedlora.serve.uploads import check_length, read_json, receive
from monai_fedlora.serve.worker import Worker
from monai_fedlora.studies.study import CINE

_LONGEST_SWEEP = 60.0


def create_app(
    classifier: Classifier | Measurer | None, *, settings: ServeSettings, outliner: Outliner | None = None
) -> FastAPI:
    """Make the server of a model.

    While it runs, it owns a private folder, which is removed at the end, and the thread that classifies.

    Args:
        classifier: from :func:`monai_fedlora.clinic.measuring.open_model`; None for outlines alone.
        settings: address and limits.
        outliner: the model of the outlines; None for a class alone.

    Raises:
        ConfigError: ``MONAI_FEDLORA_THREADS`` is no number, or the bundle changed since it was opened.
    """
    model, pages, threads = describe_models(classifier, outliner), find_pages(), torch_threads()
    modality = CINE if classifier is None else classifier.modality
    model |= {"max_upload_bytes": settings.max_upload_bytes, "viewer": VIEWER in pages}
    model |= {"keeps_feedback": settings.feedback is not None}

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Storage() as storage:
            sessions = app.state.sessions = Sessions(storage.root, settings=settings)
            worker = app.state.worker = Worker(classifier, outliner=outliner, threads=threads)
            worker.start()
            sweeper = asyncio.create_task(_sweep(sessions, settings))
            try:
                yield
            finally:
                sweeper.cancel()
                await run_in_threadpool(sessions.remove_all)
                await run_in_threadpool(worker.stop)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, settings=settings)
    app.add_exception_handler(Refused, _say_refused)
    app.add_exception_handler(HTTPException, _say_http)

    def sessions_of(request: Request) -> Sessions:
        return request.app.state.sessions

    def find_session(request: Request, *, is_used: bool = True) -> Session:
        identity, key = session_of(request.cookies, settings), page_key(request.headers)
        return sessions_of(request).find(identity, key, is_used=is_used)

    def answer(request: Request, session: Session, content: dict, status: int = 200) -> Response:
        response = JSONResponse(content, status_code=status)
        if session.id != session_of(request.cookies, settings):  # requests for images and files have the cookie alone
            set_session_cookie(response, settings, session.id)
        return response

    @app.get("/")
    async def index(request: Request) -> Response:
        response = _page(pages, INDEX)
        if not sessions_of(request).is_issued(session_of(request.cookies, settings)):
            set_session_cookie(response, settings, sessions_of(request).issue())
        return response

    @app.get("/static/{name:path}")
    async def static(name: str) -> Response:
        return _page(pages, name)

    @app.get("/api/model")
    async def get_model() -> Response:
        return JSONResponse(model)

    @app.post("/api/studies")
    async def post_study(request: Request) -> Response:
        limit = settings.max_upload_bytes
        check_length(request.headers.get("content-length"), limit)
        try:
            key = page_key(request.headers)
            upload, identity = upload_id(request.headers), session_of(request.cookies, settings)
            with sessions_of(request).arrival(identity, key, upload) as (session, study):
                received = await receive(
                    in_time(request.stream(), study.pace),
                    content_type=request.headers.get("content-type", ""),
                    folder=study.upload,
                    suffix=partial(stored_suffix, modality=modality),
                    limit=limit,
                    take=study.sent.take,
                )
                source, files = await run_in_threadpool(
                    make_study,
                    received,
                    modality=modality,
                    folder=study.upload,
                    limit=limit,
                    share=study.sent,
                )
                study.fill(source, files)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise Refused(DISK_FULL, "this machine's disk is full; remove studies, or make room") from error
        request.app.state.worker.put(session, study)
        response = JSONResponse(describe(study), status_code=202)
        set_session_cookie(response, settings, session.id)
        return response

    @app.get("/api/studies/{identity}")
    async def get_study(request: Request, identity: str) -> Response:
        session = find_session(request)
        return answer(request, session, describe(session.study(identity)))

    @app.put("/api/studies/{identity}/name")
    async def put_name(request: Request, identity: str) -> Response:
        content = await read_json(in_time(request.stream(), Pace(settings)))
        name = typed_name(str(content.get("name", "")))
        session = find_session(request)
        return answer(request, session, describe(sessions_of(request).rename(session, identity, name)))

    @app.post("/api/studies/{identity}/feedback")
    async def post_feedback(request: Request, identity: str) -> Response:
        content = await read_json(in_time(request.stream(), Pace(settings)))
        session = find_session(request)
        study = session.study(identity)
        await run_in_threadpool(keep_feedback, study, content, folder=settings.feedback)
        return answer(request, session, describe(study))

    @app.put("/api/studies/{identity}/frames")
    async def put_frames(request: Request, identity: str) -> Response:
        content = await read_json(in_time(request.stream(), Pace(settings)))
        session = find_session(request)
        study = sessions_of(request).choose_frames(session, identity, *frame_numbers(content), keep="volume")
        request.app.state.worker.put(session, study)
        return answer(request, session, describe(study), status=202)

    @app.get("/api/studies/{identity}/{name}")
    async def get_file(request: Request, identity: str, name: str) -> Response:
        study = find_session(request).study(identity)
        kinds = {path.name: kind for kind, path in study.offered.items()}
        if name not in kinds:
            raise Refused(NOT_FOUND, f"this study has no {name[:40]!r}; look again when it is done")
        return await run_in_threadpool(download, study, kinds[name])

    @app.delete("/api/studies/{identity}")
    async def delete_study(request: Request, identity: str) -> Response:
        await run_in_threadpool(sessions_of(request).remove_study, find_session(request), identity)
        return Response(status_code=204)

    @app.get("/api/session")
    async def get_session(request: Request) -> Response:
        try:
            session = find_session(request, is_used="used" in request.query_params)
        except Refused as error:
            if error.status != NOT_FOUND:
                raise
            return JSONResponse(describe_session(None, seconds_left=0))  # a browser that sent nothing, or all expired
        left = sessions_of(request).seconds_left(session)
        return answer(request, session, describe_session(session, seconds_left=left))

    @app.delete("/api/session")
    async def delete_session(request: Request) -> Response:
        with contextlib.suppress(Refused):  # a browser that never sent anything
            await run_in_threadpool(sessions_of(request).remove, find_session(request))
        return Response(status_code=204)

    return app


def frame_numbers(content: Mapping[str, Any]) -> tuple[int, int]:
    """The frame numbers of ED and ES, from 0, in the JSON of a request.

    Raises:
        Refused: they are no whole numbers.
    """
    ed, es = content.get("ed"), content.get("es")
    if type(ed) is not int or type(es) is not int:
        raise Refused(BAD_REQUEST, "frames are two whole numbers, ed and es, counted from 0; use the page")
    return ed, es


async def _sweep(sessions: Sessions, settings: ServeSettings) -> None:
    """Remove idle sessions periodically."""
    while True:
        await asyncio.sleep(min(_LONGEST_SWEEP, 15 * settings.idle_minutes))
        await run_in_threadpool(sessions.remove_idle)


def _page(pages: dict[str, Path], name: str) -> Response:
    if name not in pages:
        raise Refused(NOT_FOUND, "there is no such page; open the address that was printed at the start")
    return FileResponse(pages[name], media_type=KINDS[pages[name].suffix], headers={"Cache-Control": "no-cache"})


async def _say_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"Connection": "close"} if error.status == TIMED_OUT else None
    return JSONResponse({"error": str(error)}, status_code=error.status, headers=headers)


async def _say_http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses by itself: unknown addresses and methods."""
    assert isinstance(error, HTTPException)
    sentence = "there is nothing at this address; open the page that was printed at the start"
    return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)
