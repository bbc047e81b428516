"""What the server gives out of a study: its state as JSON, and its files under names that cannot be confused.

The name of an uploaded file or folder may be a patient's. It is shown to the person who sent the study: on the page, on
the figure and in its file name. DICOM objects are de-identified, so that neither they nor their file names contain it.
A pseudonym, which a reader typed, and the study's short id may appear everywhere.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.responses import FileResponse, Response

from monai_fedlora.clinic.figure_title import add_title
from monai_fedlora.serve.names import file_part
from monai_fedlora.serve.results import FILES
from monai_fedlora.serve.served_study import SENDING, ServedStudy
from monai_fedlora.serve.sessions import Session, no_study

_TYPES = {".gz": "application/gzip", ".png": "image/png", ".zip": "application/zip", ".json": "application/json"}
_OF_DICOM, _VOLUME = "dicom", "volume"
_NAMED = frozenset({"figure", "outlines", "json"})
_SHOWN = frozenset({"figure", "outlines", "outline", "image"})


def describe(study: ServedStudy) -> dict[str, Any]:
    """A study as JSON for the page."""
    state, offered = study.state, study.offered
    opinion = study.opinion if study.opinion and study.opinion.answer == study.answer_id else None
    return {
        "id": study.id,
        "short_id": study.short_id,
        "upload_id": study.upload_id,
        "name": study.name,
        "is_pseudonym": study.is_pseudonym,
        "state": state,
        "error": study.error,
        "result": study.result and study.result | {"study": study.name},
        "opinion": opinion and {name: getattr(opinion, name) for name in ("opinion", "instead", "because")},
        "answer": study.answers,
        "can_choose_frames": study.cine is not None and _VOLUME in offered,
        "chosen": study.chosen and {"ed": study.chosen[0], "es": study.chosen[1], "counted_from": 0},
        "files": {kind: _address(study, kind) for kind in offered},
    }


def describe_session(session: Session | None, *, seconds_left: float) -> dict[str, Any]:
    """All studies of a browser, from all of its tabs, including those that are being sent."""
    if session is None:
        return {"studies": [], "seconds_left": None}
    arriving = [describe(study) | {"state": SENDING} for study in list(session.arriving.values())]
    studies = [describe(study) for study in list(session.studies.values())]
    return {"studies": [*studies, *arriving], "seconds_left": round(seconds_left)}


def download(study: ServedStudy, kind: str) -> Response:
    """A file of a study for download, with the study's name in its file name.

    The figure gets the present name of the study as its title, and the JSON result as an entry. If that is a pseudonym,
    the result does not quote names of files and series.

    Raises:
        Refused: the study was removed meanwhile.
    """
    path = study.offered[kind]
    called = study.name if study.is_pseudonym or kind != _OF_DICOM else "study"
    again = f"answer{study.answers}-" if study.answers > 1 else ""
    name = f"{file_part(called)}-{study.short_id}-{again}{path.name}"
    media, place = _TYPES[path.suffix], "inline" if kind in _SHOWN else "attachment"
    response = FileResponse(path, media_type=media, filename=name, content_disposition_type=place)
    try:
        content = _renamed(study, kind, path)
    except FileNotFoundError as error:
        raise no_study() from error
    if content is None:
        return response
    headers = {"content-disposition": response.headers["content-disposition"]}
    return Response(content, media_type=media, headers=headers)


def _address(study: ServedStudy, kind: str) -> str:
    """Address of a file; it changes with the content, so that no browser shows an old version."""
    again = [f"answer={study.answers}"] if study.answers > 1 and kind != _VOLUME else []
    named = [f"name={study.renamed}"] if study.renamed and kind in _NAMED else []
    version = "&".join((*again, *named))
    return f"/api/studies/{study.id}/{FILES[kind]}{version and '?'}{version}"


def _renamed(study: ServedStudy, kind: str, path: Path) -> bytes | None:
    """The content of a file that contains the study's name; None for other files."""
    if kind == "json":
        result = describe(study)["result"]
        if result and study.is_pseudonym:
            result["notes"] = [note for note in result["notes"] if note not in study.quotes]
        return (json.dumps(result, indent=1, sort_keys=True) + "\n").encode()
    if kind not in ("figure", "outlines"):
        return None
    with Image.open(path) as figure, io.BytesIO() as stream:
        add_title(figure, f"{study.name} ({study.short_id})").save(stream, format="PNG")
        return stream.getvalue()
