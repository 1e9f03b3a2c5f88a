"""Code that is not Python: our words for each error of the parser, with what to write."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from runner.pipeline.import_problems import not_python
from runner.tables import read_table

ROWS = read_table("runner.pipeline", "python_syntax.txt", 3)
OLD = sys.version_info < (3, 12)

CASES = [
    ("x = 1\n<<<<<<< HEAD\n", "the marks of a merge that was not finished", "keep one side", "<<<<<<< HEAD"),
    ("if a && b: pass\n", '"&&" in place of "and"', 'write "and"', "&&"),
    ("if !done: pass\n", '"!" in place of "not"', 'write "not done"', "!done"),
    ("if a =! b: pass\n", '"=!" in place of "!="', 'write "!="', "=!"),
    ("x = new Foo()\n", '"new", which', 'write "Foo(…)"', "new"),
    ("function ship(order) {\n", "a brace in place of a colon", 'write ":" in place of "{"', "{"),
    (
        "try:\n    pass\ncatch (E e):\n    pass\n",
        '"catch (E e):" in place of "except"',
        "except Exception as",
        "catch (E e):",
    ),
    ("import {a} from 'b'\n", "an import in the words of JavaScript", 'write "from b import a"', "import {a} from 'b'"),
    ("esle:\n    pass\n", '"esle" in place of "else"', 'write "else"', "esle"),
    ("class A:\n    from: str\n", '"from", a word of Python', "`from_: Annotated[str, Field(alias=", "from"),
    ("print(a.from)\n", '"from", a word of Python', 'write getattr(…, "from")', "from"),
    ("def f(from, to): pass\n", '"from", a word of Python, as a name', "use another name", "from"),
    ("if a = f(1):\n    g(a)\n", '"=" in a condition', 'write "a := f(1)" to keep the value in a', "a = f(1)"),
    ("order-id = 5\n", 'a name with "-" in it', 'write "_"', "order-id"),
    ("a, b += 1\n", '"+=" after several names', 'a line with "+="', "a, b"),
    ("async def f():\n    yield from g(1)\n", '"yield from"', '"for item in g(1):"', "yield from g(1)"),
    ("async def f():\n    return 5\n    yield\n", '"return" with a value', 'write "yield 5"', "return 5"),
    ("await x\n", '"await" outside of a function', "move it into an `async def`", "await x"),
    ("f(a=1, a=2)\n", 'the argument "a" twice', "remove one", "a=2"),
    ("def f():\n    x = 1\n    global x\n", '"x" used above its "global"', "first line of the function", "global x"),
    ("match x:\n    case y: pass\n    case 1: pass\n", '"case y:" above other cases', 'move "case y:"', "y"),
    ("x = {'a': 1, 'b'}\n", 'no ":" between a key', 'write ":"', "'"),
    ("x = 'don't'\n", "an apostrophe in a text with single quotes", "in double quotes", "'don't"),
    ('x = "C:\\Users\\x"\n', "a backslash in a text", "write r before the quote", None),
    ("x =\n", "a line that ends in the middle", "write what is missing", None),
    ("x = f\"{a['b'} {c['d']}\"\n", "a bracket" if OLD else "", 'write "]" before the "}"' if OLD else "", None),
]


@pytest.mark.parametrize(("code", "what", "help_", "part"), CASES)
def test_an_error_of_the_parser_is_told_in_our_words(
    tmp_path: Path, code: str, what: str, help_: str, part: str | None
) -> None:
    """With what to write, and the part of the line to be changed underlined."""
    file = tmp_path / "app.py"
    file.write_text(code)
    with pytest.raises(SyntaxError) as caught:
        compile(code, str(file), "exec")
    problem = not_python("app", str(file), caught.value)
    assert what in str(problem)
    assert help_ in problem.hint
    assert str(problem).startswith('module "app" is not valid Python: it has ')
    assert problem.place is not None
    line = code.splitlines()[problem.place.line - 1]
    if part is not None:
        assert line[problem.place.column - 1 :][: problem.place.length] == part


def test_all_lines_of_python_2_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text('try:\n    f()\nexcept KeyError, e:\n    print "no", e\n    raise ValueError, "x"\n')
    with pytest.raises(SyntaxError) as caught:
        compile(file.read_text(), str(file), "exec")
    problem = not_python("app", str(file), caught.value)
    assert 'write "except KeyError as e:"' in problem.hint
    assert "write print(…)" in problem.hint  # at its line, or as the first error: Python 3.14 takes the `except`
    assert 'in line 5 write "raise ValueError("x")"' in problem.hint


def test_each_row_of_the_table_has_the_names_that_its_texts_use() -> None:
    for what, help_, pattern in ROWS:
        names = {*re.compile(pattern).groupindex, "close"}
        assert names.issuperset(re.findall(r"\{(\w+)\}", what + help_)), what
        assert help_
