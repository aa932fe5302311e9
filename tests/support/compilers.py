"""What tests that compile need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., None])


def ignore_warnings_of_compiler(test: Test) -> Test:
    """Mark a test so that warnings which torch.compile itself causes are no errors.

    They come from its imports, and from looking at the gradient of its inputs. It hides
    the second one, but not where warnings are errors.
    """
    for filtered in (
        "ignore:.*is deprecated:DeprecationWarning:torch",
        "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
    ):
        test = pytest.mark.filterwarnings(filtered)(test)
    return test
