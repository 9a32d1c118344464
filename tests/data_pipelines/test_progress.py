from data_pipelines import progress


def test_quick_work_shows_nothing_and_slow_work_a_bar(capsys, monkeypatch):
    for patience, shown in ((60.0, False), (-1.0, True)):
        monkeypatch.setattr(progress, "PATIENCE", patience)
        with progress.Bar("indexing", total=2) as bar:
            bar.advance(1)
            bar.advance(1)
        said = capsys.readouterr()
        assert said.out == ""
        assert ("indexing" in said.err) == shown
