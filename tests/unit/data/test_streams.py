import threading

import pyarrow as pa
import pytest

from surefoot.data.streams import gather, read_ahead


def batches(*rows):
    return (pa.record_batch({"a": pa.array(range(count))}) for count in rows)


def test_batches_are_gathered_to_so_many_rows_or_bytes():
    assert [batch.num_rows for batch in gather(batches(3, 4, 9, 1), 1 << 20, rows=7)] == [7, 9, 1]
    assert [batch.num_rows for batch in gather(batches(3, 4, 9, 1), 8 * 7)] == [7, 9, 1]
    assert [batch.num_rows for batch in gather(batches(3, 4), 1 << 20)] == [7]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_thread_reads_so_many_items_ahead_and_no_more(count):
    made, may = [], threading.Semaphore(0)

    def items():
        for number in range(6):
            made.append(number)
            may.release()
            yield number

    ahead = read_ahead(items(), count)
    assert next(ahead) == 0
    for _ in range(min(6, 1 + count)):
        may.acquire(timeout=30)
    assert made == list(range(min(6, 1 + count)))
    assert [0, *ahead] == made == list(range(6))


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
