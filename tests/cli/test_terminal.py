import json

from layerscope.cli import terminal


def test_data_goes_to_stdout_and_talk_to_stderr(capsys):
    terminal.say("working")
    terminal.emit({"θ": 1}, False, lambda: "text\n")
    out, err = capsys.readouterr()
    assert (out, err) == ("text\n", "working\n")


def test_json_is_json_and_the_text_is_not_even_made(capsys):
    terminal.emit({"θ": [1, None]}, True, lambda: 1 / 0)
    assert json.loads(capsys.readouterr().out) == {"θ": [1, None]}


def test_columns_are_aligned():
    text = terminal.table(("name", "n"), [("a", "1"), ("long name", "100")], right=(1,))
    header, rule, first, second = text.splitlines()
    assert header == "name         n"
    assert first == "a            1"
    assert second == "long name  100"
    assert len(rule) == len(second)


def test_without_a_terminal_progress_is_one_line_at_the_end(capsys):
    with terminal.progress("extract", 10, "images") as advance:
        advance(4)
        advance(6, "note")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("extract: 10 of 10 in ")
    assert "images/s" in err


def test_on_a_terminal_progress_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with terminal.progress("extract", 10, "images") as advance:
        advance(10, "a note")
    assert "10/10" in capsys.readouterr().err
