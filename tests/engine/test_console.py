"""Console: lines for a log, a bar for a terminal, silence on request."""

import io

from adarts_jax.engine import console
from adarts_jax.engine.console import Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Console(stream) as shown:
        shown.start(10, 100)
        for step in range(11, 41):
            now[0] += 1.0
            shown.progress(step, "epoch 3", 2.0)
        shown.say("done")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "epoch 3: step 20/100, 2.0 s/step, 2:40 min left",
        "epoch 3: step 30/100, 2.0 s/step, 2:20 min left",
        "epoch 3: step 40/100, 2.0 s/step, 2:00 min left",
        "done",
    ]


def test_a_terminal_gets_a_bar_with_the_time_left():
    stream = Terminal()
    with Console(stream) as shown:
        shown.start(0, 100)
        shown.progress(40, "epoch 3", 2.0)
        shown.say("a [line] above")
    text = stream.getvalue()
    assert "step 40/100" in text
    assert "2:00 min left" in text
    assert "a [line] above" in text


def test_quiet_is_quiet():
    stream = Terminal()
    with Console(stream, quiet=True) as shown:
        shown.start(0, 1)
        shown.progress(1, "x", 1.0)
        shown.say("y")
    assert stream.getvalue() == ""
