"""The thread that classifies one study after the other."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from importlib import import_module

import torch

from monai_fedlora.clinic.bundle import CINE, IMAGE, Classifier
from monai_fedlora.clinic.defects import describe_defect
from monai_fedlora.environment import THREADS
from monai_fedlora.errors import ConfigError, FedLoraError
from monai_fedlora.serve.results import classify
from monai_fedlora.serve.sessions import Removed, ServedStudy, Session

logger = logging.getLogger(__name__)

USUAL_THREADS = 4
"""Of torch, where nothing is said (ours): the page and other programs of the machine keep some."""
_PATIENCE = 10.0
"""Seconds that the end waits for the study that is being classified (ours)."""
_SLOW_PACKAGES = {CINE: ("monai.data", "monai.transforms", "captum.attr", "highdicom"), IMAGE: ("captum.attr",)}


def torch_threads() -> int:
    """How many threads torch may use: ``MONAI_FEDLORA_THREADS``, else :data:`USUAL_THREADS` or fewer.

    Raises:
        ConfigError: the variable is no number from 1.
    """
    text = os.environ.get(THREADS)
    if text is None:
        return min(USUAL_THREADS, torch.get_num_threads())
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{THREADS}={text} is no number of threads; give 1 or more")
    return int(text)


class Worker:
    """Classifies studies in the order they come.

    Args:
        classifier: the model.
        threads: of torch.
    """

    def __init__(self, classifier: Classifier, *, threads: int) -> None:
        self._classifier = classifier
        self._threads = threads
        self._queue: queue.Queue[tuple[Session, ServedStudy] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="classify", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, session: Session, study: ServedStudy) -> None:
        """Let a study wait."""
        self._queue.put((session, study))

    def stop(self) -> None:
        """End, after the study that is being classified if that takes seconds."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        self._load_packages()
        while (item := self._queue.get()) is not None:
            session, study = item
            begin = time.perf_counter()
            outcome = _attempt(study, self._classifier, session)
            logger.info("%s after %.1f s", outcome, time.perf_counter() - begin)

    def _load_packages(self) -> None:
        """Import what reading and reporting need, which takes seconds, before the first study comes."""
        for name in _SLOW_PACKAGES[self._classifier.modality]:
            if not self._stopping.is_set():
                with contextlib.suppress(ImportError):  # whoever needs it says so
                    import_module(name)


def _attempt(study: ServedStudy, classifier: Classifier, session: Session) -> str:
    """Classify a study, whatever happens; what the log says of it, which names neither file nor patient."""
    try:
        classify(study, classifier, deidentifier=session.deidentifier)
        return "a study was classified"
    except Removed:
        return "a study was removed"
    except (FedLoraError, OSError, MemoryError) as error:
        study.fail(str(error) or type(error).__name__)
        return f"a study failed ({type(error).__name__})"
    except Exception as error:  # a defect must not stop the other studies
        study.fail(f"the study met a defect of this program ({type(error).__name__}); please report it")
        return f"a study failed ({describe_defect(error)})"
    finally:
        study.finish()
