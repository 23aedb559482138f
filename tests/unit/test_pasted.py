"""Python in the README and the docs can be pasted into a Python session, line by line."""

import code
import re
from itertools import chain
from types import CodeType

import pytest
from conftest import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCKS = list(
    chain.from_iterable(
        [
            pytest.param(block, id=f"{page.name}-{place}")
            for place, block in enumerate(
                re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
            )
        ]
        for page in PAGES
    )
)


class Session(code.InteractiveConsole):
    """A session that reads and runs nothing."""

    def runcode(self, code: CodeType) -> None:
        pass

    def showsyntaxerror(self, *args: object, **kwargs: object) -> None:
        raise AssertionError("\n".join(self.buffer))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_can_be_pasted(block):
    session = Session()
    more = False
    for line in block.splitlines():
        more = session.push(line)
    assert not (more and session.push(""))


def test_a_line_right_after_a_block_cannot():
    session = Session()
    session.push("if True:")
    session.push("    x = 1")
    with pytest.raises(AssertionError, match="y = 2"):
        session.push("y = 2")
