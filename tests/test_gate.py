"""The gate without labels: nights as they come are pushed, poisoned ones are not."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dataset import write_examples
from test_pusher import push
from topics import Documents, natural

from components.artifacts import Examples, InfraBlessing, Statistics
from components.errors import NotBlessedError, SkipstreamError
from components.evaluator.gate import limits, refusals
from components.exporter.embeddings import Embeddings
from components.pusher import pusher
from components.pusher.destination import open_destination
from components.settings import EvaluatorSettings, TransformSettings
from components.vocabulary import Vocabulary
from pipeline import config, results
from pipeline.definition import Chain
from pipeline.report import checks
from pipeline.runner import Runner
from pipeline.store import Store


def facts(**changes: float) -> dict[str, Any]:
    return {"median_norm": 2.0, "mean_cosine": 0.1} | changes


def report(**changes: Any) -> dict[str, Any]:
    """An evaluation that every default limit accepts, with changes below `before`."""
    return {
        "broken_vectors": 0,
        "loss": 2.5,
        "loss_of": "held-out",
        "frequency_loss": 2.65,
        "trained_on": {"tokens": 90_000, "left": 40_000, "epochs": 5, "setting": "trainer.epochs"},
        "word_pairs": {"pairs.tsv": {"spearman": 0.6, "covered": 300}},
        "analogies": {"questions.txt": {"accuracy": 0.2, "covered": 300}},
        "before": {
            "version": 7,
            "missing": (),
            "losses": {"own_documents": {"now": 2.5, "before": 2.5}},
            "word_pairs": {"pairs.tsv": {"spearman": 0.6, "covered": 300}},
            "analogies": {"questions.txt": {"accuracy": 0.2, "covered": 300}},
            "drift": {
                "neighbors": {"overlap": 0.6},
                "words": {"coverage": 0.95, "coverage_with_ngrams": None},
                "now": facts(),
                "before": facts(),
            },
        }
        | changes,
    }


def drifted(**changes: Any) -> dict[str, Any]:
    drift: dict[str, Any] = report()["before"]["drift"]
    return {"drift": drift | changes}


def test_a_night_as_they_come_is_blessed() -> None:
    assert refusals(report(), EvaluatorSettings()) == []
    assert refusals(report() | {"before": None}, EvaluatorSettings()) == []


REFUSED = {
    "max_loss_increase": {"losses": {"documents_before": {"now": 2.9, "before": 2.5}}},
    "max_score_drop": {"word_pairs": {"pairs.tsv": {"spearman": 0.7, "covered": 300}}},
    "min_neighbor_overlap": drifted(neighbors={"overlap": 0.05}),
    "min_coverage": drifted(words={"coverage": 0.5, "coverage_with_ngrams": None}),
    "max_norm_ratio": drifted(now=facts(median_norm=4.1)),
    "max_cosine_increase": drifted(now=facts(mean_cosine=0.4)),
}


@pytest.mark.parametrize("setting", REFUSED)
def test_every_limit_refuses_and_can_be_lifted(setting: str) -> None:
    changed = report(**REFUSED[setting])
    (reason,) = refusals(changed, EvaluatorSettings())
    assert f"evaluator.{setting}" in reason and "version 7" in reason
    assert refusals(changed, EvaluatorSettings.model_validate({setting: None})) == []


@pytest.mark.parametrize("setting", [None, *REFUSED])
@pytest.mark.parametrize("limited", [True, False])
def test_the_page_says_of_every_number_what_the_gate_says(
    setting: str | None, limited: bool
) -> None:
    settings = EvaluatorSettings()
    if setting and not limited:
        settings = EvaluatorSettings.model_validate({setting: None})
    found = report(**REFUSED[setting]) if setting else report()
    rows = list(checks.of_model(found | {"limits": limits(settings, found["frequency_loss"])}))
    refused = [row.setting for row in rows if row.holds is False]
    assert refused == ([f"evaluator.{setting}"] if setting and limited else [])
    assert len(refused) == len(refusals(found, settings))
    assert all((row.holds is None) == row.limit.startswith("no limit") for row in rows)


@pytest.mark.parametrize(
    "changes", [{"loss": 2.69}, {"loss": 2.63}, {"broken_vectors": 2, "before": None}]
)
def test_the_page_says_of_a_model_alone_what_the_gate_says(changes: dict[str, Any]) -> None:
    found = report() | changes
    found["limits"] = limits(EvaluatorSettings(), found["frequency_loss"])
    assert sum(row.holds is False for row in checks.of_model(found)) == 1
    assert len(refusals(found, EvaluatorSettings())) == 1


def test_what_is_just_at_its_limit_is_accepted() -> None:
    found = report()
    drift = found["before"]["drift"]
    settings = EvaluatorSettings(
        max_loss_increase=0,
        max_score_drop=0,
        min_neighbor_overlap=drift["neighbors"]["overlap"],
        min_coverage=drift["words"]["coverage"],
        max_norm_ratio=1,
        max_cosine_increase=0,
    )
    assert refusals(found, settings) == []
    found["limits"] = limits(settings, found["frequency_loss"])
    assert not [row for row in checks.of_model(found) if row.holds is False]
    for length in (1.0, 4.0):  # Half and twice what it was.
        changed = report(**drifted(now=facts(median_norm=length)))
        assert refusals(changed, EvaluatorSettings()) == []


def test_a_loss_is_refused_in_the_words_of_whose_documents_it_is() -> None:
    rise = {"now": 2.75, "before": 2.5}
    changed = report(losses={"own_documents": rise, "documents_before": rise})
    assert refusals(changed, EvaluatorSettings()) == [
        f"the loss on {whose} held-out documents must be at most 0.1 nats a pair "
        "(evaluator.max_loss_increase) above version 7's 2.500, got 2.750"
        for whose in ("its own", "version 7's")
    ]


MORE = "give more text in its own order"
SMALL = "the text is too small, word vectors begin to be of use at 20,000 tokens"


@pytest.mark.parametrize(
    ("loss_of", "tokens", "epochs", "expected"),
    [
        ("held-out", 20_000, 1, f"in 1 epoch: {MORE}, or raise trainer.epochs"),
        ("held-out", 19_999, 2, f"in each of 2 epochs: {SMALL}"),
        ("training", 20_000, 2, f"in each of 2 epochs: {MORE}"),  # They learn it by heart.
    ],
)
def test_what_has_learned_nothing_is_told_what_would_help(
    loss_of: str, tokens: int, epochs: int, expected: str
) -> None:
    found = report() | {"loss": 2.7, "loss_of": loss_of}
    found["trained_on"] |= {"tokens": tokens, "epochs": epochs}
    (reason,) = refusals(found, EvaluatorSettings())
    assert f"its {loss_of} loss" in reason
    assert reason.endswith(f"it saw 40,000 of {tokens:,} tokens {expected}")


def test_ngrams_do_not_make_a_word_known_but_the_reason_tells_of_them() -> None:
    lost = drifted(words={"coverage": 0.5, "coverage_with_ngrams": 0.998})
    assert refusals(report(**lost), EvaluatorSettings()) == [
        "80% of the words of version 7 must still be known (evaluator.min_coverage), got 50.0% "
        "(99.8% with what only n-grams answer for): another corpus needs another --output, or once "
        "--force-push"
    ]


def test_scores_with_ngrams_are_told_and_not_judged() -> None:
    worse = {"spearman": 0.6, "covered": 300, "spearman_with_ngrams": 0.1}
    before = {"spearman": 0.6, "covered": 300, "spearman_with_ngrams": 0.5}
    changed = report(word_pairs={"pairs.tsv": before}) | {"word_pairs": {"pairs.tsv": worse}}
    assert refusals(changed, EvaluatorSettings()) == []


def test_a_version_that_is_gone_is_not_taken_for_none() -> None:
    gone = report(missing=("SavedModel", "trainer/ab12"), losses={}, drift=None)
    assert refusals(gone, EvaluatorSettings()) == [
        "version 7 cannot be compared (evaluator.require_comparison): there is no SavedModel, "
        "no trainer/ab12"
    ]
    assert refusals(gone, EvaluatorSettings(require_comparison=False)) == []


def test_a_fall_of_analogies_or_of_lengths_is_refused() -> None:
    changed = report(analogies={"questions.txt": {"accuracy": 0.26, "covered": 300}})
    assert (
        "accuracy of questions.txt must be at most 0.05"
        in refusals(changed, EvaluatorSettings())[0]
    )
    shorter = report(**drifted(now=facts(median_norm=0.9)))
    assert "within 2 times" in refusals(shorter, EvaluatorSettings())[0]


def test_a_file_of_few_known_questions_hides_no_other() -> None:
    now = {name: {"spearman": 0.6, "covered": 300} for name in ("few.tsv", "pairs.tsv")}
    fallen = {"few.tsv": {"spearman": 0.9, "covered": 99}, "pairs.tsv": {"spearman": 0.9}}
    fallen["pairs.tsv"]["covered"] = 100
    (reason,) = refusals(report(word_pairs=fallen) | {"word_pairs": now}, EvaluatorSettings())
    assert reason.startswith("the spearman of pairs.tsv must be at most 0.05")


def test_a_loss_that_is_no_number_is_refused() -> None:
    for loss in (float("nan"), float("inf")):
        assert "the limit is 2.630" in refusals(report() | {"loss": loss}, EvaluatorSettings())[0]
        losses = {"own_documents": {"now": loss, "before": 2.5}}
        assert "max_loss_increase" in refusals(report(losses=losses), EvaluatorSettings())[0]
    broken = report() | {"broken_vectors": 2, "before": None}
    assert refusals(broken, EvaluatorSettings()) == [
        "all vectors must be finite, got 2 that are not"
    ]


def test_what_was_not_measured_is_not_judged() -> None:
    nothing = {"losses": {"own_documents": {"now": None, "before": None}}, "drift": None}
    few = {"pairs.tsv": {"spearman": 0.9, "covered": 99}}
    assert refusals(report(word_pairs=few), EvaluatorSettings()) == []
    nothing |= {"word_pairs": {"pairs.tsv": {"spearman": None, "covered": 300}}, "analogies": {}}
    assert refusals(report(**nothing), EvaluatorSettings()) == []
    assert (
        refusals(report(losses={}, **drifted(neighbors={"overlap": None})), EvaluatorSettings())
        == []
    )


def shuffled(documents: Documents) -> Documents:
    tokens = [token for document in documents for token in document]
    order = np.random.default_rng(0).permutation(len(tokens))
    return [[tokens[i] for i in order[n : n + 18]] for n in range(0, len(tokens), 18)]


Run = Callable[..., dict[str, Any]]
# Of as many documents, so that XLA compiles once.
YESTERDAY = natural(0, 2000)
TODAY = YESTERDAY[300:] + natural(1, 300)
TOMORROW = TODAY[100:] + natural(2, 100)
ALLOWED = "evaluator.require_comparison=false"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nights") / "out"


def transform(text: Path, settings: TransformSettings, out: Examples) -> Examples:
    """The examples of a text, without Beam."""
    documents = [line.split() for line in text.read_text().splitlines()]
    counts = Counter(token for document in documents for token in document)
    # Vocabularies of one size: XLA compiles what it compiled the night before.
    kept = [(token, count) for token, count in counts.most_common(400) if count >= 5]
    ids = {token: id_ for id_, (token, _) in enumerate(kept)}
    documents_of_ids = [[ids[t] for t in document if t in ids] for document in documents]
    write_examples(out.path, documents_of_ids, len(ids))
    vocabulary = Vocabulary(tuple(ids), np.array([count for _, count in kept]))
    vocabulary.save(out.path / "vocabulary.tsv")
    return out.finish(settings)


@pytest.fixture(scope="module")
def night(output: Path) -> Run:
    text = output.parent / "corpus.txt"

    def run(
        documents: Documents,
        *overrides: str,
        meanwhile: Callable[[], object] = lambda: None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Run all stages, with changes of the trainer's settings; return run.json.

        The corpus is described as acceptable, and the model validated, without looking: what
        happens `meanwhile` happens between the training and the push.
        """
        values = {"dimensions": 16, "sample": 0.01, "epochs": 3, "warm_start": "latest"}
        values |= {"warm_epochs": 2, "warm_learning_rate": 0.05} | changes
        trainer = [f"trainer.{name}={value}" for name, value in values.items()]
        settings = config.load(None, [*trainer, *overrides], [str(text)])
        text.write_text("".join(" ".join(document) + "\n" for document in documents))

        def examples(*_: object, settings: TransformSettings, out: Examples, **__: object) -> Any:
            return transform(text, settings, out)

        def statistics(*_: object, out: Statistics, **__: object) -> Statistics:
            return out.finish(accepted=True, reasons=[])

        def validation(*_: object, out: InfraBlessing, **__: object) -> InfraBlessing:
            meanwhile()
            return out.finish()

        runner = Runner(Store.open(output), settings)
        with pytest.MonkeyPatch.context() as patch, runner:
            patch.setattr("components.transform.transform.build", examples)
            patch.setattr("components.statistics_gen.statistics_gen.build", statistics)
            patch.setattr("components.infra_validator.validator.build", validation)
            Chain(runner, settings).run()
        return runner.report

    run(YESTERDAY)
    return run


