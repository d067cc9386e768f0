"""report.html: what it says, that nothing of the corpus is markup in it, and when it is written."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outputs import Output
from stages import run, step
from threadpoolctl import threadpool_limits

from components.artifacts import Corpus, PushedModel
from components.errors import NotBlessedError
from pipeline import cli
from pipeline.commands import report as command
from pipeline.report import FILE, words
from pipeline.report.facts import Facts
from pipeline.report.page import render
from pipeline.store import Store

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img/src=x/onerror=alert(2)>",
    '"quoted"',
    "it's",
    "&amp;",
    "{{7*7}}",
    "<!--",
    "שלום",
    "a\u202eb",
    "a\u2028b",
    "😀",
    "x" * 2000,
]
TOKENS = [f"word{n}" for n in range(40)]
DRIFT = {
    "words": {
        "coverage": 0.95,
        "new": {"types": 3, "top": ["<new>", "newer"]},
        "vanished": {"types": 2, "top": ["gone"]},
    },
    "neighbors": {"words": 40, "of": 10, "overlap": 0.83, "churned": {"words": 1, "top": ["lost"]}},
    "procrustes": {"words": 40, "residual": 0.25},
    "now": {"median_norm": 2.0, "mean_cosine": 0.1},
    "before": {"median_norm": 2.1, "mean_cosine": 0.1},
    "moved": [
        {"token": "turned", "cosine": 0.4, "kept": 1, "before": ["old"], "now": ["fresh"]},
    ],
}
BEFORE = {
    "version": 6,
    "missing": [],
    "losses": {"own_documents": {"now": 1.0, "before": 1.05}},
    "word_pairs": {"pairs.tsv": {"spearman": 0.6, "covered": 340, "total": 353}},
    "analogies": {},
    "drift": DRIFT,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "out")


class Page(HTMLParser):
    """The text of a page, and what its tags are and ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.text += " "
        self.tags.append(tag)
        self._inside = tag
        given = dict(attrs)
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "action")
        ]
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def page_of(store: Store) -> Page:
    return Page(render(Facts(store)))


def data_of(page: Page) -> Any:
    return json.loads(page.scripts[0])


