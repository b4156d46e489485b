"""The tokens of a session: known ones in order, guesses behind them, and what turns the line."""

from __future__ import annotations

from p2pnode.pipeline.line import Line


def fed(prompt: list[int], guesses: list[int]) -> Line:
    """All known tokens were sent in one step, and then the guesses in another."""
    line = Line(prompt)
    line.fly(len(line.unsent(64)), 1.0)
    line.guesses += guesses
    if guesses:
        line.fly(len(guesses), 2.0)
    return line


def test_known_tokens_are_sent_once_and_in_chunks() -> None:
    line = Line([1, 2, 3])
    assert line.unsent(2) == [1, 2]
    line.fly(2, 1.0)
    assert line.unsent(2) == [3]
    line.fly(1, 1.0)
    assert line.unsent(2) == []
    assert line.confirm(4) is None
    assert line.unsent(2) == [4]


def test_a_right_guess_needs_no_other_step() -> None:
    line = fed([1, 2], [3, 4])
    assert line.confirm(3) is True
    assert (line.tokens, line.guesses, line.branch) == ([1, 2, 3], [4], 0)
    assert line.unsent(8) == []
    flight = line.awaited
    assert flight is not None
    assert (flight.position, flight.stop, flight.sent_at) == (2, 4, 2.0)


def test_a_wrong_guess_begins_a_branch_in_which_the_token_is_sent() -> None:
    line = fed([1, 2], [3, 4, 5])
    assert line.confirm(3) is True
    assert line.confirm(9) is False
    assert (line.guesses, line.branch, line.sent) == ([], 1, 3)
    assert line.unsent(8) == [9]
    assert line.awaited is None


def test_only_a_wrong_guess_is_a_turn() -> None:
    line, turns = fed([1, 2], [3, 4, 5]), list[int]()
    line.on_turn = lambda: turns.append(line.branch)
    line.confirm(3)
    assert not turns
    line.confirm(9)
    line.confirm(7)
    assert turns == [1]


def test_steps_are_heard_of_once_per_hop() -> None:
    line = fed([1, 2], [3])
    assert [flight.stop for flight in line.heard(0, 2, 5.0)] == [2]
    assert [flight.stop for flight in line.heard(0, 3, 6.0)] == [3]
    assert line.heard(0, 3, 7.0) == []
    assert [flight.heard for flight in line.flights] == [{0: 5.0}, {0: 6.0}]


def test_a_new_epoch_forgets_guesses_and_branches() -> None:
    line = fed([1, 2], [3, 4])
    line.confirm(9)
    line.restart(1, 0)
    assert (line.tokens, line.guesses, line.branch, line.sent) == ([1, 2, 9], [], 0, 1)
    assert line.unsent(8) == [2, 9]
