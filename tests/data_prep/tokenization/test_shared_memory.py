import numpy as np

from data_prep.tokenization.sequences import Documents, SequenceConfig, build
from data_prep.tokenization.shared_memory import SharedIds, copy_to_shared, view_shared


def test_what_does_not_fit_stays_where_it_is():
    buffers = SharedIds(3, 40, np.dtype(np.int32))
    buffer = buffers.buffer(1)
    assert len(buffer) == 10
    lengths = np.ones(1, dtype=np.int32)
    ids = [np.arange(4), np.arange(100, 107), np.arange(200, 206)]
    outputs = [Documents(values.astype(np.int32), lengths, lengths) for values in ids]
    counts = copy_to_shared(outputs, buffer)
    assert counts == [4, None, 6]
    assert [len(output.ids) for output in outputs] == [0, 7, 0]
    view_shared(outputs, counts, buffer)
    assert [output.ids.tolist() for output in outputs] == [values.tolist() for values in ids]
    assert not buffers.buffer(0).any()
    assert not buffers.buffer(2).any()


def test_texts_are_encoded_in_the_buffer_or_outgrow_it():
    texts = {"a": [5, 6, 7], "": [], "b": [8]}
    config = SequenceConfig(bos=1, eod=2)

    def encode(given):
        return [np.array(texts[text], dtype=np.uint32) for text in given]

    for size in (0, 5, 8, 20):
        buffer = SharedIds(1, 40, np.dtype(np.uint16)).buffer(0)[:size]
        (found,) = build(["a", "", "b"], encode, config, buffer.dtype, buffer)
        assert found.ids.tolist() == [1, 5, 6, 7, 2, 1, 8, 2]
        assert (found.lengths.tolist(), found.counts.tolist()) == ([5, 3], [1, 0, 1])
        assert np.may_share_memory(found.ids, buffer) == (size >= 8)