def refused(night: Run, output: Path, documents: Documents, **changes: Any) -> dict[str, Any]:
    """Run a night that must be refused; returns its evaluation.json."""
    versions = sorted(path.name for path in (output / "serving").glob("[0-9]*"))
    with pytest.raises(NotBlessedError, match="only a blessed model is pushed: the evaluation"):
        night(documents, **changes)
    assert sorted(path.name for path in (output / "serving").glob("[0-9]*")) == versions
    stages = json.loads((output / "run.json").read_text())["stages"]
    assert stages["evaluator"]["blessed"] is False
    path = Path(stages["evaluator"]["artifact"]) / "evaluation.json"
    evaluation: dict[str, Any] = json.loads(path.read_text())
    assert evaluation["reasons"]
    return evaluation


def test_a_good_night_is_pushed_and_repeated_without_training(night: Run, output: Path) -> None:
    first = json.loads((output / "run.json").read_text())
    stages = night(TODAY)["stages"]
    assert Store.open(output).ledger.destinations == ["serving"]
    trainer, exporter, evaluator = (stages[n] for n in ("trainer", "exporter", "evaluator"))
    assert trainer["warm_start"] == first["stages"]["trainer"]["fingerprint"]
    assert trainer["words_carried_over"] + trainer["new_words"] == exporter["types"]
    assert (first["stages"]["trainer"]["epochs"], trainer["epochs"]) == (3, 2)
    assert evaluator["blessed"] is True
    assert exporter["aligned_to_version"] == evaluator["before_version"] == 1
    assert stages["pusher"]["version"] == 2
    record = json.loads((output / "serving" / ".versions" / "2.json").read_text())
    assert record["artifacts"]["trainer"] == trainer["fingerprint"]
    evaluation = json.loads((Path(evaluator["artifact"]) / "evaluation.json").read_text())
    assert set(evaluation["before"]["losses"]) == {"own_documents", "documents_before"}
    assert "beside version 1" in results.summary(evaluation)
    assert evaluation["limits"]["max_loss"] == evaluation["frequency_loss"] - 0.02
    assert evaluation["limits"]["min_neighbor_overlap"] == 0.1
    # What is compared is what is served: turned.
    cosines = evaluation["before"]["drift"]["self_cosine"]
    assert cosines["as_they_are"]["0.5"] == pytest.approx(cosines["turned"]["0.5"], abs=0.02)

    again = night(TODAY)["stages"]
    assert all(stage["reused"] for stage in again.values())
    assert {n: s["fingerprint"] for n, s in again.items()} == {
        n: s["fingerprint"] for n, s in stages.items()
    }
    # What is served lies where it lay: a word is nearest to what it was.
    old, new = (Embeddings.load(output / "serving" / version) for version in "12")
    words = new.words[:50]
    now, before = new.vectors_of(words)[0], old.vectors_of(words)[0]
    cosines = (now * before).sum(1) / np.linalg.norm(now, axis=1) / np.linalg.norm(before, axis=1)
    assert np.median(cosines) > 0.9


