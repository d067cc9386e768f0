"""Training on a cluster: the bits of one machine, whoever does what, and whoever dies."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import stores
import trainings
from apache_beam.options.pipeline_options import PipelineOptions
from test_dataset import random_documents, write_examples
from trainings import (
    TABLES_WITH_NGRAMS,
    digests,
    in_midst_of_work,
    losses,
    small_examples,
    too_few_examples,
)

from components import trainer
from components.artifacts import VOCABULARY, Examples, Model
from components.errors import NotBlessedError, SettingsError, SkipstreamError
from components.places.directory import Directory
from components.places.place import open_place
from components.trainer import merge
from components.trainer.cluster import station, work
from components.trainer.cluster.hand import Hand
from components.trainer.cluster.job import Job
from components.trainer.cluster.launcher import Cluster, remove
from components.trainer.cluster.station import GoneError, Station
from components.trainer.cluster.work import Schedule
from components.trainer.dataset import SkipGrams
from components.trainer.merge import Delta
from components.trainer.model import SkipGram
from components.trainer.rounds import BLOCK, Round
from components.trainer.sharing import Sharing
from components.trainer.trainer import chosen

# Two epochs of some rounds of a block for each shard; no tokens are left for one in the last round.
SHARDS = 3
SETTINGS = trainings.SETTINGS.model_copy(
    update={"epochs": 2, "shards": SHARDS, "distributed": True}
)


def documents() -> list[list[int]]:
    """Of 26 blocks, at about 20 tokens a document."""
    return random_documents(0, 26 * BLOCK // 20 + 20)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    path = tmp_path_factory.mktemp("examples")
    return write_examples(path, documents(), types=50, held_out=False)


@pytest.fixture(scope="module")
def schedule(examples: Examples) -> Schedule:
    settings = chosen(SETTINGS, examples)
    data = SkipGrams(examples, settings)
    assert data.blocks % SHARDS == SHARDS - 1
    found = Schedule.of(data, SkipGram(data, settings).training)
    first, last = found.ends
    assert 5 < first < found.every + first < last
    assert not found.is_kept(last - 1)
    return found


# What nobody can tell from the claim of a hand on another machine.
DEAD = json.dumps({"machine": "other", "pid": 1, "began": "1"}).encode()


def train(examples: Examples, path: Path, *flags: str, **options: Any) -> Model:
    path.mkdir(exist_ok=True)
    settings = SETTINGS.model_copy(update=options.pop("settings", {}))
    out = Model(path, "model")
    return trainer.build(examples, settings=settings, out=out, beam_options=flags, **options)


@pytest.fixture(scope="module")
def expected(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """What one machine makes of it."""
    path = tmp_path_factory.mktemp("one")
    return train(examples, path, settings={"distributed": False})


@pytest.fixture
def directory(examples: Examples, tmp_path: Path) -> Path:
    """A work directory in which nothing is done yet."""
    prepare(examples, tmp_path / "work")
    return tmp_path / "work"


def prepare(examples: Examples, path: Path, **update: Any) -> None:
    settings = chosen(SETTINGS.model_copy(update=update), examples)
    data = SkipGrams(examples, settings)
    model = SkipGram(data, settings, Sharing.of(examples / VOCABULARY, settings))
    Cluster(str(path), [], model, data, settings)._prepare(examples, 0)


def new_station(path: Path) -> Station:
    """One of its own, as in another process."""
    place = Directory(path)
    return Station(place, place.read(work.TRAINING) or b"")


def work_until(there: Station, state: int, patience: float = 9) -> None:
    """Let one hand bring the tables of a station to a state."""
    one = Hand(there, 0, "CPU:0", patience)
    while there.state < state:
        if not one._look():
            time.sleep(0.01)


def finish(there: Station, patience: float = 9) -> None:
    """Let one hand work to the end, even if the others have come there."""
    one = Hand(there, 0, "CPU:0", patience)
    found: bool | None = False
    while found is not None:
        try:
            found = one._look()
        except GoneError:
            there.catch_up(one._state)
        if not found:
            time.sleep(0.01)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def tables(there: Station) -> dict[str, str]:
    """As `digests`."""
    with TemporaryDirectory() as directory:
        for name, table in zip(("vectors", "contexts"), there.training.tables, strict=True):
            table.save(Path(directory, f"{name}.npy"))
        return digests(Path(directory))


@pytest.fixture
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Beam's flags for hands of one process, which share a device and do not wait for it."""
    monkeypatch.setattr("components.threads.devices", lambda kind: ["CPU:0"] * 4)
    return ["--direct_num_workers=4", "--direct_running_mode=multi_threading"]


