"""The tasks by name: those of this package, and those that plug-ins add."""

from __future__ import annotations

from typing import Any

from monai_fedlora.catalogues import Catalogue
from monai_fedlora.data.cases import Datalist
from monai_fedlora.errors import DataError
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.regression import REGRESSION
from monai_fedlora.tasks.segmentation import SEGMENTATION
from monai_fedlora.tasks.task import Task


def _problem(found: Any, name: str) -> str | None:
    if not isinstance(found, Task):
        return f"a {type(found).__name__}, which is no Task"
    return None if found.name == name else f"a task that calls itself {found.name!r}"


_BUILT_IN = {task.name: task for task in (CLASSIFICATION, SEGMENTATION, REGRESSION)}
TASKS: Catalogue[Task] = Catalogue("tasks", word="task", built_in=_BUILT_IN, problem=_problem)
"""Tasks by name; another package adds one by an entry point of the group ``monai_fedlora.tasks``."""


def task_of(datalist: Datalist) -> Task:
    """The task of a datalist; of regression, with the scale of the datalist's values.

    Raises:
        DataError: no task lists its cases so.
        PolicyError: it belongs to a plug-in that this process does not trust.
    """
    for task in _BUILT_IN.values():
        if datalist.task in task.listed_as:
            return task.on(datalist.scale)
    if datalist.task in TASKS:
        return TASKS[datalist.task]
    raise DataError(f"the datalist of {datalist.site} is of the task {datalist.task!r}, which nothing here trains")
