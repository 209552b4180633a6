"""The stage `pin`: no run takes the champion's place until it is released."""

from __future__ import annotations

from dotbias.cli.console.logs import set_up_logs, silent_imports
from dotbias.cli.flags import JSON, OUTPUT_ROOT, VERBOSE, Flag
from dotbias.cli.stage import Arguments, Outcome, Stage

RELEASE = Flag("--release", "let the next run that passes the gate take its place again", {"action": "store_true"})


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
