"""A report says which metrics look beyond the lists."""

import pytest

from recsys.cli import run_verb


@pytest.mark.slow
@pytest.mark.parametrize(("metrics", "named"), [('["ndcg@5", "recall@20"]', True), ('["ndcg@5", "recall@5"]', False)])
def test_a_cut_off_beyond_the_lists_is_said_by_the_run_and_its_report(metrics, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"u{number % 9},i{number % 25},{number}\n" for number in range(150))
    (tmp_path / "e.csv").write_text("user_id,item_id,timestamp\n" + rows)
    (tmp_path / "c.toml").write_text(
        f'out = "run"\n[data]\nevents = "e.csv"\n[recommend]\nk = 5\n[judge]\nmetrics = {metrics}\n'
        '[models.popular2]\nmodel = "popular"\n'
    )
    assert run_verb(["run", "c.toml"]) == 0
    sentence = "recall@20: lists have 5 places ([recommend] k), so no later place is judged."
    err = " ".join(capsys.readouterr().err.split())
    assert (sentence in err) is named
    assert (sentence in (tmp_path / "run" / "report.md").read_text().replace("\\", "")) is named
