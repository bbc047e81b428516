"""The predict command: what it passes on, what it prints, and how it ends."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora import cli
from monai_fedlora.clinic import helper, many, two_models
from monai_fedlora.clinic.many import Outcome
from monai_fedlora.clinic.state import state_sentences
from monai_fedlora.clinic.trust import TrainedOn, Trust
from monai_fedlora.commands import predict
from monai_fedlora.data.records import Photograph
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.studies.finding import BESIDE
from monai_fedlora.studies.study import Study
from tests.exporting.signing import write_keys


@dataclass
class Calls:
    """What was asked of the clinic, and what it answers."""

    opened: list[Path] = field(default_factory=list)
    keys: tuple[PublicKey, ...] = ()
    studies: list[Study] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    trust: Trust = field(default_factory=lambda: Trust(notes=("nothing is calibrated",)))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Path(name).touch()
    made = Calls(
        outcomes=[
            Outcome(
                study="a",
                probabilities=(0.25, 0.75),
                predicted="ABN",
                state="no_doubt_found",
                notes=("nothing is calibrated",),
            )
        ]
    )

    def open_model(path: Path, *, keys: tuple[PublicKey, ...], device: str) -> argparse.Namespace:
        assert device == "cpu"  # the model computes in a process of its own
        made.opened.append(path)
        made.keys = keys
        return argparse.Namespace(modality="image", classes=("NOR", "ABN"), trust=made.trust)

    def predict_all(classifier: Any, studies: list[Study], output: Path, **options: Any) -> list[Outcome]:
        made.studies, made.options = studies, {"output": output, **options}
        for outcome in made.outcomes:
            options["on_progress"](outcome)
        return made.outcomes

    monkeypatch.setattr(two_models, "open_model", open_model)
    monkeypatch.setattr(helper.Helper, "start", lambda self: None)
    monkeypatch.setattr(two_models, "isolated", lambda classifier, helper: classifier)
    monkeypatch.setattr(many, "predict_all", predict_all)
    return made


def run(*words: str) -> int:
    return cli.main(["predict", "B", "a.png", "b.png", "--output", "O", *words])


def test_inputs_and_output_are_passed_on(calls: Calls) -> None:
    assert run() == 0
    assert calls.opened == [Path("B")]
    assert list(calls.studies) == [Study("a", Photograph(Path("a.png"))), Study("b", Photograph(Path("b.png")))]
    assert calls.options["output"] == Path("O")
    assert calls.options["overlay"] is True
    assert calls.options["dicom"] is None


def test_signatures_are_asked_for_with_every_key(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert calls.keys == ()
    words = [str(write_keys(tmp_path, name).public) for name in ("old", "new")]
    assert run("--require-signature", words[0], "--require-signature", words[1]) == 0
    assert [str(key.path) for key in calls.keys] == words
    calls.opened.clear()
    assert run("--require-signature", words[0], "--require-signature", "") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert calls.opened == []


def test_dicom_is_deidentified_unless_told_otherwise(calls: Calls) -> None:
    assert run("--dicom", "--no-overlay") == 0
    assert calls.options["dicom"].deidentifier is not None
    assert calls.options["overlay"] is False
    assert run("--dicom", "--keep-identity") == 0
    assert calls.options["dicom"].deidentifier is None


def test_one_study_may_be_called_by_a_pseudonym(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "B", "a.png", "--output", "O", "--pseudonym", " case\n7 "]) == 0
    assert list(calls.studies) == [Study("case 7", Photograph(Path("a.png")), is_pseudonym=True)]
    calls.studies.clear()
    assert run("--pseudonym", "case 7") == cli.EXIT_ERROR
    assert "names one study, and 2 are given" in capsys.readouterr().err
    assert cli.main(["predict", "B", "a.png", "--output", "O", "--pseudonym", " "]) == cli.EXIT_ERROR
    assert calls.studies == []


def test_identity_can_only_be_kept_in_dicom(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--keep-identity") == cli.EXIT_ERROR
    assert "give --dicom too" in capsys.readouterr().err
    assert calls.opened == []


def test_answers_are_shown_with_their_notice(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    printed = capsys.readouterr().out
    assert printed.count(f"of the model: {calls.trust.notes[0]}") == 1
    assert printed.count(calls.trust.notes[0]) == 1
    for part in ("a", "ABN", "25 %", "75 %", "no doubt found", "results: O/predictions.csv", "Not for clinical use"):
        assert part in printed


def test_failures_and_doubts_are_named_and_failures_end_in_one(
    calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.outcomes += [
        Outcome(study="bad [x]", error="it is [broken]"),
        Outcome(
            study="odd",
            probabilities=(0.5, 0.5),
            predicted="NOR",
            answer="undecided: NOR 50 % or ABN 50 %",
            undecided=True,
            state="doubtful",
            doubts=("it is grey",),
            sentences=("Doubtful because it is grey.",),
        ),
        Outcome(
            study="new",
            probabilities=(0.5, 0.5),
            predicted="NOR",
            state="cannot_tell",
            sentences=("Cannot tell: there are no statistics.",),
        ),
    ]
    assert run() == predict.EXIT_FAILED_STUDIES == 1
    printed = capsys.readouterr().out
    for part in ("bad [x]: it is [broken]", "failed", "odd: undecided: NOR 50 % or ABN 50 %",
        "odd: Doubtful because it is grey.", "cannot tell", "new: Cannot tell: there are no statistics.",
    ):  # fmt: skip
        assert part in printed


def test_what_holds_of_every_study_is_said_once(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    origin = TrainedOn(kind="synthetic", name="toys")
    calls.trust = Trust(origin=origin, notes=())
    (of_all,) = origin.doubts()
    for name, own in (("plain", ()), ("grey", ("it is grey",))):
        doubts = (*own, of_all)
        calls.outcomes.append(
            Outcome(
                study=name,
                probabilities=(0.1, 0.9),
                predicted="ABN",
                state="doubtful",
                doubts=doubts,
                sentences=state_sentences(doubts, ()),
                notes=(f"{BESIDE}2 files (x.txt, y.txt): no photograph",),
            )
        )
    assert run() == 0
    printed = capsys.readouterr().out
    assert printed.count(of_all) == 1 and "every answer is doubtful" in printed
    assert "grey: Doubtful because it is grey." in printed and "plain: " not in printed
    assert BESIDE not in printed
    assert printed.index("O/figures") < printed.index("O/predictions.csv")


def test_files_that_are_left_out_are_counted_and_named(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    for name in ("c.png", "notes.txt", "more.txt"):
        (Path("folder") / name).touch()
    assert cli.main(["predict", "B", "folder", "--output", "O"]) == 0
    assert "left_out.csv: 2 files (folder/more.txt, folder/notes.txt): no photograph" in capsys.readouterr().out
    assert [entry.file for entry in calls.options["left_out"]] == ["folder/more.txt", "folder/notes.txt"]


def test_mistyped_input_leaves_no_folder(calls: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "B", "a.pgn", "b.png", "--output", "O"]) == cli.EXIT_ERROR
    assert "a.pgn does not exist; is the name mistyped?" in capsys.readouterr().err
    assert not Path("O").exists()


@pytest.mark.parametrize("missing", ["BUNDLE", "INPUT", "--output"])
def test_bundle_input_and_output_are_required(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"BUNDLE": ["B"], "INPUT": ["a.png"], "--output": ["--output", "O"]}
    del words[missing]
    with pytest.raises(SystemExit):
        cli.main(["predict", *(word for part in words.values() for word in part)])
    assert missing in capsys.readouterr().err or missing == "BUNDLE"


def test_missing_bundle_is_an_error(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    predict.add_parser(parser.add_subparsers())
    args = parser.parse_args(["predict", str(tmp_path), "a.png", "--output", str(tmp_path / "O")])
    with pytest.raises(ConfigError, match="no exported bundle"):
        predict.run(args)
    assert not (tmp_path / "O").exists()