def naive_nearest(vectors: np.ndarray, count: int) -> list[list[int]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = []
    for id_, row in enumerate(unit @ unit.T):
        others = [other for other in range(len(row)) if other != id_]
        found.append(sorted(others, key=lambda other: (-row[other], other))[:count])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_are_those_of_a_naive_search(seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors = draw.integers(-3, 4, (1207, 4)).astype(np.float32) + np.float32(
        0.5
    )  # Many are equal.
    rows, cosines = words.nearest(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert rows.shape == cosines.shape == (1207, 10)
    assert not (rows == np.arange(1207)[:, np.newaxis]).any()
    wanted = np.sort(unit @ unit.T - 9 * np.eye(1207, dtype=np.float32), axis=1)[:, :-11:-1]
    np.testing.assert_allclose(cosines, wanted, atol=1e-6)
    np.testing.assert_allclose(np.einsum("wkd,wd->wk", unit[rows], unit), cosines, atol=1e-6)


def test_equal_words_come_in_the_order_of_their_frequency() -> None:
    vectors = np.array([[1, 0], [2, 0], [0, 1], [3, 0], [-1, 0]], np.float32)
    assert words.nearest(vectors, 2)[0].tolist() == [[1, 3], [0, 3], [0, 1], [0, 1], [2, 0]]


@pytest.mark.parametrize("types", [1, 2, 3, 4, 5, 40])
def test_few_words_have_a_map_and_neighbours_too(types: int) -> None:
    vectors = Output(None, ["a"] * types).vectors  # type: ignore[arg-type]
    assert words.nearest(vectors)[0].shape == (types, min(10, types - 1))
    places = words.positions(vectors)
    assert places.shape == (types, 2) and np.abs(places).max() <= words.EXTENT
    assert words.positions(np.ones_like(vectors)).shape == (types, 2)


def test_the_map_has_the_same_bits_on_any_number_of_threads(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(800, 100)).astype(np.float32)
    program = (
        "import sys, numpy as np\n"
        "from pipeline.report import words\n"
        "np.save(sys.argv[2], words.positions(np.load(sys.argv[1])))\n"
    )
    files = tmp_path / "vectors.npy", tmp_path / "places.npy"
    np.save(files[0], vectors)
    three = os.environ | {"OMP_NUM_THREADS": "3", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program, *files], env=three, check=True)
    with threadpool_limits(1):
        assert words.positions(vectors).tobytes() == np.load(files[1]).tobytes()


def test_the_map_keeps_what_is_alike_together() -> None:
    draw = np.random.default_rng(0)
    centres = 4 * draw.normal(size=(4, 12))
    vectors = (np.repeat(centres, 50, 0) + draw.normal(size=(200, 12))).astype(np.float32)
    places = words.positions(vectors).astype(float)
    distances = np.linalg.norm(places[:, np.newaxis] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :5]
    assert (nearest // 50 == np.arange(200)[:, np.newaxis] // 50).mean() > 0.95


def test_the_page_says_what_was_made_and_how_good_it_is(store: Store) -> None:
    Output(store, TOKENS).whole(before=BEFORE)
    page = page_of(store)
    text = " ".join(page.text.split())
    for said in (
        "40 words from 4 documents",
        "✓ Blessed Version 1 is what is served.",
        f"skipstream neighbors {store.address} word0",
        f"The SavedModel is {store.address}/serving/1.",
        "Held-out loss, nats a pair (guessing by frequency: 2.650)",
        "evaluator.max_loss 1.000 below 2.630 ✓ yes",
        "Loss on own held-out documents, words of both evaluator.max_loss_increase "
        "1.000 (was 1.050) at most 1.150 ✓ yes",
        "of the neighbours stayed 83.0 %",
        "turned 0.400 old fresh",
        "pairs.tsv 0.610 Spearman 340 of 353",
        "trainer.dimensions Length of a vector. 12 100",
        "files skipped damaged parts 2",
    ):
        assert said in text, said
    order = ["gate", "words", "learning", "corpus", "moved", "costs", "settings", "origin"]
    assert [id_ for id_ in page.ids if id_ in order] == order
    assert len(set(page.ids)) == len(page.ids)


def test_the_first_version_has_nothing_that_moved(store: Store) -> None:
    Output(store, TOKENS).whole()
    assert "moved" not in page_of(store).ids


def test_a_refusal_is_explained_at_the_top(store: Store) -> None:
    Output(store, TOKENS).whole(reasons=("the loss is <too> high", "too much moved"))
    text = " ".join(page_of(store).text.split())
    said = "✗ Refused The model is not served. the loss is <too> high too much moved"
    assert said in text
    assert text.index(said) < text.index("Verdict Words")
    assert store.last(PushedModel) is None
    assert f"skipstream neighbors {store.address}/exporter/" in text


def test_a_refused_corpus_is_not_shown_with_the_model_of_the_run_before(store: Store) -> None:
    Output(store, TOKENS).whole()
    Output(store, ["other"]).describe(min_kept_share=0.99)
    page = page_of(store)
    text = " ".join(page.text.split())
    assert "✗ Refused The corpus was not trained on. the kept share must be at least 0.99" in text
    assert "1 words from 4 documents" in text
    assert not {"words", "learning"} & set(page.ids)
    assert data_of(page)["words"] is None


def test_a_stage_that_failed_is_named_with_its_reason(store: Store) -> None:
    Output(store, TOKENS).whole(reasons=())
    other = Output(store, TOKENS[:-1])
    other.describe()
    other.train()
    other.evaluate()

    def refuse(out: PushedModel) -> PushedModel:
        raise NotBlessedError("somebody rolled back from it")

    with pytest.raises(NotBlessedError):
        other.make(PushedModel, refuse)
    text = " ".join(page_of(store).text.split())
    assert "✗ Refused The model is not served. somebody rolled back from it" in text


def test_a_run_under_way_is_called_unfinished(store: Store) -> None:
    Output(store, TOKENS).describe()
    assert "Unfinished The run came to statistics_gen." in " ".join(page_of(store).text.split())


def test_the_corpus_cannot_write_markup(store: Store) -> None:
    before = BEFORE | {"drift": DRIFT | {"moved": [DRIFT["moved"][0] | {"now": HOSTILE[:2]}]}}
    Output(store, HOSTILE).whole(before=before)
    html = render(Facts(store))
    page = Page(html)
    assert page.tags.count("script") == 3 and "img" not in page.tags
    assert "alert(1)</script>" not in html and "<img/" not in html
    assert "a <b>.txt" in page.text and "{{7*7}}" in page.text
    shown = data_of(page)["words"]["tokens"]
    assert shown[:2] == HOSTILE[:2]
    assert shown[-1] == "x" * 48 + "…"
    assert shown[8] == "a\\u202eb"


def test_the_page_asks_for_nothing_and_runs_its_own_scripts_alone(store: Store) -> None:
    Output(store, HOSTILE).whole(before=BEFORE)
    html = render(Facts(store))
    page = Page(html)
    assert all(reference.startswith("#") for reference in page.references)
    assert {reference[1:] for reference in page.references} <= set(page.ids)
    assert not re.search(r"url\(|@import", html.split("</style>")[0])
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', html)
    policy = policy.replace("&#39;", "'")
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()) for s in page.scripts[1:]]
    sources = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    assert policy.startswith(f"default-src 'none'; script-src {sources}; ")
    assert len(html.encode()) < 5_000_000


def test_the_data_hold_every_neighbour(store: Store) -> None:
    output = Output(store, TOKENS).whole()
    found = data_of(page_of(store))["words"]
    rows = np.frombuffer(base64.b64decode(found["neighbors"]), "<u2").reshape(40, 10)
    assert rows.tolist() == naive_nearest(output.vectors, 10)
    cosines = np.frombuffer(base64.b64decode(found["cosines"]), "<i2").reshape(40, 10)
    unit = output.vectors / np.linalg.norm(output.vectors, axis=1, keepdims=True)
    wanted = np.einsum("wkd,wd->wk", unit[rows.astype(int)], unit)
    np.testing.assert_allclose(cosines / 10_000, wanted, atol=1e-4)


def test_ten_thousand_words_are_a_page_of_two_megabytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.report.page.MAPPED", 50)  # The map alone takes longer.
    Output(store, [f"word{n}" for n in range(10_100)]).whole()
    html = render(Facts(store))
    assert len(html.encode()) < 2_500_000
    assert len(data_of(Page(html))["words"]["tokens"]) == 10_000


def test_the_same_artifacts_have_the_same_bytes(store: Store) -> None:
    Output(store, HOSTILE).whole(before=BEFORE)
    assert render(Facts(store)) == render(Facts(Store.open(store.address)))


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_report_writes_the_page_once_and_prints_where_it_is(
    place: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = place == "bucket"
    address = f"{request.getfixturevalue('gs').url}/out" if bucket else str(tmp_path / "out")
    store = Store.open(address)
    Output(store, TOKENS).whole()
    capsys.readouterr()
    assert cli.run(["report", address]) == 0
    assert capsys.readouterr().out == f"{store.address}/{FILE}\n"
    page = store.place.read(FILE) or b""
    assert b"40 words from 4 documents" in page
    store.place.write(FILE, page + b"<!-- read and kept -->")
    assert cli.run(["report", address]) == 0
    assert (store.place.read(FILE) or b"").endswith(b"kept -->")
    Output(store, TOKENS, seed=1).whole()
    assert cli.run(["report", address]) == 0
    assert not (store.place.read(FILE) or b"").endswith(b"kept -->")


def test_report_of_what_is_no_output_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"skipstream: error: {tmp_path} must be an output whose last run")
    assert error.count("\n") == 1


def test_a_page_that_cannot_be_made_is_a_warning(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Output(store, TOKENS).whole()
    (Path(store.address) / FILE).mkdir()
    capsys.readouterr()
    command.write_if_possible(store)
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {FILE} was not written: ") and error.count("\n") == 1


def test_what_an_artifact_took_is_remembered_by_later_runs(store: Store) -> None:
    made = step(Corpus, lambda out: out.finish(files=1, bytes=1))
    run(store, made, "one")
    first = Store.open(store.address).ledger.uses["example_gen"]
    run(store, made, "two")
    later = Store.open(store.address).ledger.uses["example_gen"]
    assert (later.reused, later.took) == (True, first.seconds)
    assert later.peak_memory_bytes == first.peak_memory_bytes
    assert (first.peak_memory_bytes or 0) > 10_000_000
