"""The tables of measured rows: every CSV is whole, the page is short and links each of them, and
benchmark programs append only the rows that a table takes."""

import csv
import importlib
import json
import re
import sys
from types import SimpleNamespace

import pytest
from conftest import PROJECT

sys.path.append(str(PROJECT / "benchmarks"))
measurements = importlib.import_module("measurements")
table_rows = importlib.import_module("on_gpu.table_rows")
saes = importlib.import_module("saes")

FOLDER = PROJECT / "docs" / "measurements"
PAGE = PROJECT / "docs" / "benchmarks.md"
BY_HAND = {"precision", "planned", "operations", "tried"}


def row_of(name, **more):
    return {**dict.fromkeys(measurements.COLUMNS[name]), **more}


def test_there_is_one_csv_for_each_table():
    assert {file.stem for file in FOLDER.glob("*.csv")} == set(measurements.COLUMNS)


@pytest.mark.parametrize("name", measurements.COLUMNS)
def test_a_csv_parses_and_has_the_columns_of_its_program(name):
    rows = measurements.Table(name).rows()
    assert rows
    columns = [*measurements.COLUMNS[name], *measurements.PROVENANCE]
    with (FOLDER / f"{name}.csv").open(newline="") as opened:
        assert next(csv.reader(opened)) == columns
    for row in rows:
        assert re.fullmatch(r"(\d{4}-\d\d-\d\d)?", row["date"])
        assert any(row[column] for column in measurements.COLUMNS[name])


def test_each_table_has_a_program_or_is_kept_by_hand():
    programs = [*(PROJECT / "benchmarks").glob("*.py"), *(PROJECT / "benchmarks/on_gpu").glob("*")]
    text = "".join(
        file.read_text()
        for file in programs
        if file.suffix == ".py" and file.stem != "measurements"
    )
    written = {
        name for name in measurements.COLUMNS if re.search(rf'Table\("{name}"|"{name}": \[', text)
    }
    assert written == set(measurements.COLUMNS) - BY_HAND


def test_the_page_has_at_most_1500_words_and_links_every_csv():
    text = PAGE.read_text()
    assert len(text.split()) <= 1500
    linked = set(re.findall(r"\]\(measurements/(\w+)\.csv\)", text))
    assert linked == set(measurements.COLUMNS)


def test_a_row_is_appended_with_where_it_comes_from(tmp_path):
    table = measurements.Table("rates", tmp_path)
    table.append(row_of("rates", what="copy", gb_per_s=3020.39357, tflops=None))
    table.append(row_of("rates", what='a, "quoted" name', threads=2))
    first, second = table.rows()
    assert first["what"] == "copy"
    assert first["gb_per_s"] == "3020.39"
    assert first["tflops"] == ""
    assert first["torch"]
    assert "cores of" in first["machine"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", first["date"])
    assert second["what"] == 'a, "quoted" name'
    assert [file.name for file in tmp_path.iterdir()] == ["rates.csv"]


def test_a_row_with_other_columns_is_refused(tmp_path):
    table = measurements.Table("rates", tmp_path)
    row = {**row_of("rates"), "seconds": 3}
    del row["dtype"]
    with pytest.raises(SystemExit) as refused:
        table.append(row)
    assert str(refused.value) == (
        "rates.csv: the columns of a new row are not those of benchmarks/measurements.py"
        " (missing: dtype; unknown: seconds)"
    )
    assert not list(tmp_path.iterdir())


def test_a_file_with_other_columns_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "rates.csv").write_text("what,speed\ncopy,3\n")
    with pytest.raises(SystemExit) as refused:
        measurements.Table("rates", tmp_path)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{tmp_path / 'rates.csv'}: the columns are not those of")
    assert line.endswith("unknown: speed)")
    assert (tmp_path / "rates.csv").read_text() == "what,speed\ncopy,3\n"


def test_a_ragged_row_is_refused(tmp_path):
    table = measurements.Table("rates", tmp_path)
    table.append(row_of("rates", what="copy"))
    table.file.write_text(table.file.read_text() + "copy,3\n")
    with pytest.raises(SystemExit, match="more or fewer cells than the header"):
        table.rows()


