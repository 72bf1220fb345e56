"""The network in a state, taken out of its bytes: as torch would."""

import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.run.stored_network import part_of_state
from surefoot.training.network import network_of

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TENSORS = st.builds(
    lambda shape, dtype: torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
)
STATES = st.dictionaries(
    st.builds("{}.{}".format, st.sampled_from(["model", "average", "optimizer", "averaged"]), NAMES), TENSORS
)


@given(STATES)
def test_part_of_a_state_has_the_bytes_that_torch_gives(state):
    data = safetensors.torch.save(state)
    assert part_of_state(data, "model.") == network_of(data)
    assert part_of_state(data, "average.") == network_of(data, averaged=True)
