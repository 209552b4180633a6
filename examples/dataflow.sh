#!/usr/bin/env bash
# Preprocesses on Dataflow, then trains on this machine. docs/dataflow.md has what to set up first.
#
#   PROJECT=my-project BUCKET=my-bucket REGION=europe-west1 examples/dataflow.sh configs/movielens.yaml 2026-11-24
set -euo pipefail
config=$1
date=$2

# Takes the rows before that date, so that a second run of the same date takes the same rows.
common=(
  --config "$config" --run_id "$date"
  --input "gs://$BUCKET/logs/*"
  --output_root "gs://$BUCKET/dotbias"
  --set "pipeline.window.until=$date"
)

# Waits until the job has ended. Add `--dry_run True` to check everything and send nothing.
python run_pipeline.py "${common[@]}" --stage preprocess \
  --runner DataflowRunner --project "$PROJECT" --region "$REGION" --temp_location "gs://$BUCKET/tmp"

python run_pipeline.py "${common[@]}" --stage train