def test_several_hands_of_a_process_give_the_bits_of_one_machine(
    examples: Examples, expected: Model, tmp_path: Path, four_at_once: list[str]
) -> None:
    model = train(examples, tmp_path, *four_at_once)
    assert digests(model.path) == digests(expected.path)
    assert losses(model.path) == losses(expected.path)
    assert sorted(os.listdir(model.path)) == sorted(os.listdir(expected.path))


def test_hands_with_tables_of_their_own_share_the_work(
    directory: Path, expected: Model, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    makers: set[int] = set()
    write, everyone = Directory.write, threading.Barrier(3)

    def count(place: Directory, name: str, content: bytes) -> None:
        if threading.get_ident() not in makers:
            makers.add(threading.get_ident())
            everyone.wait(60)  # Nobody goes on before each has made something.
        made.append(name)
        write(place, name, content)

    machines = [new_station(directory) for _ in range(3)]
    monkeypatch.setattr(Directory, "write", count)
    threads = [threading.Thread(target=finish, args=[machine]) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rounds = len(schedule.rounds)
    assert [machine.state for machine in machines] == [rounds] * 3
    assert all(tables(machine) == digests(expected.path) for machine in machines)
    kept = sum(schedule.is_kept(state) for state in range(1, rounds + 1))
    each_round = SHARDS + len(machines[0].merged) + 1  # The record.
    assert len(made) == len(set(made)) == rounds * each_round + kept * len(machines[0].snapshot)


def test_with_ngrams_several_hands_of_a_process_give_the_bits_of_one_machine(
    tmp_path: Path, four_at_once: list[str]
) -> None:
    examples = small_examples(tmp_path / "examples")
    ngrams = {"min_ngram": 3, "max_ngram": 6, "buckets": 1000}
    alone = train(examples, tmp_path / "alone", settings={"distributed": False, **ngrams})
    assert digests(alone.path).keys() == TABLES_WITH_NGRAMS
    together = train(examples, tmp_path / "together", *four_at_once, settings=ngrams)
    assert digests(together.path) == digests(alone.path)
    assert losses(together.path) == losses(alone.path)
    # A hand that comes late has what was moved, and no vector yet.
    prepare(examples, tmp_path / "work", **ngrams)
    first = new_station(tmp_path / "work")
    work_until(first, first.schedule.ends[0] + 2)
    late = new_station(tmp_path / "work")
    assert late.state < first.state
    finish(late)
    finish(first)
    for one in first, late:
        one.training.compose([np.arange(50, dtype=np.int32)], one._workers)
        for name, table in zip(("vectors", "contexts"), one.training.tables, strict=True):
            np.testing.assert_array_equal(table.rows, np.load(alone.path / f"{name}.npy"))


def test_who_comes_late_or_falls_behind_catches_up(
    directory: Path, expected: Model, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, slow = new_station(directory), new_station(directory)
    epoch, end = schedule.ends
    work_until(first, epoch + 3)
    late = new_station(directory)
    assert late.state == epoch  # The newest snapshot.
    work_until(late, epoch + 3)
    assert tables(late) == tables(first)
    finish(late)
    # What led to the newest snapshot in the midst of an epoch is gone.
    newest = max(state for state in range(end) if schedule.is_kept(state))
    assert min(map(int, os.listdir(directory / "rounds"))) == newest
    assert sorted(map(int, os.listdir(directory / "tables"))) == [epoch, newest, end]
    assert not list(directory.glob("rounds/*/shard-*"))
    assert slow.state == 0
    # Who was slow to clean up claims that in a round that is gone.
    slow.place.create(f"{work.round_directory(0)}/claim-clean", DEAD)
    monkeypatch.setattr(Station, "learn", raising(AssertionError("not again")))
    finish(slow)
    assert tables(slow) == tables(late) == digests(expected.path)


def test_tables_that_were_not_loaded_to_the_end_are_loaded_again(
    directory: Path, expected: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, other = new_station(directory), new_station(directory)
    work_until(other, other.schedule.every + 1)
    read = Directory.read

    def fail(place: Directory, name: str) -> bytes | None:
        if name.endswith(there.snapshot[-1].name):
            raise SkipstreamError("the network is away")
        return read(place, name)

    with monkeypatch.context() as patch, pytest.raises(SkipstreamError, match="away"):
        patch.setattr(Directory, "read", fail)
        there.catch_up(0)
    assert there.state == -1  # Neither the old one nor the new one.
    finish(there)
    assert tables(there) == digests(expected.path)


def test_a_hand_that_comes_back_to_a_claim_that_others_took_over_does_no_harm(
    directory: Path, expected: Model
) -> None:
    slow, other = new_station(directory), new_station(directory)
    work_until(slow, 3)
    learned, part = slow.learn(3, 1, "CPU:0"), work.round_directory(3)
    slow.place.create(f"{part}/claim-{part.replace('/', '-')}-{work.shard_file(1)}", DEAD)
    work_until(other, 4, patience=0.2)
    slow.place.write(f"{part}/{work.shard_file(1)}", learned)  # Nobody asks for it any more.
    with pytest.raises(GoneError):
        slow.merge(3, 0)  # The other shards' files are gone.
    threads = [threading.Thread(target=finish, args=[one]) for one in (slow, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tables(slow) == tables(other) == digests(expected.path)


def test_claims_of_the_dead_are_taken_over_after_a_while(
    directory: Path, expected: Model, schedule: Schedule
) -> None:
    there = new_station(directory)
    rounds = range(0, len(schedule.rounds), 8)
    for round_ in rounds:
        part = work.round_directory(round_)
        names = [work.shard_file(shard) for shard in range(SHARDS)] + [n for n, *_ in there.merged]
        for name in names:
            there.place.create(f"{part}/claim-{part.replace('/', '-')}-{name}", DEAD)
    one = Hand(there, 0, "CPU:0", patience=600)
    assert one._look() is False
    begun = time.monotonic()
    finish(there, patience=0.3)
    assert time.monotonic() - begun > len(rounds) * 0.3
    assert tables(there) == digests(expected.path)


def test_a_process_of_hands_takes_as_many_threads_as_the_settings_say(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []
    prepare(examples, tmp_path / "work", threads=3)
    monkeypatch.setattr("components.threads.limit", limits.append)
    assert Station.at(str(tmp_path / "work"))
    assert limits[0] == 3


def test_a_hand_that_fails_gives_back_what_it_claimed(
    directory: Path, expected: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = new_station(directory)
    work_until(there, 2)
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Station, "merge", raising(MemoryError()))
        work_until(there, 3)
    assert not in_midst_of_work(directory)
    finish(there)
    assert tables(there) == digests(expected.path)


def test_a_hand_that_is_left_over_ends_and_writes_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = new_station(directory)
    work_until(there, 2)
    learn = Station.learn

    def remove_meanwhile(*given: Any) -> bytes:
        found = learn(*given)
        remove(there.place)
        return found

    monkeypatch.setattr(Station, "learn", remove_meanwhile)
    for _ in range(2):  # In the midst of its work, and when it looks for some.
        Hand(there, 0, "CPU:0", patience=9).work()
        assert not directory.exists()
    assert Station.at(str(directory)) is None


def test_a_training_may_change_to_the_cluster_and_back(
    examples: Examples, expected: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_round = SkipGram.finish_round
    for epoch, distributed in enumerate([False, True]):

        def stop(
            self: SkipGram, now: int, round_: Round, sums: dict[str, float], end: int = epoch
        ) -> None:
            if now == end and round_.first > 0:
                raise KeyboardInterrupt
            finish_round(self, now, round_, sums)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SkipGram, "finish_round", stop)
            settings = {"distributed": distributed, "checkpoint_minutes": 1e-9}
            train(examples, tmp_path / "out", settings=settings)
    model = train(examples, tmp_path / "out", settings={"distributed": False})
    assert digests(model.path) == digests(expected.path)
    assert losses(model.path) == losses(expected.path)
    assert sorted(os.listdir(model.path)) == sorted(os.listdir(expected.path))


def test_a_job_that_fails_is_started_again_as_long_as_it_comes_further(
    examples: Examples,
    expected: Model,
    schedule: Schedule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, fatal = Directory.write, [work.record_file(4), work.record_file(schedule.ends[0] + 2)]

    def fail(place: Directory, name: str, content: bytes) -> None:
        write(place, name, content)
        if fatal and name == fatal[0]:
            fatal.pop(0)
            raise RuntimeError("the worker is gone")

    monkeypatch.setattr(Directory, "write", fail)
    model = train(examples, tmp_path / "out")
    assert not fatal
    assert digests(model.path) == digests(expected.path)


def test_a_job_that_comes_no_further_fails_the_training(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Station, "learn", raising(SkipstreamError("the bucket is gone")))
    with pytest.raises(SkipstreamError, match="^the bucket is gone$"):
        train(examples, tmp_path / "out")


def test_hands_that_write_elsewhere_are_noticed(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "start", lambda *_: lambda: None)
    with pytest.raises(SkipstreamError, match="must see the same files"):
        train(examples, tmp_path / "out")


def test_a_job_that_ends_before_the_training_is_to_be_run_again_and_goes_on_at_its_last_round(
    examples: Examples,
    expected: Model,
    schedule: Schedule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = schedule.ends[0] + 2

    def start(self: Job, *_: object) -> Callable[[], None]:
        return lambda: work_until(new_station(Path(self._address)), rounds)

    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(SkipstreamError, match="before it.*again"):
        patch.setattr(Job, "start", start)
        train(examples, out)
    done = os.listdir(out / "work" / "records")
    assert len(done) == rounds
    write, written = Directory.write, set()

    def watch(place: Directory, name: str, content: bytes) -> None:
        written.add(name)
        write(place, name, content)

    monkeypatch.setattr(Directory, "write", watch)
    model = train(examples, out)
    assert digests(model.path) == digests(expected.path)
    assert losses(model.path) == losses(expected.path)
    assert sorted(os.listdir(out)) == sorted(os.listdir(expected.path))
    assert not written & {f"records/{name}" for name in done}  # What was done is not done again.


def test_a_training_that_diverges_stops_its_hands(
    examples: Examples, schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.trainer.callbacks.LARGEST_NORM", 0.0)
    with pytest.raises(NotBlessedError, match="diverged"):
        train(examples, tmp_path / "out", settings={"epochs": 20})
    # Of twenty epochs.
    assert len(os.listdir(tmp_path / "out" / "work" / "records")) < 5 * len(schedule.rounds)


def test_patience_ends_it_with_the_best_vectors(tmp_path: Path) -> None:
    examples = too_few_examples(tmp_path / "examples")
    settings = {"epochs": 40, "patience": 1, "learning_rate": 1.0}
    one = train(examples, tmp_path / "one", settings={**settings, "distributed": False})
    several = train(examples, tmp_path / "several", settings=settings)
    assert losses(one.path) == losses(several.path)
    assert digests(one.path) == digests(several.path)


def test_the_work_may_lie_in_a_bucket(
    examples: Examples, expected: Model, tmp_path: Path, gs: stores.Bucket
) -> None:
    model = train(examples, tmp_path / "out", shared=f"{gs.url}/work")
    assert digests(model.path) == digests(expected.path)
    assert losses(model.path) == losses(expected.path)
    assert open_place(gs.url).files("work") == {}


def test_outputs_that_share_a_place_have_work_directories_of_their_own(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def refuse(address: str, *_: object) -> Any:
        used.append(address)
        raise SkipstreamError("no workers")

    monkeypatch.setattr("components.trainer.cluster.launcher.Cluster", refuse)
    for out in ("one", "two", "one"):
        with pytest.raises(SkipstreamError, match="no workers"):
            train(examples, tmp_path / out, shared=str(tmp_path / "shared"))
    assert used[0] == used[2] != used[1]


def test_parts_merged_apart_are_the_table_merged_as_a_whole() -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(300, 12)).astype(np.float32)
    along = merge.directions(draw.normal(size=(64, 12)).astype(np.float32))
    deltas = []
    for _ in range(3):
        ids = np.flatnonzero(draw.random(300) < 0.4).astype(np.int32)
        moves = draw.normal(size=(len(ids), 12)).astype(np.float32)
        paths = draw.random(len(ids)).astype(np.float32)
        deltas.append(Delta(ids, table[ids] + moves, paths))
    before = table.copy()
    ids, rows, paths = station.merged(table, deltas, along)
    assert (table == before).all()
    merge.merge(table, deltas, along)
    assert (table[ids] == rows).all()
    assert (paths == merge.paths(ids, deltas)).all()
    others = np.setdiff1d(np.arange(300), ids)
    assert len(others)
    assert (table[others] == before[others]).all()


def test_what_a_shard_found_is_read_part_by_part(examples: Examples, directory: Path) -> None:
    there = new_station(directory)
    training, dimensions = there.training, SETTINGS.dimensions
    training._cuts = [np.array([0, 7, 7, 30, 50]), np.array([0, 25, 50])]
    epoch, round_ = there.schedule.rounds[0]
    found = training.learn(epoch, round_, there.data.span(epoch, round_.first, round_.blocks))
    content = work.packed(found, training)
    parts = work.merged_parts(training)
    head = work.read_head(content[: work.head_bytes(len(parts))])
    assert head[:3] == (found.loss, found.pairs, found.steps)
    for index, (_, table, part) in enumerate(parts):
        start, size = work.range_of(head, index, dimensions)
        delta = work.read_delta(content[start : start + size], dimensions)
        wanted = training.part_of(found.deltas[table], table, part)
        for field, original in zip(delta, wanted, strict=True):
            np.testing.assert_array_equal(field, original)
    assert start + size == len(content)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--no_wait_until_finish"], "must be waited for"),
        ([], "workers on Dataflow must write to a bucket, got /work"),
    ],
)
def test_a_job_that_cannot_train_is_refused(
    options: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DataflowRunner:
        """Beam's asks the network."""

    def read(flags: list[str]) -> tuple[Any, Any]:
        return DataflowRunner(), PipelineOptions(flags)

    monkeypatch.setattr("components.trainer.cluster.job.runner_and_options", read)
    with pytest.raises(SettingsError, match=reason):
        Job(options, "/work")
