"""Makes views of Beam's options once."""

from __future__ import annotations

from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

Options = TypeVar("Options", bound=PipelineOptions)


class ViewedOptions(PipelineOptions):
    """Keeps each view of the options.

    Beam asks for a view over a thousand times while it builds and runs a job, and parses the command line each time: a
    fifth of the CPU time of a job with few rows. All views share their values, so one of each class is enough.
    """

    def view_as(self, cls: type[Options]) -> Options:
        views: dict[type[PipelineOptions], PipelineOptions] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        view = views[cls]
        assert isinstance(view, cls)
        return view

    def __getstate__(self) -> dict[str, Any]:
        # Beam leaves out what must not reach a worker, of these options but not of their views.
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}
