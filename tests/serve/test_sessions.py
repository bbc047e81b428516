"""Sessions keep to themselves and are forgotten with all their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.serve.refusal import Refused
from monai_fedlora.serve.served_study import CLASSIFYING, DONE, FAILED, Removed, ServedStudy
from monai_fedlora.serve.sessions import Session, Sessions
from monai_fedlora.serve.settings import ServeSettings
from monai_fedlora.serve.uploads import StoredFile
from monai_fedlora.studies.study import DicomFiles, Study
from tests.serve.conftest import stored


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(scratch: Path, clock: Clock) -> Sessions:
    settings = ServeSettings(idle_minutes=10, max_waiting=3, max_kept=4)
    return Sessions(scratch, settings=settings, clock=clock)


def arrive(sessions: Sessions, identity: str = "", *, state: str = "waiting") -> tuple[Session, ServedStudy]:
    with sessions.arrival(identity) as (session, study):
        (study.upload / "000000.dcm").write_bytes(b"x")
        study.fill(Study("P1", DicomFiles(study.upload)), [StoredFile(study.upload / "000000.dcm", "heart/IM1")])
    study.state = state
    return session, study


def test_session_is_found_by_its_name_alone(sessions: Sessions) -> None:
    session, study = arrive(sessions)
    assert sessions.find(session.id).study(study.id) is study
    for identity in ("", "other", session.id + "x", sessions.issue()):
        with pytest.raises(Refused) as refusal:
            sessions.find(identity)
        assert refusal.value.status == 404


def test_name_of_a_session_is_never_chosen_by_the_browser(sessions: Sessions) -> None:
    for chosen in ("", "mine", "a.b", "a." + sessions.issue().partition(".")[2], "ä.ö"):
        assert not sessions.is_issued(chosen)
        assert arrive(sessions, chosen, state=DONE)[0].id != chosen
    issued = sessions.issue()
    assert sessions.is_issued(issued)
    assert arrive(sessions, issued)[0].id == issued
    other = Sessions(Path("."), settings=ServeSettings())
    assert not other.is_issued(issued)


def test_studies_of_one_browser_share_a_session(sessions: Sessions) -> None:
    session, first = arrive(sessions)
    assert arrive(sessions, session.id)[0] is session
    assert len(session.studies) == 2
    other, _ = arrive(sessions)
    assert other is not session
    assert other.deidentifier is not session.deidentifier
    with pytest.raises(Refused):
        other.study(first.id)


def test_refused_study_leaves_nothing(sessions: Sessions, scratch: Path) -> None:
    with pytest.raises(RuntimeError), sessions.arrival("") as (session, study):
        (study.upload / "x").write_bytes(b"x")
        raise RuntimeError
    assert session.studies == {}
    assert session.waiting == 0
    assert stored(scratch) == []


def test_waiting_studies_are_bounded_over_all_sessions(sessions: Sessions) -> None:
    _, first = arrive(sessions)
    arrive(sessions)
    with sessions.arrival(""):
        with pytest.raises(Refused, match="3 studies wait already") as refusal, sessions.arrival(""):
            pass
        assert refusal.value.status == 429
        first.state = FAILED
        with sessions.arrival(""):
            pass


def test_kept_studies_are_bounded_by_session(sessions: Sessions) -> None:
    session, _ = arrive(sessions, state=DONE)
    for _ in range(3):
        arrive(sessions, session.id, state=DONE)
    with pytest.raises(Refused, match="4 studies are kept already") as refusal:
        arrive(sessions, session.id)
    assert refusal.value.status == 429
    sessions.remove_study(session, next(iter(session.studies)))
    arrive(sessions, session.id)


def test_removed_study_is_gone_and_stops_at_its_next_step(sessions: Sessions) -> None:
    session, study = arrive(sessions)
    study.enter(CLASSIFYING)
    sessions.remove_study(session, study.id)
    assert not study.folder.exists()
    with pytest.raises(Removed):
        study.enter(DONE)
    study.folder.mkdir()
    study.finish()
    assert not study.folder.exists()
    with pytest.raises(Refused):
        sessions.remove_study(session, study.id)


def test_idle_session_is_removed_but_no_busy_one(sessions: Sessions, clock: Clock, scratch: Path) -> None:
    idle, _ = arrive(sessions, state=DONE)
    busy, working = arrive(sessions, state=CLASSIFYING)
    clock.now += 599
    seen, _ = arrive(sessions, state=DONE)
    assert sessions.remove_idle() == 0
    clock.now += 2
    assert sessions.remove_idle() == 1
    assert not idle.folder.exists()
    with pytest.raises(Refused):
        sessions.find(idle.id)
    assert sessions.find(seen.id) is seen
    working.state = DONE
    assert sessions.remove_idle() == 1
    assert not busy.folder.exists()
    clock.now += 601
    assert sessions.remove_idle() == 1
    assert list(scratch.iterdir()) == []


def test_asking_keeps_a_session(sessions: Sessions, clock: Clock) -> None:
    session, _ = arrive(sessions, state=DONE)
    for _ in range(3):
        clock.now += 500
        sessions.find(session.id)
        assert sessions.remove_idle() == 0


def test_session_that_is_removed_while_it_sends_takes_nothing_in(sessions: Sessions, scratch: Path) -> None:
    with pytest.raises(Refused), sessions.arrival("") as (session, study):
        sessions.remove(session)
        study.upload.mkdir(parents=True)
        (study.upload / "x").write_bytes(b"x")
    assert stored(scratch) == []


def test_all_sessions_can_be_removed(sessions: Sessions, scratch: Path) -> None:
    arrive(sessions)
    arrive(sessions)
    sessions.remove_all()
    assert list(scratch.iterdir()) == []


def test_reason_names_files_as_their_sender_does(sessions: Sessions) -> None:
    _, study = arrive(sessions)
    study.fail(f"{study.upload / '000000.dcm'} is damaged; {study.upload} holds nothing else")
    assert study.error == "heart/IM1 is damaged; P1 holds nothing else"
    assert study.state == FAILED


def test_studies_of_one_name_are_told_apart(sessions: Sessions) -> None:
    session, first = arrive(sessions, state=DONE)
    _, second = arrive(sessions, session.id, state=DONE)
    _, third = arrive(sessions, session.id, state=DONE)
    assert [study.name for study in (first, second, third)] == ["P1", "P1 (2)", "P1 (3)"]
    assert len({study.short_id for study in (first, second, third)}) == 3
    other, same = arrive(sessions, state=DONE)
    assert other is not session
    assert same.name == "P1"  # nobody learns what others call theirs


def test_pseudonym_is_one_that_no_other_study_of_the_session_has(sessions: Sessions) -> None:
    session, first = arrive(sessions, state=DONE)
    _, second = arrive(sessions, session.id, state=DONE)
    assert not first.is_pseudonym
    sessions.rename(session, first.id, "case 7")
    assert (first.name, first.is_pseudonym) == ("case 7", True)
    sessions.rename(session, first.id, "Case 7")
    with pytest.raises(Refused, match="another study here is called 'CASE 7'"):
        sessions.rename(session, second.id, "CASE 7")
    assert second.name == "P1 (2)"


def test_page_that_looks_by_itself_keeps_nothing(sessions: Sessions, clock: Clock) -> None:
    session, _ = arrive(sessions, state=DONE)
    clock.now += 400
    sessions.find(session.id, is_used=False)
    assert sessions.seconds_left(session) == 200
    clock.now += 201
    assert sessions.seconds_left(session) == 0
    assert sessions.remove_idle() == 1


def test_study_that_is_removed_while_it_is_sent_is_not_taken_in(sessions: Sessions, scratch: Path) -> None:
    with pytest.raises(Refused), sessions.arrival("") as (session, study):
        (study.upload / "x").write_bytes(b"x")
        sessions.remove_study(session, study.id)
        with pytest.raises(Refused, match="was removed while it was being sent"):
            study.pace.check()
    assert session.studies == session.arriving == {}
    assert stored(scratch) == []


def test_sender_learns_that_everything_was_removed(sessions: Sessions) -> None:
    with pytest.raises(Refused), sessions.arrival("") as (session, study):
        sessions.remove(session)
        with pytest.raises(Refused, match="was removed while it was being sent"):
            study.pace.check()
