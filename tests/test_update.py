"""What an update may replace. What it computes is tested with the Spark runs that it is made for."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from recsys.config import parse_config
from recsys.data.weigh import interactions_from_table
from recsys.errors import RunFolderError
from recsys.models.collaborative.als import ALS
from recsys.models.collaborative.popular import Popular
from recsys.models.combining.cascade import Cascade
from recsys.runfolder import RunFolder
from recsys.saved.bundle import write_bundle
from recsys.saved.open_model import SavedModel, open_model
from recsys.saved.update import update


@pytest.fixture
def packed(tmp_path):
    """Return a bundle as that of an ALS run on Spark, and write ``late.csv`` beside it."""
    pairs = pd.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "y"], "value": 1.0, "timestamp": 0.0})
    history = interactions_from_table(pairs)
    als = ALS.from_factors(np.eye(2, dtype=np.float32), np.ones(2, dtype=bool))
    config = parse_config({"data": {"events": "events.csv"}})
    with RunFolder.writing(tmp_path / "run") as run:
        run.write_text("config.toml", config.to_toml())
        run.write_json("metrics.json", {"models": {"als": {}}})
        run.write_manifest(seed=0, inputs=[], hops=[], started=datetime.now(UTC))
    saved = SavedModel(
        name="als",
        model=Cascade({"als": als, "popular": Popular().fit(history)}),
        history=history,
        items=pd.DataFrame({"item_id": ["x", "y"]}),
        config=config,
        user_factors=np.ones((2, 2), dtype=np.float32),
    )
    write_bundle(saved, tmp_path / "bundle", RunFolder.open(tmp_path / "run"), sources=[])
    (tmp_path / "late.csv").write_text("user_id,item_id,value,timestamp\nc,x,1,9\n")
    return tmp_path / "bundle"


def test_an_update_may_replace_the_bundle_that_it_updates(packed):
    update(packed, packed.parent / "late.csv", packed)
    assert len(open_model(packed).history.users) == 3


def test_an_update_replaces_no_run_and_nothing_else_that_it_reads(packed):
    late, run, retrained = (packed.parent / name for name in ("late.csv", "run", "retrained"))
    with pytest.raises(RunFolderError, match="this is a run, and a bundle replaces only a bundle"):
        update(packed, late, run)
    update(packed, late, retrained)
    whole = sorted(retrained.rglob("*"))
    with pytest.raises(RunFolderError, match="retrained is read from this folder"):
        update(packed, late, retrained, against=retrained)
    with pytest.raises(RunFolderError, match=r"history\.parquet is read from this folder"):
        update(packed, retrained / "split" / "history.parquet", retrained)
    assert sorted(retrained.rglob("*")) == whole
    assert len(open_model(packed).history.users) == 2
