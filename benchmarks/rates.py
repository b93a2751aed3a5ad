"""The highest rate that each of several servers holds, searched side by side."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.open_loop import Point, together

LIMIT_MS = 50.0
STEPS = 1.05  # between two rates that are told apart
TRIES = 3  # of a rate that is missed
LOWEST, HIGHEST = 5.0, 20_000.0  # requests a second
TURN_S = 10.0  # longest that one server is asked while the others wait


@dataclass(frozen=True)
class Trial:
    """A point that a search wants to know."""

    rate: float
    seconds: float


@dataclass(frozen=True)
class Turn:
    """A part of a point, asked for at once."""

    rate: float
    seconds: float
    number: int  # in its point
    most_over: int  # requests over the limit that the whole point has left


Search = Generator[Trial, Point, list[Point]]


def in_time(point: Point) -> bool:
    """Whether a rate is held."""
    return not point.stopped and point.p99 <= LIMIT_MS


def search(seconds: float) -> Search:
    """Find the highest rate that is held; gives the points of that many seconds, that one last.

    Short points double the rate until it is too high, then halve the interval; whole points go up
    or down from there. If not even LOWEST is held, the last point is one that is not.
    """
    short_s = min(seconds, max(2.0, seconds / 6))

    def tried(rate: float, duration_s: float) -> Generator[Trial, Point, Point]:
        # A hiccup of the machine is not the server's: what is missed gets further chances.
        for _ in range(TRIES):
            point = yield Trial(rate, duration_s)
            if in_time(point):
                break
        return point

    low, high = LOWEST, LOWEST
    while high < HIGHEST and in_time((yield from tried(high, short_s))):
        low, high = high, high * 2
    while high / low > STEPS ** 2:
        middle = (low * high) ** 0.5
        held_middle = in_time((yield from tried(middle, short_s)))
        low, high = (middle, high) if held_middle else (low, middle)
    held, missed = [], []
    rate, point = low, (yield from tried(low, seconds))
    while in_time(point) and rate < HIGHEST:
        held.append(point)
        rate *= STEPS
        point = yield from tried(rate, seconds)
    while not in_time(point) and rate > LOWEST and not held:
        missed.append(point)
        rate /= STEPS
        point = yield from tried(rate, seconds)
    return [*missed, point, *held] if held and not in_time(point) else [*missed, *held, point]


def in_turn(searches: Mapping[str, Search],
            ask: Callable[[str, Turn], Point]) -> Iterator[tuple[str, list[Point]]]:
    """Run searches side by side and give what each found, as they end.

    After a turn of one search comes one of the next: a slow minute of the machine is everybody's.
    """
    trials = {name: next(search) for name, search in searches.items()}
    parts: dict[str, list[Point]] = {name: [] for name in searches}
    while trials:
        for name, trial in list(trials.items()):
            done, turns = parts[name], max(1, round(trial.seconds / TURN_S))
            left = int(trial.rate * trial.seconds / 100) - sum(part.over for part in done)
            done.append(ask(name, Turn(trial.rate, trial.seconds / turns, len(done), left)))
            if len(done) < turns and not done[-1].stopped:
                continue
            parts[name] = []
            try:
                trials[name] = searches[name].send(together(done))
            except StopIteration as end:
                del trials[name]
                yield name, end.value
