"""Airflow DAG: text to served model every night, a task for each stage.

    transform ── train ── evaluate ── validate ── push
        └──────────┴──────────┴──────────┴─────────┴── not_pushed

A gate that refuses the corpus or the model (exit code 3) leads to `not_pushed`. Anything else that
fails is tried again, which goes on where it was; wrong usage (2) is not. Deadlines are what Airflow
3 has in place of SLAs. For Airflow 3.3; deploy/README.md says how to install it.
"""

import os
import shlex
from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# What `skipstream` is on a worker, e.g. `docker run --rm --volume /srv/skipstream:/srv/skipstream
# IMAGE skipstream`: words of a shell.
COMMAND = shlex.split(os.environ.get("SKIPSTREAM_COMMAND", "skipstream"))
CONFIG = os.environ.get("SKIPSTREAM_CONFIG", "/srv/skipstream/settings.toml")
# gs://BUCKET/PATH, s3://BUCKET/PATH, or a directory that all workers see.
OUTPUT = os.environ.get("SKIPSTREAM_OUTPUT", "/srv/skipstream/out")
BEAM_OPTIONS = shlex.split(os.environ.get("SKIPSTREAM_BEAM_OPTIONS", ""))
DEADLINE = timedelta(hours=float(os.environ.get("SKIPSTREAM_DEADLINE_HOURS", "6")))
RETRY_DELAY = timedelta(seconds=float(os.environ.get("SKIPSTREAM_RETRY_SECONDS", "300")))
# Mails leave by the connection `smtp_default`.
ALERTS = os.environ.get("SKIPSTREAM_ALERTS", "root@localhost")
SENDER = os.environ.get("SKIPSTREAM_SENDER", ALERTS)

STAGES = ("transform", "train", "evaluate", "validate", "push")
NOT_PUSHED = "not_pushed"
WRONG_USAGE, REFUSED = 2, 3  # Exit codes; docs/operations.md has all of them.


class Stage(BaseBranchOperator):
    """Runs `skipstream STAGE`; the branch is the next stage or `not_pushed`."""

    template_fields = ("arguments",)

    def __init__(self, *, following: str | None, **options: Any) -> None:
        """The task's id is the stage's name.

        Args:
            following: The task to go on with; None: the stage is the last one.
            options: Of every operator.
        """
        super().__init__(**options)
        self.following = following
        self.arguments = ["--config", CONFIG, "--output", OUTPUT, "--run-id", "{{ run_id }}"]
        self.hook = SubprocessHook()

    def choose_branch(self, context: Any) -> str | None:
        """Run the stage.

        Raises:
            AirflowFailException: The command line is wrong: trying again is no use.
            AirflowException: The stage failed, or was interrupted.
        """
        beam = ["--", *BEAM_OPTIONS] if self.task_id == "transform" and BEAM_OPTIONS else []
        command = [*COMMAND, self.task_id, *self.arguments, *beam]
        code, last_line = self.hook.run_command(command)
        if code == 0:
            return self.following
        if code == REFUSED:
            context["ti"].xcom_push("refusal", last_line)
            return NOT_PUSHED
        kind = AirflowFailException if code == WRONG_USAGE else AirflowException
        raise kind(f"skipstream {self.task_id} exited with {code}: {last_line}")

    def on_kill(self) -> None:
        """Interrupt the stage: the next try goes on where it was."""
        self.hook.send_sigterm()


def mail(subject: str) -> dict[str, str]:
    """What a notifier needs to send `subject`, a template, to those who look after the runs.

    An error's line may quote the corpus: in HTML, it is escaped.
    """
    text = f"{subject.replace(' }}', ' | e }}')}<br>deploy/README.md says what to do."
    return {"from_email": SENDER, "to": ALERTS, "subject": subject, "html_content": text}


LATE = mail(f"skipstream: the run takes more than {DEADLINE}")
FAILED = mail("skipstream: {{ ti.task_id }} of {{ run_id }} failed")
REASON = f"{{{{ ti.xcom_pull(key='refusal', task_ids={STAGES}) | select | join }}}}"
KEPT = mail(f"skipstream: nothing was pushed: {REASON}")

with DAG(
    "skipstream_nightly",
    description="Text to served model, every night.",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 2,
        "retry_delay": RETRY_DELAY,
        "on_failure_callback": SmtpNotifier(**FAILED),
    },
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=DEADLINE,
        callback=AsyncCallback(SmtpNotifier, kwargs=LATE),
    ),
) as dag:
    tasks = [
        Stage(task_id=stage, following=following)
        for stage, following in zip(STAGES, (*STAGES[1:], None), strict=True)
    ]
    not_pushed = EmptyOperator(
        task_id=NOT_PUSHED,
        trigger_rule="none_failed_min_one_success",
        on_success_callback=SmtpNotifier(**KEPT),
    )
    for stage, following in zip(tasks, tasks[1:], strict=False):
        stage >> following
    tasks >> not_pushed
