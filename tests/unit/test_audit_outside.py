"""The trail held against what arrived: anchors and identities in files; and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hft_otel.audit.chain import Anchor
from hft_otel.audit.outside import NotJsonLines, anchors_in, read_seen
from hft_otel.audit.reading import find_streams, read_events
from hft_otel.audit.reconcile import reconcile
from hft_otel.cli.app import app
from hft_otel.destinations._text import as_json
from tests.unit.audit_support import Desk, make_trail


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_trail(tmp_path / "journal", 90)


def lines(desk: Desk, path: Path) -> Path:
    """Write what the file backend would have written."""
    path.write_text("".join(f"{as_json(record)}\n" for record in desk.got))
    return path


def otlp_line(desk: Desk) -> str:
    """Return what a Collector's file exporter would have written."""
    records = []
    for record in desk.got:
        attributes = {**record.context, **({"audit.id": record.audit_id} if record.audit_id else {})}
        records.append(
            {
                "eventName": record.event_name,
                "attributes": [
                    {
                        "key": key,
                        "value": {"intValue": str(value)}
                        if isinstance(value, int)
                        else {"stringValue": value},
                    }
                    for key, value in attributes.items()
                ],
            }
        )
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


class TestFiles:
    def test_of_every_form_give_the_same_anchors(self, desk: Desk, tmp_path: Path) -> None:
        ours = lines(desk, tmp_path / "ours.jsonl")
        otlp = tmp_path / "otlp.jsonl"
        otlp.write_text(f'{otlp_line(desk)}\n{{"resourceSpans": []}}\n')
        local = desk.trail_folder / "anchors.jsonl"
        found: list[list[Anchor]] = [list(anchors_in(path)) for path in (ours, otlp, local)]
        assert len(found[0]) == 3
        assert found[0] == found[1] == found[2]

    def test_of_every_form_give_the_same_identities(self, desk: Desk, tmp_path: Path) -> None:
        ours = lines(desk, tmp_path / "ours.jsonl")
        otlp = tmp_path / "otlp.jsonl"
        otlp.write_text(f"{otlp_line(desk)}\n")
        expected = [f"{desk.stream}-{number}" for number in range(90)]
        for path in (ours, otlp):
            assert [seen.audit_id for seen in read_seen(path) if seen.audit_id] == expected

    def test_may_end_in_the_middle_of_a_line(self, desk: Desk, tmp_path: Path) -> None:
        path = lines(desk, tmp_path / "ours.jsonl")
        path.write_bytes(path.read_bytes()[:-20])
        assert len(list(anchors_in(path))) == 2

    @pytest.mark.parametrize("torn", [1, 9, 200, 900])
    def test_give_what_was_written_behind_a_torn_line(self, desk: Desk, tmp_path: Path, torn: int) -> None:
        ours = "".join(f"{as_json(record)}\n" for record in desk.got)
        expected = [f"{desk.stream}-{number}" for number in range(90)]
        for whole in (ours, f"{otlp_line(desk)}\n".replace('": ', '":')):
            first = whole.splitlines()[0][:torn].removesuffix("}")
            path = tmp_path / "torn.jsonl"
            path.write_text(f"{first}{first}{whole}")
            assert [seen.audit_id for seen in read_seen(path) if seen.audit_id] == expected

    def test_that_are_no_json_lines_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "text.log"
        path.write_text("2026-03-01 INFO x | {}\n")
        with pytest.raises(NotJsonLines, match="format: json"):
            list(read_seen(path))
        path.write_text("")
        assert list(read_seen(path)) == []


