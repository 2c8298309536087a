"""Who leads a run that others join: what it hands to them, and what becomes of it when they go."""

import json
import threading
import time
from dataclasses import asdict

import pytest
from fakes import OnePerson, half_failing, some

from nas.drivers import Driver
from nas.joining import HELLO, JOINED, LEADER, SharedPool, parse_task, shared
from nas.workers import NothingToComeError
from spaces import InputError


class Guest:
    """What a driver that joins writes, done by hand."""

    def __init__(self, folder, pool, name="guest", room=2, driver=None):
        self.path = folder / JOINED / f"{pool.token}-{name}"
        self.path.mkdir()
        self.room, self.driver = room, driver or Driver.here()
        self.sign()

    def sign(self):
        (self.path / HELLO).write_text(json.dumps({"driver": asdict(self.driver), "room": self.room}))

    def todo(self):
        return sorted(self.path.glob("todo-*.json"), key=lambda path: int(path.stem[5:]))

    def begin(self, space):
        path = self.todo()[0]
        path.rename(path.with_name(path.name.replace("todo", "doing")))
        number = int(path.stem[5:])
        return number, parse_task(json.loads((self.path / f"doing-{number}.json").read_text()), space)[0]

    def answer(self, number, architecture, **changes):
        result = half_failing(architecture)
        values = {
            "key": architecture.key,
            "metrics": dict(result.metrics),
            "seconds": result.seconds,
            "failure": result.failure,
        }
        (self.path / f"done-{number}.json").write_text(json.dumps(values | changes))


@pytest.fixture
def opened(tmp_path, space, quick):
    """Return a shared pool in a folder, and all that it has said."""
    said = []

    def opened(expiry=60.0):
        pool = SharedPool(OnePerson(), tmp_path, space, said.append, expiry)
        pool.open()
        return pool, said

    return opened


def test_without_others_it_is_the_pool_that_it_is_made_of(opened, space):
    pool, said = opened()
    architectures = some(space, 5)
    for architecture in architectures:
        pool.submit(architecture)
    assert not pool.hungry
    assert pool.idle_share == 0.25
    assert [pool.collect() for _ in architectures] == [half_failing(each) for each in architectures]
    assert (pool.hungry, said) == (True, [])


def test_who_joins_is_handed_as_much_as_it_has_room_for_and_its_answers_are_taken(opened, space, tmp_path):
    pool, said = opened()
    guest = Guest(tmp_path, pool, room=2)
    architectures = some(space, 5)
    for architecture in architectures:
        pool.submit(architecture, "test")
    assert "has joined" in said[0]
    assert len(guest.todo()) == 2
    assert all(json.loads(path.read_text())["split"] == "test" for path in guest.todo())
    assert not pool.hungry
    number, architecture = guest.begin(space)
    guest.answer(number, architecture)
    results = [pool.collect() for _ in range(3)]
    assert results[0] == half_failing(architecture)
    while guest.todo():
        guest.answer(*guest.begin(space))
        results.append(pool.collect())
    results += [pool.collect() for _ in range(5 - len(results))]
    assert {result.architecture for result in results} == set(architectures)
    assert {result.failure for result in results} == {half_failing(each).failure for each in architectures}
    assert pool.hungry


@pytest.mark.parametrize(
    "changes", [{"key": "another"}, {"metrics": None}, {"metrics": {"accuracy": "much"}}, {"seconds": "x"}]
)
def test_an_answer_that_is_none_is_scored_again(changes, opened, space, tmp_path):
    pool, said = opened()
    guest = Guest(tmp_path, pool)
    architectures = some(space, 2)
    for architecture in architectures:
        pool.submit(architecture)
    guest.answer(*guest.begin(space), **changes)
    found = [pool.collect()]
    assert any("is not one" in line for line in said)
    while guest.todo():
        guest.answer(*guest.begin(space))
    found.append(pool.collect())
    assert {each.architecture for each in found} == set(architectures)


def test_what_a_driver_that_left_was_handed_is_taken_back_and_nothing_is_blamed(opened, space, tmp_path):
    pool, said = opened()
    architectures = some(space, 4)
    for round_ in range(3):
        guest = Guest(tmp_path, pool, f"guest{round_}")
        pool.submit(architectures[round_])
        if round_ == 0:
            pool.submit(architectures[3])
        if guest.todo():
            guest.begin(space)
        (guest.path / HELLO).unlink()
        pool._look()
        assert not guest.path.exists()
    results = [pool.collect() for _ in architectures]
    assert {result.architecture for result in results} == set(architectures)
    assert all(result == half_failing(result.architecture) for result in results)
    assert sum("has left" in line for line in said) == 3


