"""How much a piece of code asks of a device."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch.utils._python_dispatch import TorchDispatchMode


class _Counter(TorchDispatchMode):
    names: list[str]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        results = func._schema.returns
        is_view = bool(results) and results[0].alias_info is not None and not results[0].alias_info.is_write
        if not is_view:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def kernels(work: Callable[[], object]) -> list[str]:
    """The operations that touch memory, views of tensors left out: about one kernel launch each on a GPU."""
    counter = cast(Any, _Counter)()  # whose base class has types in some versions of torch only
    counter.names = []
    with counter:
        work()
    return list(counter.names)