class TestReconciling:
    def test_says_that_all_arrived(self, desk: Desk) -> None:
        (found,) = reconcile(desk.folder, [record.audit_id or "" for record in desk.got])
        assert (found.events, found.delivered, found.missing, found.duplicates) == (90, 90, [], {})

    def test_names_what_is_missing_and_what_came_twice(self, desk: Desk) -> None:
        ids = [f"{desk.stream}-{number}" for number in range(90) if number not in (7, 80)]
        (found,) = reconcile(desk.folder, [*ids, ids[3], "other-5", f"{desk.stream}-90", "nonsense"])
        assert found.missing == [f"{desk.stream}-7", f"{desk.stream}-80"]
        assert found.duplicates == {f"{desk.stream}-3": 2}
        assert (found.delivered, found.beyond) == (88, 1)

    def test_calls_waiting_what_is_not_acknowledged(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(10)
        for _ in range(5):
            assert desk.room.put(b"\xc4\x01x")  # unreadable: nobody waits for it
        from tests.unit.audit_support import frame

        assert desk.room.put(frame("late"))
        desk.leave()
        (found,) = reconcile(tmp_path, [])
        assert (found.events, len(found.missing), found.waiting) == (11, 10, 1)


class TestCommands:
    def test_verify_passes_a_healthy_trail(self, desk: Desk, tmp_path: Path) -> None:
        outside = lines(desk, tmp_path / "ours.jsonl")
        done = run("verify", desk.folder, "--anchors", outside, "--json")
        assert done.exit_code == 0
        told = json.loads(done.stdout)
        assert (told["healthy"], told["events"], told["outside"]) == (True, 90, 89)
        assert "healthy" in run("verify", desk.folder).stdout
        assert "no anchors from outside" in run("verify", desk.trail_folder).stdout

    def test_verify_says_where_it_is_broken(self, desk: Desk) -> None:
        kept = sorted(desk.trail_folder.glob("*.seg"))[0]
        kept.unlink()
        done = run("verify", desk.folder)
        assert done.exit_code == 1
        assert "BROKEN" in done.stdout
        assert f"{kept.name} is missing" in done.stdout

    def test_verify_says_what_is_no_file_of_anchors(self, desk: Desk, tmp_path: Path) -> None:
        path = tmp_path / "text.log"
        path.write_text("hello\n")
        done = run("verify", desk.folder, "--anchors", path)
        assert done.exit_code == 2
        assert "format: json" in done.stderr

    def test_verify_takes_no_file_without_anchors_for_a_proof(self, desk: Desk, tmp_path: Path) -> None:
        path = tmp_path / "empty.jsonl"
        path.write_text("")
        done = run("verify", desk.folder, "--anchors", path)
        assert done.exit_code == 1
        assert "no anchor is in" in done.stderr
        assert (
            run("verify", desk.folder, "--anchors", path, "--anchors", lines(desk, tmp_path / "o")).exit_code
            == 0
        )

    def test_verify_names_the_streams_that_no_anchor_from_outside_proves(
        self, desk: Desk, tmp_path: Path
    ) -> None:
        outside = lines(desk, tmp_path / "ours.jsonl")
        assert "no anchors from outside" not in run("verify", desk.folder, "--anchors", outside).stdout
        second = make_trail(desk.folder, 30)
        said = run("verify", desk.folder, "--anchors", outside).stdout
        assert f"no anchors from outside were given for {second.stream}:" in said

    @pytest.mark.parametrize("form", [(), ("--json",)])
    def test_nothing_is_proven_of_an_empty_folder(
        self, desk: Desk, tmp_path: Path, form: tuple[str, ...]
    ) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        arrived = lines(desk, tmp_path / "ours.jsonl")
        for words in (
            ("verify", empty),
            ("reconcile", empty, "--against", arrived),
        ):
            done = run(*words, *form)
            assert (done.exit_code, done.stdout) == (1, "")
            assert "holds no audit event" in done.stderr
        assert "90 events arrived" in done.stderr
        assert run("show", empty, *form).exit_code == 1

    def test_an_index_that_cannot_be_asked_is_no_wrong_use(self, desk: Desk) -> None:
        done = run("reconcile", desk.folder, "--against", "elasticsearch:http://127.0.0.1:1/x")
        assert done.exit_code == 1
        assert "refused" in done.stderr
        assert "Usage" not in done.stderr

    def test_show_prints_what_is_asked_for(self, desk: Desk) -> None:
        done = run("show", desk.folder, "--event", "fil*", "--context", "order=0042", "--json")
        assert done.exit_code == 0
        assert json.loads(done.stdout)["attributes"]["audit.id"] == f"{desk.stream}-42"
        table = run("show", desk.folder, "--limit", 2).stdout
        assert "2 events" in table
        assert run("show", desk.folder, "--event", "cancelled").exit_code == 1
        assert run("show", desk.folder, "--context", "nobody=1").exit_code == 1

    def test_show_knows_times(self, desk: Desk) -> None:
        every = run("show", desk.folder, "--since", "1970-01-01T00:00:00+00:00", "--json").stdout
        assert len(every.splitlines()) == 90
        assert run("show", desk.folder, "--since", "1h").exit_code == 1
        assert run("show", desk.folder, "--until", "15m", "--limit", 1).exit_code == 0

    @pytest.mark.parametrize("wrong", [("--since", "noon"), ("--until", "5y"), ("--context", "novalue")])
    def test_show_says_what_it_does_not_understand(self, desk: Desk, wrong: tuple[str, str]) -> None:
        done = run("show", desk.folder, *wrong)
        assert done.exit_code == 2
        assert wrong[1] in done.stderr

    def test_reconcile_names_what_is_missing(self, desk: Desk, tmp_path: Path) -> None:
        path = lines(desk, tmp_path / "ours.jsonl")
        assert run("reconcile", desk.folder, "--against", path).exit_code == 0
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-30]))
        done = run("reconcile", desk.folder, "--against", path)
        assert done.exit_code == 1
        assert "missing:" in done.stdout
        assert "and 9 more" in done.stdout
        assert run("reconcile", desk.folder, "--against", tmp_path / "none").exit_code == 2

    def test_help_keeps_its_examples_on_lines_of_their_own(self) -> None:
        done = run("--help")
        assert "\n  hft-otel audit show logs/journal --event" in done.stdout


class TestReading:
    def test_events_of_several_streams_come_by_time(self, tmp_path: Path) -> None:
        for _ in range(2):
            make_trail(tmp_path, 30)
        found = [record.time_ns for record in read_events(tmp_path)]
        assert len(found) == 60
        assert found == sorted(found)

    def test_what_is_damaged_is_still_looked_at(self, tmp_path: Path) -> None:
        desk = Desk(tmp_path)
        desk.write(10)
        desk.leave()
        (tmp_path / desk.stream).rename(tmp_path / f"{desk.stream}.damaged")
        (tmp_path / f"{desk.stream}.damaged" / "00000009.seg").write_bytes(b"x" * 100)
        (stream,) = find_streams(tmp_path)
        assert stream.name == desk.stream
        assert len(list(read_events(tmp_path))) == 10
        done = run("verify", tmp_path, "--json")
        assert "not a segment" in json.loads(done.stdout)["problems"][0]
