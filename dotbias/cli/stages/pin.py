"""Runs the stage `pin`: keeps the champion in its place until it is released."""

from __future__ import annotations

from dotbias.cli.console.logs import set_up_logs, silent_imports
from dotbias.cli.flags import JSON, OUTPUT_ROOT, VERBOSE, Flag
from dotbias.cli.stage import Arguments, Outcome, Stage

RELEASE = Flag("--release", "end the pin, so that the next run can become champion", {"action": "store_true"})


def run(arguments: Arguments) -> Outcome:
    """Pins the champion, or releases it."""
    set_up_logs(arguments.verbose)
    with silent_imports(arguments.verbose):
        from dotbias.retraining.serving import pin
    champion = pin(arguments.output_root, not arguments.own["release"])
    pinned = ", pinned" if champion.pinned else ""
    return Outcome(
        f"Serving     {champion.run_id}, version {champion.version}{pinned}\n", champion.model_dump(mode="json")
    )


STAGE = Stage("pin", "keeps the champion until it is released", (RELEASE, OUTPUT_ROOT, JSON, VERBOSE), run)
