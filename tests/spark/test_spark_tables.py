"""What the local reader and Spark's say of the same broken files."""

import pandas as pd
import pytest

pytestmark = pytest.mark.spark


def both(spark, path, tmp_path, **settings):
    from recsys.config import DataSettings
    from recsys.data.reading.read import read_tables
    from recsys.spark.data.read import read_tables as read_on_spark

    data = DataSettings(events=str(path), **settings)
    return read_tables(path, reading=data.reading), read_on_spark(spark, data, tmp_path / "work")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("e.csv", ["user_id,item_id,value", "a,b,1", "c,d", "e,,2", "f,g,nan", "h,i,x", *["a,b,2"] * 90]),
        ("e.jsonl", ['{"user_id":"a","item_id":"b"}'] * 90 + ["{", '{"user_id":null,"item_id":"b"}']),
    ],
)
def test_both_engines_refuse_the_same_rows_for_the_same_reasons(spark, name, lines, tmp_path):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    local, large = both(spark, path, tmp_path, max_refused_share=0.2)
    assert large.refusals.counts == local.refusals.counts
    assert len(local.refusals.counts) >= 2
    assert large.refusals.total == local.refusals.total
    assert sorted(map(tuple, large.events.select("user_id", "item_id").collect())) == sorted(
        local.events[["user_id", "item_id"]].itertuples(index=False, name=None)
    )


def test_a_row_of_two_lines_is_read_locally_and_stops_spark_with_the_way_out(spark, tmp_path):
    from recsys.data.reading.read import read_events
    from recsys.errors import InputError

    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,value\n" + "a,b,1\n" * 60 + '"two\nlines",b,1\n')
    assert len(read_events(path)[0]) == 61
    with pytest.raises(InputError, match=r"e\.csv: a quoted field contains a line end.*engine = 'local'"):
        both(spark, path, tmp_path)


def test_dataframes_become_the_input_of_a_run_and_are_never_replaced(spark, world, world_files, tmp_path):
    import pandas as pd
    from builders import run_local_engine, settings_of

    from recsys.config import parse_config
    from recsys.errors import RunFolderError
    from recsys.flow import run
    from recsys.spark.table_files import write_input_tables

    raw = settings_of(tmp_path / "spark", world_files, {}, tables=("events", "items"))
    frames = {
        "events": spark.createDataFrame(pd.read_csv(world_files["events"])),
        "items": spark.createDataFrame(pd.read_csv(world_files["items"])[["item_id", "title"]]),
    }
    config = write_input_tables(parse_config(raw), str(tmp_path / "input"), **frames)
    large = run(config)
    local = run_local_engine(raw | {"out": str(tmp_path / "local")})
    means = [run["models"]["popular"]["ndcg@10"]["mean"] for run in (large, local)]
    assert means[0] == pytest.approx(means[1], abs=1e-12)
    written = (tmp_path / "spark" / "config.toml").read_text()
    assert str(tmp_path / "input" / "items.parquet") in written
    assert str(world_files["events"]) not in written
    before = sorted(path.name for path in (tmp_path / "input").rglob("*"))
    with pytest.raises(RunFolderError, match=r"events\.parquet: exists already and is not replaced"):
        write_input_tables(config, str(tmp_path / "input"), **frames)
    assert sorted(path.name for path in (tmp_path / "input").rglob("*")) == before


@pytest.mark.parametrize("name", ["a:1.csv", "a:1.parquet", "b:1/a.csv"])
def test_a_colon_in_the_name_of_a_table_is_refused(spark, name, tmp_path):
    from recsys.errors import InputError, RunFolderError
    from recsys.spark.table_files import read_table, write_table

    lists = pd.DataFrame({"user_id": ["u"], "item_id": ["x"]})
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith("csv"):
        lists.to_csv(path, index=False)
    else:
        lists.to_parquet(path)
    with pytest.raises(InputError, match="has a colon: rename it"):
        read_table(spark, str(path))
    if ":" in path.name:
        with pytest.raises(RunFolderError, match="has a colon: choose another name"):
            write_table(spark.range(1), str(path.with_name("new:1")))