def test_a_write_that_fails_leaves_the_file_before(tmp_path, monkeypatch):
    table = measurements.Table("rates", tmp_path)
    table.append(row_of("rates", what="copy"))
    before = table.file.read_text()

    def fails(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(measurements.os, "fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        table.append(row_of("rates", what="again"))
    assert table.file.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["rates.csv"]


def test_rows_of_another_machine_are_added(tmp_path, monkeypatch, capsys):
    there, here = tmp_path / "there", tmp_path / "here"
    measurements.Table("rates", there).append(row_of("rates", what="theirs"))
    measurements.Table("rates", here).append(row_of("rates", what="ours"))
    monkeypatch.setattr(sys, "argv", ["measurements.py", str(there), "--into", str(here)])
    measurements.main()
    rows = measurements.Table("rates", here).rows()
    assert [row["what"] for row in rows] == ["ours", "theirs"]
    assert "1 rows added" in capsys.readouterr().out


def test_a_folder_without_tables_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measurements.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="has no CSV files"):
        measurements.main()


def test_the_command_leaves_out_where_files_went():
    argv = ["/a/steps.py", "--out", "/tmp/x.json", "--rounds", "4", "--into", "/tmp"]
    assert measurements.command(argv) == "steps.py --rounds 4"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_the_rows_of_a_gpu_run_stand_in_the_tables(file):
    """The JSON files of the runs on a GPU, as gpu.py would append them."""
    results = json.loads(file.read_text())
    for stage, found in results.items():
        if stage in ("device", "torch"):
            continue
        by_table = table_rows.rows_of(stage, found)
        assert by_table
        for name, rows in by_table.items():
            standing = [
                {column: row[column] for column in measurements.COLUMNS[name]}
                for row in measurements.Table(name).rows()
            ]
            for row in rows:
                assert set(row) == set(measurements.COLUMNS[name])
                assert {key: measurements.cell(value) for key, value in row.items()} in standing


def test_a_stage_that_failed_gives_no_rows():
    assert table_rows.rows_of("steps", {"error": "Traceback ..."}) == {}
    row = {"architecture": "top_k", "d_model": 64, "width": 512, "error": "Traceback ..."}
    assert table_rows.rows_of("steps", {"rows": [row]}) == {"steps": []}


def asked(**options):
    return SimpleNamespace(**options)


def rows_of_programs():
    """By table, a row of each program that builds its rows in a function."""
    steps, passes, evaluation, drop = map(
        importlib.import_module, ("steps", "passes", "evaluation", "drop")
    )
    names = ("architecture", "dtype", "d_model", "width", "active", "l0", "ratio")
    more = ("ours_seconds", "peer_seconds", "ours_peak_mib", "peer_peak_mib", "of_one_product")
    step = dict.fromkeys((*names, *more), 0.5)
    a_pass = ("lm", "width", "saes_tokens_a_second", "sae_share", "bfloat16_tflops", "of_rate")
    a_pass = dict.fromkeys((*a_pass, "published_sweep_hours", "peak_gib"), 6.0)
    judged = asked(shape="pythia-70m-deduped", layer=3, reconstruction=1, variance=10)
    figures = dict.fromkeys(
        ("l0", "recovered", "explained", "documents_recovered", "documents_explained"), 0.5
    )
    dropped = {**figures, "left_out": "bos", "sae": "top_k k_20", "pca": figures}
    return {
        "steps": steps.table_row(step, asked(threads=2, rounds=5, peer="sparsify")),
        "passes": passes.table_row(a_pass),
        "evaluation": evaluation.table_row(judged, "ours", 6, [{"seconds": 3, "peak_mib": 4}]),
        "drop": drop.table_row(dropped, 14, 0.996),
    }


def test_programs_build_rows_that_their_tables_take(tmp_path):
    for name, row in rows_of_programs().items():
        measurements.Table(name, tmp_path).append(row)
    (step,) = measurements.Table("steps", tmp_path).rows()
    assert (step["ours_ms"], step["peer"], step["kernels"]) == ("500", "sparsify", "")
    (a_pass,) = measurements.Table("passes", tmp_path).rows()
    assert a_pass["tokens_per_s"] == "1"


def test_rows_of_metrics_json():
    figures = {"l0": 8.0, "frac_recovered": 0.9, "frac_variance_explained": 0.8, "frac_alive": 1.0}
    sae = {
        "model": "demo",
        "layer": 3,
        "architecture": "top_k",
        "width": "1k",
        "latents": 1024,
        "sparsity": "k_8",
        "inference": "top_k",
        "dictionary_learning": figures,
    }
    (row,) = saes.table_rows(sae)
    assert set(row) == set(measurements.COLUMNS["saes"])
    assert row["sae"] == "L3/top_k/1k/k_8"
    assert row["loss_recovered"] == 0.9
    pca = {**sae, "architecture": "pca", "width": None, "sparsity": None, "latents": 8}
    assert saes.table_rows(pca)[0]["sae"] == "L3/pca/8 latents"
