"""The inference configuration of an exported bundle, which needs MONAI but not this package."""

from __future__ import annotations

from typing import Any

from monai_fedlora.exporting.answer import Writing
from monai_fedlora.exporting.modality import Reading

LEFT_OUT_NAME = "left_out.csv"
_CAUSE = (
    "(lambda deeper: deeper(deeper, error))"
    "(lambda deeper, found: deeper(deeper, found.__cause__) if found.__cause__ else found)"
)
"""Expression for the first error of a chain of causes."""
_REASON = (
    r"(re.findall(r'(?m)^[\w.]*(?:Error|Exception): (.+)', str(error)) or "
    "[' '.join(str(error).split())[:300] or type(error).__name__])[0]"
)
"""Expression for the message of an error; the first line that names an error, if there are several."""
_PRINTABLE = "text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')"


def inference_config(writing: Writing, reading: Reading) -> dict[str, Any]:
    """Return the content of ``configs/inference.json``.

    Every study in ``dataset_dir`` goes through a run of the evaluator of its own, so that an error in one does not
    stop the others. One table is written at the end, with ``study``, what the model says of it, and ``error``, which
    names the files and the reason. Bytes of names that are not UTF-8 are written as ``\\xe9``. An existing table
    is removed first. If a study failed, the run ends with an error after the table was written. Files of the folder
    that belong to no study are listed on standard output and in ``left_out.csv``.

    Args:
        writing: what is written of a study.
        reading: how studies are found and read.
    """
    return {
        "imports": [
            *reading.imports,
            *writing.imports,
            "$import csv",
            "$import io",
            "$import re",
            "$import ignite.engine as ignite_engine",
        ],
        "bundle_root": ".",
        "dataset_dir": "studies",
        "output_dir": "predictions",
        "columns": ["study", *writing.columns, "error"],
        **reading.entries,
        **writing.entries,
        "device": reading.device,
        "network_def": reading.network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "DataStatsd",
                    "keys": "study",
                    "prefix": "study",
                    "data_type": False,
                    "data_shape": False,
                    "value_range": False,
                    "data_value": True,
                },
                *reading.transforms,
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": list(writing.postprocessing),
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "epoch_length": 1,
            **({} if reading.prepare_batch is None else {"prepare_batch": reading.prepare_batch}),
        },
        "used": "$lambda: {file for item in @datalist for file in "
        "([item['image']] if isinstance(item['image'], str) else item['image'])}",
        "left_out": "$sorted(path.name for path in @folder.glob('[!.]*') "
        "if path.is_file() and str(path) not in @used())",
        "list_of_left_out": f"$pathlib.Path(@output_dir) / '{LEFT_OUT_NAME}'",
        "rows": "$[]",
        "one_study": "$lambda index: monai.data.DataLoader(torch.utils.data.Subset(@dataset, [index]), batch_size=1)",
        "item_of": "$lambda engine: @datalist[engine.data_loader.dataset.indices[0]]",
        "files_of": "$lambda item: ' and '.join([item['image']] if isinstance(item['image'], str) else item['image'])",
        "cause": f"$lambda error: {_CAUSE}",
        "reason": f"$lambda error: {_REASON}",
        "keep": f"$lambda engine: @rows.append([@item_of(engine)['study'], *{writing.cells}, ''])",
        "keep_error": "$lambda engine, error: @rows.append([@item_of(engine)['study'], "
        "*[''] * (len(@columns) - 2), @files_of(@item_of(engine)) + ': ' + @reason(@cause(error))])",
        "printable": f"$lambda text: {_PRINTABLE}",
        "table": f"$pathlib.Path(@output_dir) / '{writing.table}'",
        "csv_text": "$lambda stream, rows: (csv.writer(stream, lineterminator='\\n').writerows(rows), "
        "@printable(stream.getvalue()))[1]",
        "failed": "$lambda: [row for row in @rows if row[-1]]",
        "fail": "$lambda text: (_ for _ in ()).throw(RuntimeError(text))",
        "stop_if_studies_failed": "$lambda: @failed() and @fail(str(len(@failed())) + ' of ' + str(len(@rows)) + "
        f"' studies could not be {writing.done}, see ' + str(@table) + ': ' + "
        "@printable('; '.join(row[-1] for row in @failed()[:3])))",
        "initialize": [
            "$@table.unlink(missing_ok=True)",
            "$@evaluator.add_event_handler(ignite_engine.Events.ITERATION_COMPLETED, @keep)",
            "$@evaluator.add_event_handler(ignite_engine.Events.EXCEPTION_RAISED, @keep_error)",
        ],
        "run": [
            "$(@rows.clear(), @table.unlink(missing_ok=True), @list_of_left_out.unlink(missing_ok=True))",
            *writing.clear,
            "$@left_out and print(@printable(str(len(@left_out)) + ' files belong to no study and were left out: ' + "
            "', '.join(@left_out)))",
            "$[(setattr(@evaluator, 'data_loader', @one_study(index)), @evaluator.run()) "
            "for index in range(len(@datalist))]",
            "$(@table.parent.mkdir(parents=True, exist_ok=True), "
            "@table.write_text(@csv_text(io.StringIO(newline=''), [@columns, *@rows]), encoding='utf-8'))",
            "$@left_out and @list_of_left_out.write_text(@csv_text(io.StringIO(newline=''), "
            "[['file'], *[[name] for name in @left_out]]), encoding='utf-8')",
            "$@stop_if_studies_failed()",
        ],
    }
