"""How numbers come from process to process: by torch.distributed, of which no reduction is used."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

TEXT_BYTES = 1 << 14  # of a text that a process has for the others


class Alone:
    """One process."""

    rank, size = 0, 1

    def exchange(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:  # noqa: ARG002
        """As they are."""
        return list(parts)

    def collect(self, part: Tensor, length: int) -> Tensor:  # noqa: ARG002
        """As it is."""
        return part

    def give_out(self, tensors: Sequence[Tensor]) -> None:
        """There is no other."""

    def first_text(self, text: str) -> str:
        """As it is."""
        return text


class Group:
    """The processes of torch.distributed's default group, which is there.

    Args:
        talking: surrounds whatever waits for others, and sees what is raised there.
    """

    def __init__(self, talking: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._talking = talking

    def exchange(self, parts: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
        """See `Transport`. Each part is filled up with zeros to slices of one length."""
        length = -(-len(parts[0]) // self.size)
        padded = parts[0].new_zeros(len(parts), self.size * length)
        for row, part in zip(padded, parts, strict=True):
            row[: len(part)] = part
        sent = padded.view(len(parts), self.size, length).transpose(0, 1).contiguous().view(-1)
        got = sent.new_empty(sum(counts) * length)
        sizes = [count * length for count in counts], [len(parts) * length] * self.size
        with self._talking():
            dist.all_to_all_single(got, sent, *sizes)
        return list(got.view(-1, length).unbind())

    def collect(self, part: Tensor, length: int) -> Tensor:
        """See `Transport`."""
        whole = part.new_empty(self.size * len(part))
        with self._talking():
            dist.all_gather_single(whole, part.contiguous())
        return whole[:length]

    def give_out(self, tensors: Sequence[Tensor]) -> None:
        """See `Transport`."""
        if tensors:
            data = torch.cat([tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors])
            with self._talking():
                dist.broadcast(data, 0)
            parts = data.split([tensor.numel() * tensor.itemsize for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                # Cloned: a view as wider numbers must begin at a multiple of their size.
                tensor.copy_(part.clone().view(tensor.dtype).view_as(tensor))

    def first_text(self, text: str) -> str:
        """See `Transport`; a long one is cut."""
        data = text.encode()[:TEXT_BYTES]
        mine = torch.zeros(TEXT_BYTES, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
        every = [torch.empty_like(mine) for _ in range(self.size)]
        with self._talking():
            dist.all_gather(every, mine)
        texts = [bytes(some.tolist()).rstrip(b"\0").decode(errors="ignore") for some in every]
        return next(filter(None, texts), "")
