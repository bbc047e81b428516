"""Keep the opinions of readers on answers, if the server was started with a folder for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.clinic.reader_feedback import AGREE, DISAGREE, keep_opinion, opinion_on
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.serve.refusal import BAD_REQUEST, CONFLICT, DISK_FULL, NOT_FOUND, TOO_MANY, Refused
from monai_fedlora.serve.served_study import DONE, ServedStudy

_MOST = 20
"""Most opinions on one study (ours), so that nobody can fill the disk with them."""


def keep_feedback(study: ServedStudy, content: Mapping[str, Any], *, folder: Path | None) -> None:
    """Keep the opinion of a request.

    Args:
        study: the study.
        content: JSON of the request: ``opinion`` ("agree" or "disagree"), ``because``, ``instead``, and ``answer``, the
            number from 1 of the answer that the reader saw (a study gets another answer with other frames).
        folder: of the table; None if the server keeps no opinions.

    The table names the study by its pseudonym, or else by its short id: the name of a file may be a patient's.

    Raises:
        Refused: the server keeps no opinions, there is no answer yet or another one by now, or the opinion is invalid.
    """
    if folder is None:
        raise Refused(NOT_FOUND, "this server keeps no opinions; start it with --feedback FOLDER")
    result, state, identity = study.result, study.state, study.answer_id
    number = study.answers  # read last, so that the values above belong to this answer or an earlier one
    if type(content.get("answer")) is not int:
        raise Refused(BAD_REQUEST, "an opinion says by its number which answer it is about; load the page again")
    if content["answer"] != number:
        raise Refused(CONFLICT, "this study has another answer by now, and no opinion was kept; look at it first")
    if state != DONE or result is None:
        raise Refused(BAD_REQUEST, "this study has no answer yet that somebody could agree with")
    if study.opinions >= _MOST:
        raise Refused(TOO_MANY, f"{_MOST} opinions on this study are kept already")
    said, because, instead = (content.get(name, "") for name in ("opinion", "because", "instead"))
    if said not in (AGREE, DISAGREE) or not isinstance(because, str) or not isinstance(instead, str):
        raise Refused(BAD_REQUEST, f"an opinion is {AGREE} or {DISAGREE}, with a text why")
    name = study.name if study.is_pseudonym else study.short_id
    try:
        opinion = opinion_on(
            result, agrees=said == AGREE, because=because, instead=instead, study=name, answer=identity
        )
        keep_opinion(opinion, folder)
    except DataError as error:
        raise Refused(BAD_REQUEST, str(error)) from error
    except ConfigError as error:
        raise Refused(DISK_FULL, "the opinion could not be kept; whoever runs this server has to look") from error
    study.opinion, study.opinions = opinion, study.opinions + 1
