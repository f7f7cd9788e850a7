"""`rota reproduce`: published data goes to the claims that take it, and a recorded claim leaves the others as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rota.cli.main import run
from rota.report.claims import claims_page
from rota.studies.reproduce import STUDIES, Options, Report
from rota.studies.reproduce.claim import NOT, PARTLY, REPRODUCED, Finding, Study, Table

SEEN: dict[str, str | None] = {}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All studies, with experiments that note which data they got."""

    def of(study: Study) -> Study:
        def experiment(options: Options) -> Report:
            SEEN[study.name] = options.data
            return report(study.name, REPRODUCED, "new")

        return Study(study.name, study.title, study.source, experiment, study.reference)

    SEEN.clear()
    monkeypatch.delenv("ROTA_SHARED", raising=False)
    for name, study in list(STUDIES.items()):
        monkeypatch.setitem(STUDIES, name, of(study))


def report(name: str, verdict: str, measured: str) -> Report:
    finding = Finding("It | holds", "here", "1x", measured, verdict, "because")
    return Report(name, [finding], [Table("Rows", [{"a": 1, "b": 0.123456}])], {"seeds": "3"})


def laid_out(folder: Path) -> Path:
    """The files by which published data is known, as `--data` finds them below one folder."""
    for place in ("shop/tardiness/n20_uniform.jsonl", "quantum/nv_link_capabilities.json", "data/fidelity/vidur/optables_ms_exact.npz"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).touch()
    return folder


def test_data_beside_all_goes_to_those_who_take_it(scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = laid_out(tmp_path / "published")
    assert run(["reproduce", "--all", "--data", str(data), "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(STUDIES)
    assert {name: folder for name, folder in SEEN.items() if folder} == {
        "smtt": str(data / "shop" / "tardiness"), "quantum-network": str(data / "quantum"),
        "vidur-parity": str(data / "data" / "fidelity" / "vidur"),
    }  # fmt: skip


def test_the_folder_of_one_claim_is_enough_for_all(scripted: None, tmp_path: Path) -> None:
    data = laid_out(tmp_path) / "quantum"
    assert run(["reproduce", "--all", "--data", str(data), "--json"]) == 0
    assert [name for name, folder in SEEN.items() if folder] == ["quantum-network"]


def test_without_data_it_is_looked_for_where_reference_data_lies(scripted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTA_SHARED", str(laid_out(tmp_path)))
    assert run(["reproduce", "smtt", "--json"]) == 0
    assert SEEN["smtt"] == str(tmp_path / "shop" / "tardiness")
    assert run(["reproduce", "sarathi", "--json"]) == 0
    assert SEEN["sarathi"] is None


@pytest.mark.parametrize(("claims", "words"), [(["smtt"], "holds none of n20_uniform.jsonl"), (["vtc"], "none of these claims takes data")])
def test_data_given_in_vain_is_one_line(
    scripted: None, tmp_path: Path, claims: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reproduce", *claims, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not SEEN


def test_a_recorded_claim_leaves_the_others_as_they_were(scripted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    states = tmp_path / "src" / "rota" / "studies" / "reproduce" / "recorded.json"
    states.parent.mkdir(parents=True)
    page = tmp_path / "docs" / "claims.md"
    page.write_text(claims_page([report("apex", PARTLY, "old apex"), report("vtc", NOT, "old vtc")]))
    states.write_text('{"apex": {"verdict": "partly", "findings": {}}}')
    assert run(["reproduce", "vtc", "smtt", "--record"]) == 0
    # in the order of the claims, whatever the order in which they were recorded
    expected = [report("vtc", REPRODUCED, "new"), report("apex", PARTLY, "old apex"), report("smtt", REPRODUCED, "new")]
    assert page.read_text() == claims_page(expected)
    assert {name: state["verdict"] for name, state in json.loads(states.read_text()).items()} == {
        "vtc": REPRODUCED, "apex": PARTLY, "smtt": REPRODUCED,
    }  # fmt: skip


def test_the_page_of_this_checkout_survives_being_taken_apart() -> None:
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text()
    assert claims_page([], page) == page
