from galen.progress import Progress


def test_plain_lines_have_rate_and_time_left(capsys):
    with Progress("tokenise", total=4, unit="documents", every=0) as progress:
        progress.update(2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("tokenise: 2 of 4 (50%) documents")
    assert "left" in first
    assert last.startswith("tokenise: 2 of 4")
