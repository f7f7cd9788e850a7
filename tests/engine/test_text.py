"""Text comes out whole, and never beyond a stop text, however the tokens cut it."""

from hypothesis import given
from hypothesis import strategies as st

from rota.mechanisms.engine.text import TokenText


class Bytes:
    """One token per byte: the hardest cut there is."""

    def decode(self, ids):
        return bytes(ids).decode("utf-8", errors="replace")


TEXT = st.text(alphabet="ab é中🙂", max_size=30)


@given(text=TEXT, stops=st.lists(st.text(alphabet="ab é中", min_size=1, max_size=4), max_size=3))
def test_the_stream_is_the_text_up_to_the_first_stop(text, stops):
    stream, shown = TokenText(Bytes(), stops), ""
    stopped = False
    for token in text.encode():
        new, stopped = stream.push(token)
        shown += new
        assert text.startswith(shown)
        if stopped:
            break
    shown += stream.rest()
    cuts = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if stopped:
        # the first stop to be complete ends it; another that began earlier may not have been complete then
        assert any(text.startswith(shown + stop) for stop in stops)
        assert not any(stop in shown for stop in stops)
    else:
        assert not cuts
        assert shown == text


def test_half_a_character_is_shown_as_unknown_at_the_end_only():
    stream = TokenText(Bytes())
    first, second = "é".encode()
    assert stream.push(first) == ("", False)
    assert stream.rest() == "\ufffd"
    whole = TokenText(Bytes())
    whole.push(first)
    assert whole.push(second) == ("é", False)