def test_shuffled_text_is_refused(night: Run, output: Path) -> None:
    losses = refused(night, output, shuffled(TODAY))["before"]["losses"]
    before, own = losses["documents_before"], losses["own_documents"]
    assert before["now"] > before["before"] + 0.1
    assert own["now"] < own["before"]  # By its own documents alone, it would be the better one.


def test_half_a_corpus_is_refused(night: Run, output: Path) -> None:
    evaluation = refused(night, output, YESTERDAY[::2])
    assert any("evaluator.min_coverage" in reason for reason in evaluation["reasons"])


def test_a_rate_that_diverges_is_not_pushed(
    night: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.trainer.training.LONGEST_MOVE", 1e9)  # Else nothing diverges.
    with pytest.raises(NotBlessedError, match="training diverged"):
        night(TODAY, warm_learning_rate=1.0, warm_epochs=5)
    assert not json.loads((output / "run.json").read_text())["stages"].get("pusher")


def test_a_base_that_is_gone_means_a_cold_start_that_a_person_has_to_allow(
    night: Run, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    newest = max((output / "serving" / ".versions").glob("*.json"), key=lambda p: int(p.stem))
    served = json.loads(newest.read_text())["artifacts"]
    base = output / "trainer" / served["trainer"]
    base.rename(base.with_name("away"))
    try:
        evaluation = refused(night, output, TOMORROW, epochs=4)
        there_is_no = f"there is no trainer/{base.name}"
        assert evaluation["reasons"] == [
            f"version {newest.stem} cannot be compared (evaluator.require_comparison): "
            f"{there_is_no}"
        ]
        assert evaluation["before"]["losses"] == {}
        assert evaluation["before"]["drift"]
        assert f"  not compared: {there_is_no}" in results.summary(evaluation).splitlines()
        stages = night(TOMORROW, ALLOWED, epochs=4)["stages"]
    finally:
        base.with_name("away").rename(base)
    assert f"starts anew: {base} is gone" in capfd.readouterr().err
    assert "warm_start" not in stages["trainer"]
    assert stages["trainer"]["epochs"] == 4
    assert stages["exporter"]["aligned_to_version"]  # By what is served.


def test_a_push_during_a_run_is_not_overtaken_by_it(
    night: Run, output: Path, tmp_path: Path
) -> None:
    serving = open_destination(output / "serving")
    newest = pusher.read(serving).last

    def meanwhile() -> None:
        assert push(tmp_path, serving, "of another run").version == newest + 1

    said = f"version {newest + 1} was pushed while this was made: run again"
    with pytest.raises(SkipstreamError, match=said):
        # The last model in another storage: it is trained already.
        storage = "exporter.storage=float16"
        night(TOMORROW, ALLOWED, storage, meanwhile=meanwhile, epochs=4)
    assert pusher.read(serving).newest == newest + 1
