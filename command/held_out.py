"""The AUC of an exported model on rows that nothing else was done with."""

from __future__ import annotations

import numpy as np

# Of the file; it bounds memory, and is large enough that a call's cost does not count.
_BLOCK_BYTES = 8 << 20


def held_out_auc(export: str, path: str, features: tuple[str, ...], label: str) -> float:
    """Predicts as a server would, from raw tokens.

    Args:
        export: a directory with the SavedModel.
        path: a CSV file with a header.
        features: the columns that the model takes.
        label: the column that is above 0 for positive rows.
    """
    import pyarrow.csv
    import tensorflow as tf

    from pipeline.auc import StreamingAuc

    # The loaded object has to outlive its signature.
    model = tf.saved_model.load(export)
    predict = model.signatures["serving_default"]
    auc = StreamingAuc()
    with pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        convert_options=pyarrow.csv.ConvertOptions(include_columns=[*features, label]),
    ) as batches:
        for batch in batches:
            tokens = {
                name: tf.constant(batch[name].to_pylist() if _is_text(batch[name]) else batch[name].to_numpy())
                for name in features
            }
            auc.add(predict(**tokens)["probability"].numpy(), np.asarray(batch[label]) > 0)
    return auc.result()


def _is_text(column: object) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type))  # type: ignore[attr-defined]