def test_what_two_drivers_died_of_has_failed_and_the_rest_is_scored(opened, space, tmp_path):
    pool, _ = opened()
    busy, *architectures = some(space, 4)
    pool.submit(busy)  # the only worker here has it
    dead = Driver(**{**asdict(Driver.here()), "pid": 2**22 + 1})
    victims = []
    for name in ("one", "two"):
        guest = Guest(tmp_path, pool, name, room=3)
        if name == "one":
            for architecture in architectures:
                pool.submit(architecture)
        else:
            pool._listened = 0.0
            pool._look()
            pool._deal()
        victims.append(guest.begin(space)[1])
        guest.driver = dead
        guest.sign()
        pool._guests[guest.path].driver = dead
        pool._look()
    if victims[0] != victims[1]:
        pytest.fail("the suspect comes first")
    results = [pool.collect() for _ in range(4)]
    failed = [result for result in results if result.failure and "died of it 2 times" in result.failure]
    assert [result.architecture for result in failed] == victims[:1]


def test_a_driver_without_a_sign_of_life_is_dead(opened, space, tmp_path):
    pool, said = opened(expiry=0.05)
    elsewhere = Driver(**{**asdict(Driver.here()), "host": "elsewhere"})
    guest = Guest(tmp_path, pool, driver=elsewhere)
    for architecture in some(space, 2):
        pool.submit(architecture)
    assert guest.todo()
    time.sleep(0.1)
    assert len([pool.collect(), pool.collect()]) == 2
    assert any("is dead" in line for line in said)


def test_what_nobody_has_begun_is_withdrawn(opened, space, tmp_path):
    pool, _ = opened()
    guest = Guest(tmp_path, pool, room=2)
    for architecture in some(space, 4):
        pool.submit(architecture)
    number, architecture = guest.begin(space)
    assert pool.withdraw() == 1
    assert guest.todo() == []
    later = threading.Timer(0.1, guest.answer, (number, architecture))
    later.start()
    assert pool.collect() == half_failing(architecture)
    with pytest.raises(NothingToComeError):
        pool.collect()


def test_what_was_withdrawn_is_not_begun_again_when_who_was_at_it_leaves(opened, space, tmp_path):
    pool, _ = opened()
    guest = Guest(tmp_path, pool)
    for architecture in some(space, 2):
        pool.submit(architecture)
    guest.begin(space)
    pool.withdraw()
    (guest.path / HELLO).unlink()
    with pytest.raises(NothingToComeError):
        pool.collect()
    assert not pool._queue


def test_a_driver_that_gives_signs_of_life_is_not_dead_and_one_with_room_is_hungry(opened, space, tmp_path):
    pool, said = opened(expiry=0.3)
    elsewhere = {**asdict(Driver.here()), "host": "elsewhere"}
    guest = Guest(tmp_path, pool, driver=Driver(**elsewhere))
    one, other, third = some(space, 3)
    pool.submit(one)
    assert pool.hungry  # not here, but there
    pool.submit(other)
    assert pool.hungry
    pool.submit(third)
    assert not pool.hungry
    for beat in range(8):
        guest.driver = Driver(**elsewhere | {"beat": float(beat)})
        guest.sign()
        time.sleep(0.06)
        pool._look()
    assert not any("is dead" in line for line in said)


def test_the_folder_is_gone_with_who_leads_and_what_an_earlier_one_left_is_thrown_away(space, tmp_path):
    (tmp_path / JOINED / "old-guest").mkdir(parents=True)
    with shared(OnePerson(), tmp_path, space, print) as pool:
        assert json.loads((tmp_path / JOINED / LEADER).read_text()) == {"token": pool.token}
        assert not (tmp_path / JOINED / "old-guest").exists()
    assert not (tmp_path / JOINED).exists()


@pytest.mark.parametrize("values", [None, [], {}, {"genes": 1, "split": "test"}, {"genes": {}, "split": "test"}])
def test_what_is_no_task_is_refused(values, space):
    with pytest.raises(InputError):
        parse_task(values, space)
