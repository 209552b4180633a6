import pickle

from apache_beam.options import pipeline_options as beam_options

from pipeline.beam.options import ViewedOptions

ARGUMENTS = ["--runner=DataflowRunner", "--project=mine", "--impersonate_service_account=robot", "--experiments=one"]


def test_views_are_those_of_beam_and_share_their_values():
    viewed, usual = ViewedOptions(ARGUMENTS), beam_options.PipelineOptions(ARGUMENTS)
    for name in ("StandardOptions", "GoogleCloudOptions", "DebugOptions", "DirectOptions", "WorkerOptions"):
        kind = getattr(beam_options, name)
        assert vars(viewed.view_as(kind)._visible_options) == vars(usual.view_as(kind)._visible_options)
        assert viewed.view_as(kind) is viewed.view_as(kind)
    viewed.view_as(beam_options.GoogleCloudOptions).region = "europe-west1"
    assert (
        viewed.view_as(beam_options.StandardOptions).view_as(beam_options.GoogleCloudOptions).region == "europe-west1"
    )
    assert viewed.get_all_options()["region"] == "europe-west1"


def test_the_account_that_only_submits_is_not_sent_to_workers():
    options = ViewedOptions(ARGUMENTS)
    sent = pickle.loads(pickle.dumps(options))
    assert options.view_as(beam_options.GoogleCloudOptions).impersonate_service_account == "robot"
    assert sent.view_as(beam_options.GoogleCloudOptions).impersonate_service_account is None
    assert sent.view_as(beam_options.GoogleCloudOptions).project == "mine"
