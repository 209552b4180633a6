"""Lists for all users, against the export's own signature and the rows of the log."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from dotbias.recommending import job, recommend, seen
from dotbias.recommending.blocks import Items
from dotbias.recommending.recommend import RecommendRequest
from dotbias.recommending.results import Recommendations
from pipeline.manifest import DotbiasError
from tests.dotbias.recommending.conftest import Make
from tests.trainer.datasets import write_shard
from tests.trainer.output.test_recommend import KINDS, SEVERAL, SIDES, Exported
from trainer.output.export import export_with_items

pytestmark = pytest.mark.usefixtures("small_blocks")

IN_PROCESS = ["--runner=FnApiRunner"]
RUNNERS = {
    "in process": IN_PROCESS,
    "two threads": [*IN_PROCESS, "--direct_num_workers=2", "--direct_running_mode=multi_threading"],
    "two processes": [*IN_PROCESS, "--direct_num_workers=2", "--direct_running_mode=multi_processing"],
}


def no_progress(*_: object) -> None:
    pass


def run(directory: Path, runner: str = "in process", **options: Any) -> tuple[Recommendations, bool]:
    given = {"k": 5, "format": "parquet", **options}
    request = RecommendRequest(run=str(directory), export=str(directory / "served"), **given)
    made, ran = recommend.recommend(request, RUNNERS[runner], no_progress)
    assert isinstance(made, Recommendations)
    return made, ran


def files(directory: Path) -> dict[str, bytes]:
    root = directory / "recommendations"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def lists(directory: Path, made: Recommendations) -> dict[Any, list[tuple[Any, float]]]:
    found: dict[Any, list[tuple[Any, float]]] = {}
    for part in made.parts:
        table = pyarrow.parquet.read_table(directory / "recommendations" / part.path).to_pylist()
        assert len(table) == part.rows
        for row in table:
            found.setdefault(row["user"], []).append((row["item"], row["score"]))
            assert row["rank"] == len(found[row["user"]])
    return found


def answer(exported: Exported, users: list[Any], without: list[set[Any]], k: int) -> dict[Any, list[tuple[Any, float]]]:
    """Returns what the signature says, with the other features that most rows of a user have."""
    filler = "" if isinstance(exported.rows["movieId"][0], str) else -1
    width = max(1, *map(len, without))
    exclude = [[*items, *([filler] * (width - len(items)))] for items in without]
    asked: dict[str, Any] = {"userId": users}
    if "country" in exported.data.sides:
        rows = list(zip(exported.rows["userId"], exported.rows["country"], strict=True))

        def country(user: Any) -> str:
            of_user = [c for u, c in rows if u == user] or ["never seen"]
            return min(of_user, key=lambda c: (-of_user.count(c), exported.order("userId", "country", c)))

        asked["country"] = [country(user) for user in users]
    got = exported.ask("recommend", **asked, exclude=exclude, k=k)
    named = {
        user: [(item, score) for item, score in zip(items.tolist(), scores.tolist(), strict=True) if item != filler]
        for user, items, scores in zip(users, got["items"], got["scores"], strict=True)
    }
    return {user: rows for user, rows in named.items() if rows}


def train_items(exported: Exported, users: list[Any]) -> list[set[Any]]:
    rows = list(zip(exported.rows["userId"], exported.rows["movieId"], strict=True))
    return [{item for user, item in rows if user == one} for one in users]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_those_of_the_signature_without_train_rows(make: Make, tmp_path: Path, kind: str) -> None:
    exported = make(tmp_path, *KINDS[kind])
    integer = not isinstance(exported.rows["userId"][0], str)
    convert = int if integer else str
    hashed = "userId" in exported.data.num_bins
    options = {}
    if hashed:
        users = sorted(set(exported.rows["userId"]), reverse=True)
        (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in users))
        options["users"] = str(tmp_path / "users.txt")
    else:
        users = [convert(token) for token in exported.vocabulary("userId")]
    made, ran = run(tmp_path, **options)
    known = set(exported.items())
    without = [items & known for items in train_items(exported, users)]
    expected = answer(exported, users, without, 5)
    assert ran and lists(tmp_path, made) == expected
    assert list(lists(tmp_path, made)) == [user for user in users if user in expected]
    assert (made.users, made.items, made.rows) == (len(users), len(known), sum(map(len, expected.values())))
    assert made.short == sum(len(expected.get(user, [])) < 5 for user in users)
    pairs = list(zip(exported.rows["userId"], exported.rows["movieId"], strict=True))
    assert made.seen.rows == len(pairs) and made.seen.used == sum(u in users and i in known for u, i in pairs)
    assert len(made.parts) == -(-len(users) // 7)


def test_named_users_allowed_items_and_excluded_pairs(make: Make, tmp_path: Path) -> None:
    exported = make(tmp_path, SIDES, True)
    users = [exported.vocabulary("userId")[i] for i in (11, 2, 5)]
    # A user outside the vocabulary is a new user, whose pairs in the CSV files are left out.
    users.insert(1, "new")
    items = exported.items()
    allowed = [items[i] for i in range(0, len(items), 2)]
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in [*users, users[0]]))
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in [*reversed(allowed), "unknown"]))
    left_out = [("new", allowed[0]), (users[0], allowed[3]), (users[2], allowed[1]), ("somebody", allowed[0])]
    with open(tmp_path / "bought.csv", "w", newline="") as file:
        csv.writer(file).writerows([("when", "movieId", "userId"), *((1, item, user) for user, item in left_out)])
    made, _ = run(
        tmp_path,
        k=100,
        users=str(tmp_path / "users.txt"),
        items=str(tmp_path / "items.txt"),
        exclude=[str(tmp_path / "bought.csv")],
    )
    without = train_items(exported, users)
    for user, item in left_out[:3]:
        without[users.index(user)].add(item)
    unwanted = set(items) - set(allowed)
    without = [(one | unwanted) & set(items) for one in without]
    assert lists(tmp_path, made) == answer(exported, users, without, len(items))
    assert (made.users, made.unknown_users, made.items, made.unknown_items) == (4, 1, len(allowed), 1)
    assert (made.exclude.rows, made.exclude.used) == (4, 3)
    assert made.short == 4


def test_eval_rows_are_left_out_on_request(make: Make, tmp_path: Path) -> None:
    exported = make(tmp_path, SIDES, False)
    # The eval rows of this dataset are its train rows, so here some other ones.
    manifest = json.loads((tmp_path / "dataset/manifest.json").read_text())
    users, items = [int(token) for token in exported.vocabulary("userId")], exported.items()
    size, crc32 = write_shard(tmp_path / "dataset/eval/part-00000-of-00001.csv.gz", [[0, 3, 1], [0, 5, 1]])
    shard = {"path": "eval/part-00000-of-00001.csv.gz", "rows": 2, "bytes": size, "crc32": crc32}
    manifest["splits"]["eval"] |= {"shards": [shard], "rows": 2}
    (tmp_path / "dataset/manifest.json").write_text(json.dumps(manifest))
    made, _ = run(tmp_path, k=100, splits=("train", "eval"))
    assert (made.seen.rows, made.splits) == (402, ["train", "eval"])
    without = train_items(exported, users)
    without[0] |= {items[3], items[5]}
    assert lists(tmp_path, made) == answer(exported, users, [one & set(items) for one in without], 100)


@pytest.mark.parametrize("string_ids", [False, True])
def test_users_and_pairs_of_parquet_files(make: Make, tmp_path: Path, string_ids: bool) -> None:
    exported = make(tmp_path, SIDES, string_ids)
    convert = str if string_ids else int
    users = [convert(exported.vocabulary("userId")[i]) for i in (5, 2)]
    items = exported.items()
    pyarrow.parquet.write_table(
        pa.table({"when": [1, 2, 3, 4], "userId": pa.array([users[0], users[1], None, users[0]])}),
        tmp_path / "users.parquet",
    )
    pyarrow.parquet.write_table(
        pa.table({"movieId": pa.array([items[1], items[2], None]), "userId": pa.array([users[0], users[1], users[1]])}),
        tmp_path / "bought.parquet",
    )
    made, _ = run(tmp_path, k=100, users=str(tmp_path / "users.parquet"), exclude=[str(tmp_path / "bought.parquet")])
    without = [one & set(items) for one in train_items(exported, users)]
    without[0].add(items[1])
    without[1].add(items[2])
    assert list(lists(tmp_path, made)) == users
    assert lists(tmp_path, made) == answer(exported, users, without, 100)
    assert (made.exclude.rows, made.exclude.used) == (2, 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"user": [1]}), r"users.parquet has no column 'userId'"),
        (pa.table({"userId": ["1"]}), r"users.parquet: ids should be int64, as the model's are. Received: string"),
        (pa.table({"userId": pa.array([None], pa.int64())}), r"users.parquet has no id"),
    ],
)
def test_a_parquet_file_without_users_is_refused(make: Make, tmp_path: Path, table: pa.Table, message: str) -> None:
    make(tmp_path, SIDES, False)
    pyarrow.parquet.write_table(table, tmp_path / "users.parquet")
    with pytest.raises(DotbiasError, match=message):
        run(tmp_path, users=str(tmp_path / "users.parquet"))


@pytest.mark.slow
def test_the_bytes_are_the_same_on_every_runner(make: Make, tmp_path: Path) -> None:
    make(tmp_path, SEVERAL, True)
    made, _ = run(tmp_path)
    first = files(tmp_path)
    assert set(first) == {"recommendations.json", *(part.path for part in made.parts)}
    for runner in ("two threads", "two processes"):
        (tmp_path / "recommendations" / "recommendations.json").unlink()
        assert run(tmp_path, runner)[1]
        assert files(tmp_path) == first


def test_a_second_start_finds_it_done_and_another_request_replaces_it(make: Make, tmp_path: Path) -> None:
    make(tmp_path, SIDES, False)
    made, _ = run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "recommendations").rglob("*")}
    assert run(tmp_path) == (made, False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "recommendations").rglob("*")} == before
    other, ran = run(tmp_path, format="csv", k=3)
    assert ran
    assert set(files(tmp_path)) == {"recommendations.json", *(part.path for part in other.parts)}
    text = (tmp_path / "recommendations" / other.parts[0].path).read_text().splitlines()
    assert text[0] == '"user","rank","item","score"' and len(text) == 1 + other.parts[0].rows
    stored = json.loads((tmp_path / "recommendations" / "recommendations.json").read_text())
    assert stored["k"] == 3 and stored["rows"] == sum(part["rows"] for part in stored["parts"])


def test_nothing_half_written_is_taken_for_whole(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, SIDES, False)
    run(tmp_path)
    complete = files(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    # The parts of another request are moved, but their description is not written.
    with monkeypatch.context() as broken:
        broken.setattr(job, "file_sizes", fail)
        with pytest.raises(OSError, match="the disk is full"):
            run(tmp_path, k=2)
    assert "recommendations.json" not in files(tmp_path)
    made, ran = run(tmp_path)
    assert ran and made.k == 5 and files(tmp_path) == complete


def test_a_start_after_a_kill_makes_only_the_parts_that_are_missing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, SIDES, False)
    made, _ = run(tmp_path)
    complete = files(tmp_path)
    assert len(made.parts) == 5
    for path in complete:
        (tmp_path / "recommendations" / path).unlink()
    best, lists_made = Items.best, []

    def killed(*arguments: Any) -> Any:
        if len(lists_made) == 3:
            raise OSError("killed")
        lists_made.append(1)
        return best(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Items, "best", killed)
        with pytest.raises(Exception, match="killed"):
            run(tmp_path)
    assert "recommendations.json" not in files(tmp_path)
    finished = len(list((tmp_path / "recommendations").glob(".tmp/*/lists/*")))
    assert finished == 3

    def counted(*arguments: Any) -> Any:
        lists_made.append(1)
        return best(*arguments)

    lists_made.clear()
    monkeypatch.setattr(Items, "best", counted)
    again, ran = run(tmp_path)
    assert ran and again == made and files(tmp_path) == complete
    assert len(lists_made) == 2
    # Parts of another request are not taken for those of this one.
    lists_made.clear()
    assert run(tmp_path, k=4)[1] and len(lists_made) == 5


def test_progress_shows_users_up_to_all(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, SIDES, False)
    monkeypatch.setattr("dotbias.recommending.watch._INTERVAL", 0.01)
    best = Items.best
    shown: list[tuple[str, int, int | None]] = []

    looked = threading.Event()

    def told(*what: Any) -> None:
        shown.append(what[:3])
        looked.set()

    def slow(*arguments: Any) -> Any:
        # The watcher looks between two parts; the first time may be a look that had begun before.
        for _ in range(2):
            looked.clear()
            assert looked.wait(60)
        return best(*arguments)

    monkeypatch.setattr(Items, "best", slow)
    request = RecommendRequest(run=str(tmp_path), export=str(tmp_path / "served"), k=5, format="parquet")
    made, _ = recommend.recommend(request, IN_PROCESS, told)
    assert isinstance(made, Recommendations)
    assert shown[-1] == ("recommend", made.users, made.users)
    done = [users for _, users, _ in shown]
    assert done == sorted(done) and len(set(done)) > 3


def test_counts_that_do_not_reconcile_are_not_published(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, SIDES, False)
    # A lost message: the first shard is never read.
    monkeypatch.setattr(recommend, "shards_of", lambda *arguments: seen.shards_of(*arguments)[1:])
    made_without, _ = run(tmp_path)
    assert made_without.seen.rows == 300
    with pytest.raises(DotbiasError, match="300 train rows read of 400"):
        made_without.check(400)
    with pytest.raises(DotbiasError, match="do not reconcile"):
        made_without.model_copy(update={"parts": made_without.parts[1:]}).check(300)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("userId,film\n1,2\n", r"bought.csv should be a CSV file with the columns userId \(int64\) and movieId"),
        ("userId,movieId\n1,2\nx,3\n", r"bought.csv .* 'x'"),
    ],
)
def test_a_file_that_names_no_pairs_is_refused(make: Make, tmp_path: Path, text: str, message: str) -> None:
    make(tmp_path, SIDES, False)
    (tmp_path / "bought.csv").write_text(text)
    with pytest.raises(DotbiasError, match=message):
        run(tmp_path, exclude=[str(tmp_path / "bought.csv")])
    assert "recommendations.json" not in files(tmp_path)


def test_hashed_users_and_items_have_to_be_listed(make: Make, tmp_path: Path) -> None:
    exported = make(tmp_path, SIDES, True, ["userId", "movieId"])
    with pytest.raises(DotbiasError, match="--stage export --items FILE"):
        run(tmp_path)
    items = sorted(set(exported.rows["movieId"]))
    (tmp_path / "items.txt").write_text("".join(f"{item}\n" for item in items))
    export_with_items(str(tmp_path / "served"), str(tmp_path / "items.txt"), str(tmp_path / "other"), "")
    (tmp_path / "served").rename(tmp_path / "former")
    (tmp_path / "other").rename(tmp_path / "served")
    with pytest.raises(DotbiasError, match="--users FILE"):
        run(tmp_path)
    users = sorted(set(exported.rows["userId"]))[:9]
    (tmp_path / "users.txt").write_text("".join(f"{user}\n" for user in users))
    made, _ = run(tmp_path, users=str(tmp_path / "users.txt"))
    assert lists(tmp_path, made) == answer(exported, users, train_items(exported, users), 5)


def test_a_model_of_another_dataset_is_refused(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "one", SIDES, False)
    manifest = json.loads((tmp_path / "one/dataset/manifest.json").read_text())
    manifest["features"]["userId"]["fingerprint"] = "another"
    (tmp_path / "one/dataset/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DotbiasError, match="is a model of another dataset"):
        run(tmp_path / "one")


def test_scores_are_finite(make: Make, tmp_path: Path) -> None:
    make(tmp_path, SIDES, False)
    made, _ = run(tmp_path, k=1000)
    scores = [score for rows in lists(tmp_path, made).values() for _, score in rows]
    assert scores and np.isfinite(scores).all() and made.short == made.users
