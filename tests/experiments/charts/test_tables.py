"""The tables behind the charts: all rows of both, and nothing of one split in the other."""

from experiments.charts.tables import HELD_OUT_FROM, TICKERS, Tables, read_tables


def all_rows(tables: Tables) -> set[str]:
    return {cell.row for cells in (tables.counties, *tables.prices.values()) for cell in cells}


def test_no_row_is_in_both_splits() -> None:
    train, held_out = read_tables("train"), read_tables("eval")
    assert not all_rows(train) & all_rows(held_out)
    assert len(train.counties) + len(held_out.counties) == 3218
    assert len(all_rows(train)) + len(all_rows(held_out)) == 3218 + 3 * 3270 + 2148


def test_held_out_prices_come_after_all_others() -> None:
    train, held_out = read_tables("train"), read_tables("eval")
    assert set(train.prices) == set(held_out.prices) == set(TICKERS)
    for ticker in TICKERS:
        days = [cell.row.removeprefix(f"{ticker} ") for cell in train.prices[ticker]]
        later = [cell.row.removeprefix(f"{ticker} ") for cell in held_out.prices[ticker]]
        assert days == sorted(days)
        assert days[-1] < HELD_OUT_FROM <= later[0]


def test_numbers_are_the_tables_own() -> None:
    held_out, train = read_tables("eval"), read_tables("train")
    assert (held_out.counties[0].row, held_out.counties[0].value) == ("county 01001", 9.7)
    assert (train.counties[0].row, train.counties[0].value) == ("county 01003", 9.1)
    assert train.prices["AAPL"][0].value == 4.186662803811
    assert all(cell.value > 0 for cell in (*train.counties, *held_out.counties))
