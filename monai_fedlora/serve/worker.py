"""The thread that classifies or measures studies one after the other."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from importlib import import_module

import torch

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.defects import describe_defect, reason_of
from monai_fedlora.clinic.measuring import Measurer
from monai_fedlora.clinic.outlining import Outliner
from monai_fedlora.errors import FedLoraError
from monai_fedlora.serve.results import classify
from monai_fedlora.serve.served_study import Removed, ServedStudy
from monai_fedlora.serve.sessions import Session
from monai_fedlora.studies.study import CINE, IMAGE

logger = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that :meth:`Worker.stop` waits for the study that is being classified (ours)."""
_SLOW_PACKAGES = {CINE: ("monai.data", "monai.transforms", "captum.attr", "highdicom"), IMAGE: ("captum.attr",)}


class Worker:
    """Classifies studies in the order they come.

    Args:
        classifier: the model of the class or of the numbers; None for outlines alone.
        outliner: the model of the outlines; None for a class alone.
        threads: number of torch's threads.
    """

    def __init__(
        self, classifier: Classifier | Measurer | None, *, outliner: Outliner | None = None, threads: int
    ) -> None:
        self._classifier = classifier
        self._outliner = outliner
        self._threads = threads
        self._queue: queue.Queue[tuple[Session, ServedStudy] | None] = queue.Queue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="classify", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, session: Session, study: ServedStudy) -> None:
        """Queue a study."""
        self._queue.put((session, study))

    def stop(self) -> None:
        """Stop after the study that is being classified, waiting some seconds for it."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        self._load_packages()
        while (item := self._queue.get()) is not None:
            session, study = item
            begin = time.perf_counter()
            outcome = _attempt(study, self._classifier, self._outliner, session)
            logger.info("%s after %.1f s", outcome, time.perf_counter() - begin)

    def _load_packages(self) -> None:
        """Import slow packages before the first study comes."""
        for name in _SLOW_PACKAGES[CINE if self._classifier is None else self._classifier.modality]:
            if not self._stopping.is_set():
                with contextlib.suppress(ImportError):  # the step that needs it raises an error
                    import_module(name)


def _attempt(
    study: ServedStudy, classifier: Classifier | Measurer | None, outliner: Outliner | None, session: Session
) -> str:
    """Classify a study, and catch every error; returns a line for the log that names neither file nor patient."""
    try:
        classify(study, classifier, outliner=outliner, deidentifier=session.deidentifier)
        return "a study was classified"
    except Removed:
        return "a study was removed"
    except Exception as error:  # a defect must not stop the other studies
        study.fail(reason_of(error))
        is_said = isinstance(error, (FedLoraError, OSError, MemoryError))
        return f"a study failed ({type(error).__name__ if is_said else describe_defect(error)})"
    finally:
        study.finish()
