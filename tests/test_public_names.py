"""What `import adarts_jax as aj` offers."""

import subprocess
import sys

import pytest

import adarts_jax as aj


def test_every_public_name_is_there():
    assert all(getattr(aj, name) is not None for name in aj.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = aj.nothing


@pytest.mark.parametrize("first", ["", "import adarts_jax.search; "])
def test_the_search_is_a_function_and_a_program(first):
    code = (
        f"{first}import adarts_jax as aj; from adarts_jax import search; "
        "assert callable(aj.search) and aj.search is search and search.main"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
