"""Mistakes in the modules of handlers: one problem, at the line to be corrected, with what to write there."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from runner.errors import PipelineInvalid, Problem
from runner.system import check, load
from runner.tables import read_table

PIPELINE = 'version: 1\nqueues: {orders: }\nsubscribers: {ship: {from: orders, handler: "HANDLER"}}\n'
PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"


class Mistake(NamedTuple):
    """The files of a project, and what is said about its handler `app:ship` (or another one)."""

    name: str
    files: dict[str, str]
    place: str
    message: str
    help: str
    handler: str = "app:ship"


SHIP = "def ship(order): ...\n"
MODULES = [
    Mistake(
        "two packages that are not installed",
        {"app.py": "import cv2\nfrom sklearn import svm\n" + SHIP},
        "app.py:1:8",
        'module "app" imports "cv2" and "sklearn", which are not installed',
        "run: python -m pip install opencv-python scikit-learn",
    ),
    Mistake(
        "a missing package below another module",
        {"app.py": "import below\n" + SHIP, "below.py": "import not_there_at_all.x\n"},
        "below.py:1:8",
        'module "below" imports "not_there_at_all", which is not installed',
        "run: python -m pip install not-there-at-all",
    ),
    Mistake(
        "the name of the distribution",
        {"app.py": "import json\nfrom mqrunner import Message, Reject\n" + SHIP},
        "app.py:2:6",
        'module "app" imports "Message" from "mqrunner", which is only the name of the package that is installed',
        'write "from runner import Message, Reject"',
    ),
    Mistake(
        "a file with a hyphen that is imported",
        {"app.py": "from order-models import Order\n" + SHIP, "order-models.py": "Order = dict\n"},
        "app.py:1:6",
        'module "app" is not valid Python: it has "order-models", which has a hyphen',
        'write "order_models" in place of "order-models"; if it is a file of yours, rename it to order_models.py',
    ),
    Mistake(
        "two modules that import each other, for two classes",
        {
            "app.py": "from other import helper\nclass P: ...\nclass Q(P): ...\n" + SHIP,
            "other.py": "from app import Q, P\ndef helper(order: Q, other: P): ...\n",
        },
        "other.py:1:1",
        'module "other" imports "app", which imports it in turn',
        'move "Q" and "P" into a module of their own, and import them from there in both',
    ),
    Mistake(
        "a library that only registers handlers",
        {
            "app.py": "from not_there_at_all.rabbit import Broker\n\nbroker = Broker()\n\n\n"
            '@broker.subscriber("orders")\n@broker.publisher("sent")\ndef ship(order): ...\n'
        },
        "app.py:1:6",
        'module "app" imports "not_there_at_all", which is not installed',
        "handlers are plain functions: remove this import, line 3 and the decorators in lines 6 and 7",
    ),
    Mistake(
        "a library that registers handlers, and is used by them",
        {
            "app.py": "from not_there_at_all import Broker\nbroker = Broker()\n"
            '@broker.subscriber("orders")\ndef ship(order):\n    broker.send(order)\n'
        },
        "app.py:1:6",
        'module "app" imports "not_there_at_all", which is not installed',
        "run: python -m pip install not-there-at-all",
    ),
    Mistake(
        "a misspelt module that is used further down",
        {"app.py": "import jsn\nA = jsn.loads('1')\n\n\ndef ship(order):\n    return jsn.dumps(order)\n"},
        "app.py:1:8",
        'module "app" imports "jsn", which is not found',
        'did you mean "json"? Lines 2 and 6 have it, too',
    ),
    Mistake(
        "a misspelt name of the runner that is used further down",
        {"app.py": "from runner import Rejected\n\n\ndef ship(order):\n    raise Rejected('no')\n"},
        "app.py:1:20",
        'module "app" imports "Rejected" from "runner", which has no such name',
        'did you mean "Reject"? Line 5 has it, too',
    ),
    Mistake(
        "a module of Python 2",
        {"app.py": "import urllib2\n" + SHIP},
        "app.py:1:8",
        f'module "app" imports "urllib2", which {PYTHON} does not have',
        'import "urllib.request" instead',
    ),
    Mistake(
        "a misspelt module of the project",
        {"app.py": "from shop.model import Order\n" + SHIP, "shop/__init__.py": "", "shop/models.py": "Order = dict\n"},
        "app.py:1:11",
        'module "app" imports "shop.model", which is not found',
        'did you mean "shop.models"?',
    ),
    Mistake(
        "a misspelt name of a module of the project",
        {"app.py": "from models import Ordre\n" + SHIP, "models.py": "Order = dict\n"},
        "app.py:1:20",
        'module "app" imports "Ordre" from "models", which has no such name',
        'did you mean "Order"?',
    ),
    Mistake(
        "two modules that import each other",
        {
            "app.py": "from other import helper\n" + SHIP,
            "other.py": "from app import ship\n\ndef helper():\n    return ship\n",
        },
        "other.py:1:1",
        'module "other" imports "app", which imports it in turn',
        "move this import into the function that uses it",
    ),
    Mistake(
        "two modules that import each other, for a base class",
        {"app.py": "from other import O\n" + SHIP, "other.py": "from app import P\nclass O(P): ...\n"},
        "other.py:1:1",
        'module "other" imports "app", which imports it in turn',
        'move "P" into a module of its own, and import it from there in both',
    ),
    Mistake(
        "two modules that import each other in vain",
        {"app.py": "from other import helper\n" + SHIP, "other.py": "from app import ship\ndef helper(): ...\n"},
        "other.py:1:1",
        'module "other" imports "app", which imports it in turn',
        'remove "ship" here: nothing in this module uses it',
    ),
    Mistake(
        "an import from a folder that is not on the import path",
        {
            "app.py": "from helpers.prices import price\n" + SHIP,
            "src/helpers/__init__.py": "",
            "src/helpers/prices.py": "",
        },
        "app.py:1:6",
        'module "app" imports "helpers", which is not found',
        "it is in src/: add `python_path: [src]` at the top level of the pipeline",
    ),
    Mistake(
        "a relative import that leads out of the package",
        {
            "shop/__init__.py": "",
            "shop/h.py": "from ..models import Order\n" + SHIP,
            "shop/models.py": "Order = dict\n",
        },
        "shop/h.py:1:1",
        'module "shop.h" imports "..models", which leads out of the package "shop"',
        'write "from shop.models import Order"',
        "shop.h:ship",
    ),
    Mistake(
        "a relative import in a module that is in no package",
        {"app.py": "from .models import Order as O\n" + SHIP, "models.py": "Order = dict\n"},
        "app.py:1:1",
        'module "app" imports ".models", which is not in a package',
        'write "from models import Order as O"',
    ),
    Mistake(
        "a command line that is parsed",
        {"app.py": "import sys\ndef main():\n    sys.exit(2)\nmain()\n" + SHIP},
        "app.py:4:1",
        'module "app" ends the process when it is imported (SystemExit: 2)',
        'put this line under `if __name__ == "__main__":`',
    ),
    Mistake(
        "options of the command line",
        {"app.py": "import argparse\np = argparse.ArgumentParser()\np.parse_args(['--x'])\n" + SHIP},
        "app.py:3:1",
        'module "app" reads the command line when it is imported',
        'put this line under `if __name__ == "__main__":`, and read what it needs with os.environ instead',
    ),
    Mistake(
        "a task without an event loop",
        {"app.py": "import asyncio\nasyncio.get_running_loop()\n" + SHIP},
        "app.py:2:1",
        'module "app" needs an event loop, and none runs when it is imported',
        "move it into an async handler, or into the factory of a resource",
    ),
    Mistake(
        "a library of the system",
        {
            "app.py": "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n"
            + SHIP
        },
        "app.py:1:1",
        'module "app" needs "libGL.so.1", a library of the system that is not installed',
        "install the package of the system that has libGL.so.1",
    ),
    Mistake(
        "a module of the project that is nowhere",
        {"app.py": "from utils import price\nimport not_there_at_all\n" + SHIP},
        "app.py:1:6",
        'module "app" imports "utils", which is not found',
        "create utils.py, or add the folder that has it under `python_path:`",
    ),
    Mistake(
        "an end of the process with a reason",
        {"app.py": "import sys\nsys.exit('KEY is not set')\n" + SHIP},
        "app.py:2:1",
        'module "app" ends the process when it is imported (SystemExit: KEY is not set)',
        "mend what its text says; better, raise an exception with this text here",
    ),
    Mistake(
        "a module of a package that is not imported",
        {"app.py": "import xml\nX = xml.dom.minidom.parse\n" + SHIP},
        "app.py:2:1",
        "module \"app\" failed to import: AttributeError: module 'xml' has no attribute 'dom'",
        'add "import xml.dom.minidom" at the top of the module',
    ),
    Mistake(
        "a misspelt module of an installed package",
        {"app.py": "import pytest.plugin\nimport pydantic.field\n" + SHIP},
        "app.py:1:1",
        'module "app" imports "pytest.plugin", which the installed "pytest" does not have',
        "correct the name, or install a version of the package that has it",
    ),
    Mistake(
        "os._exit",
        {"app.py": "from os import _exit\n_exit(3)\n" + SHIP},
        "app.py:2:1",
        'module "app" ends the process when it is imported (os._exit(3))',
        'put this line under `if __name__ == "__main__":`',
    ),
    Mistake(
        "KeyboardInterrupt",
        {"app.py": "raise KeyboardInterrupt\n" + SHIP},
        "app.py:1:1",
        'module "app" raises KeyboardInterrupt when it is imported',
        'put this line under `if __name__ == "__main__":`',
    ),
    Mistake(
        "a question to the user",
        {"app.py": "raise EOFError('EOF when reading a line')\n" + SHIP},
        "app.py:1:1",
        'module "app" asks for input when it is imported',
        "read it from a variable of the environment instead, with os.environ",
    ),
    Mistake(
        "a connection",
        {"app.py": "import socket\nsocket.create_connection(('localhost', 1))\n" + SHIP},
        "app.py:2:1",
        'module "app" connects to something when it is imported: ConnectionRefusedError: Connection refused',
        "move it into the handler, or into the factory of a resource, so that it runs when the pipeline does",
    ),
    Mistake(
        "a variable that is not set",
        {"app.py": "import os\nDSN = os.environ['NO_SUCH_DSN']\n" + SHIP},
        "app.py:2:1",
        'module "app" needs the environment variable NO_SUCH_DSN, which is not set',
        "set it, as in `export NO_SUCH_DSN=…`, or in a file that --env-file names",
    ),
    Mistake(
        "a file that is elsewhere",
        {"app.py": "TEXT = open('nowhere.json').read()\n" + SHIP},
        "app.py:1:1",
        'module "app" opens "nowhere.json", which is not in the folder where runner is started',
        'write `pathlib.Path(__file__).parent / "nowhere.json"` for a file beside the module',
    ),
    Mistake(
        "a field that pydantic cannot check",
        {"app.py": "import socket\nfrom pydantic import BaseModel\nclass O(BaseModel):\n    s: socket.socket\n" + SHIP},
        "app.py:4:5",
        'module "app" has a model whose field "s" is of type socket.socket, which pydantic cannot check',
        "annotate it with what the JSON has there, such as str or dict, and make the object in the handler",
    ),
    Mistake(
        "a name that is not imported",
        {"app.py": "def ship(order: Optional[dict]): ...\n" if sys.version_info < (3, 14) else "X = Optional\n" + SHIP},
        "app.py:1:17" if sys.version_info < (3, 14) else "app.py:1:5",
        'module "app" uses "Optional", which is not defined',
        'add "from typing import Optional" at the top of the module',
    ),
    Mistake(
        "a date and time that is not imported",
        {"app.py": "X = datetime.now()\n" + SHIP},
        "app.py:1:5",
        'module "app" uses "datetime", which is not defined',
        'add "from datetime import datetime" at the top of the module',
    ),
    Mistake(
        "a module that is not imported",
        {"app.py": "X = datetime.datetime.now()\n" + SHIP},
        "app.py:1:5",
        'module "app" uses "datetime", which is not defined',
        'add "import datetime" at the top of the module',
    ),
    Mistake(
        "a package in place of its module",
        {"app.py": "import beautifulsoup4\n" + SHIP},
        "app.py:1:8",
        'module "app" imports "beautifulsoup4", which is not found',
        'did you mean "bs4"?',
    ),
    Mistake(
        "a name that has moved",
        {"app.py": "from collections import Mapping\n" + SHIP},
        "app.py:1:25",
        'module "app" imports "Mapping" from "collections", which has no such name',
        'write "from collections.abc import Mapping"',
    ),
    Mistake(
        "a method of a class of the same name as its module",
        {"app.py": "import datetime\nX = datetime.now()\n" + SHIP},
        "app.py:2:1",
        "module \"app\" failed to import: AttributeError: module 'datetime' has no attribute 'now'",
        "write datetime.datetime.now",
    ),
    Mistake(
        "a default that all objects would share",
        {"app.py": "from dataclasses import dataclass\n@dataclass\nclass O:\n    a: list = []\n" + SHIP},
        "app.py:4:5",
        'module "app" has the default list in "a", which all objects would share',
        'write `= field(default_factory=list)`, with "from dataclasses import field" at the top of the module',
    ),
    Mistake(
        "an endless recursion",
        {"app.py": "def f():\n    f()\nf()\n" + SHIP},
        "app.py:2:5",
        'module "app" failed to import: RecursionError: maximum recursion depth exceeded',
        "end this recursion: the function or class needs itself without an end",
    ),
    Mistake(
        "an error of several lines",
        {"app.py": "raise ValueError('one\\n  two')\n" + SHIP},
        "app.py:1:1",
        'module "app" failed to import: ValueError: one two',
        "correct this line: the module must be imported without an error",
    ),
    Mistake(
        "a bracket that is not closed",
        {"app.py": "ship = dict(\n    a=1\n"},
        "app.py:1:12",
        'module "app" is not valid Python: it has "(" that is not closed',
        'add the closing ")"',
    ),
    Mistake(
        "a quote that is not closed",
        {"app.py": "X = 'a\n"},
        "app.py:1:5",
        'module "app" is not valid Python: it has a text that is not closed',
        "add the closing quote",
    ),
    Mistake(
        "an await outside of async def",
        {"app.py": "def ship(order):\n    await order\n"},
        "app.py:2:5",
        'module "app" is not valid Python: it has "await" in a function that is not `async def`',
        'write "async def" in place of "def" at the function around it',
    ),
    Mistake(
        "a misspelt feature",
        {"app.py": "from __future__ import anotations\n"},
        "app.py:1:24",
        'module "app" is not valid Python: it has a feature that Python does not have',
        'did you mean "annotations"?',
    ),
    Mistake(
        "indentation",
        {"app.py": "def ship(order):\n    a = 1\n  b = 2\n"},
        "app.py:3:8",
        'module "app" is not valid Python: it has an indentation that fits no block',
        "indent all lines of a block by the same number of spaces",
    ),
]

MODULES += [
    Mistake(
        f"{name}, a misspelt module of Python or of a frequent package",
        {"app.py": f"import {name}\n" + SHIP},
        "app.py:1:8",
        f'module "app" imports "{name}", which is not found',
        f'did you mean "{meant}"?',
    )
    for name, meant in (("jsn", "json"), ("datetme", "datetime"), ("reqests", "requests"), ("pandsa", "pandas"))
]
MODULES += [
    Mistake(
        "a name that is defined below",
        {"app.py": "X = make()\ndef make(): ...\n" + SHIP},
        "app.py:1:5",
        'module "app" uses "make", which is not defined',
        "move the definition of make (line 2) above this line",
    ),
    Mistake(
        "a module that is used while it is being imported",
        {"app.py": "import other\n" + SHIP, "other.py": "import app\nX = app.ship\n"},
        "other.py:2:1",
        'module "other" imports "app", which imports it in turn',
        'use "app" only inside of functions here',
    ),
    Mistake(
        "a variable that is not set, and has no default",
        {"app.py": "import os\nX = os.getenv('NO_SUCH_DSN').lower()\n" + SHIP},
        "app.py:2:1",
        "module \"app\" failed to import: AttributeError: 'NoneType' object has no attribute 'lower'",
        "set the variable NO_SUCH_DSN: `export NO_SUCH_DSN=…`, or in a file that --env-file names",
    ),
]
MODELS = {
    "class O(BaseModel):\n    quantity: int\n    @field_validator('quanity')\n    def f(cls, v): return v\n": (
        'has a validator of "quanity", and O has no such field',
        'did you mean "quantity"?',
    ),
    "class O(BaseModel):\n    price = Field(gt=0)\n": (
        'has the field "price" without a type',
        "`price: int = Field(gt=0)`",
    ),
    "class O(BaseModel):\n    a: str = Field(regex='x')\n": ("passes `regex=`", "write `pattern=`"),
    "class O(BaseModel):\n    a: list(str)\n": ("writes list(str) for a type", "write list[str]"),
    "class O(BaseModel):\n    _a: int = Field(gt=0)\n": ('has the field "_a"', '`a` with `Field(alias="_a")`'),
    "class O(BaseModel):\n    model_config = {'extra': 'forbid'}\n    class Config: ...\n": (
        "has class Config and model_config",
        "ConfigDict(",
    ),
    "class P:\n    def __init__(self, x: float): ...\nclass O(BaseModel):\n    p: P\n": (
        'whose field "p" is of type app.P',
        "in place of `__init__`: `x: float`",
    ),
    "class A(BaseModel):\n    k: str\nclass B(BaseModel):\n    k: Literal['b']\nclass O(BaseModel):\n"
    "    p: A | B = Field(discriminator='k')\n": ("A.k has no fixed value", 'write `k: Literal["…"]`'),
    "from dataclasses import dataclass\n@dataclass\nclass O:\n    a: int = 1\n    b: int\n": (
        'has the field "b" without a default',
        'move "b" above',
    ),
    "from runner.exceptions import Reject\n": ('imports "runner.exceptions"', 'write "from runner import Reject"'),
    "from collections import Mapping, deque\n": (
        'imports "Mapping"',
        'write "from collections.abc import Mapping" and "from collections import deque" in place of this line',
    ),
    "raise ImportError('run `pip install \"x[y]\"`')\n": ("needs a package", 'pip install "x[y]"'),
    "open('data.json')\n": ('opens "data.json"', '__file__).parent / "below/data.json"`'),
    "import sys\nif not sys.argv[99:]:\n    sys.exit(1)\n": ("if a check fails (SystemExit: 1)", "raise RuntimeError"),
}

SYNTAX = {
    "def ship(order):\n    # later\ndef other(): ...\n": "write `pass` in the block before this line",
    "def ship(order):\nprint(order)\n": "indent this line, or write `pass` in the block",
    "if X:\n    pass\nelse if Y:\n    pass\n": 'write "elif" in place of "else if"',
    "<<<<<<< HEAD\nX = 1\n": "keep one side, and remove the marks of the merge",
    "X = 1\n!pip install x\n": "remove this line: it is a command of a notebook, or of a shell",
    "def ship(from, order): ...\n": 'use another name: "from" is a word of Python',
    "class = 1\n": 'use another name: "class" is a word of Python',
    "print(\u201cSHIP\u201d)\n": """write ASCII quotes (" or ') in place of all typographic ones in this module""",
    "raise ValueError, 'x'\n": '''write "raise ValueError('x')"''',
    "X = (1, 2]\n": 'write ")" in place of it',
    "X = 010\n": "write 0o… for an octal number, or remove the zeros at the start",
    "exec 'x'\n": "write exec(…) with parentheses, everywhere in this module",
    "X = f(a=1, 2)\n": "put it before the arguments with names",
}
if sys.version_info < (3, 14):
    SYNTAX["try:\n    pass\nexcept ValueError, e:\n    pass\n"] = 'write "except ValueError as e:"'
if sys.version_info < (3, 12):
    SYNTAX["type Order = dict[str, str]\n"] = 'write "Order = dict[str, str]": `type` needs Python 3.12'
    SYNTAX['f"a {b["c"]}"\n'] = "use other quotes inside of the f-string: the same ones need Python 3.12"

NAMES = [
    Mistake(
        "several parameters by name only",
        {"app.py": "def ship(*, order, tenant): ...\n"},
        "app.py:1:13",
        '"app:ship" takes "order" only by name, and the payload is passed by position',
        'write "def ship(order):", and take order["tenant"] out of it',
    ),
    Mistake(
        "a misspelt module of a package",
        {"shop/__init__.py": "", "shop/handlers.py": SHIP},
        "p.yaml:3:46",
        'module "shop.handler" not found',
        'did you mean "shop.handlers"?',
        "shop.handler:ship",
    ),
    Mistake(
        "a module that is in a folder below",
        {"src/orders.py": SHIP},
        "p.yaml:3:46",
        'module "orders" not found',
        "it is in src/: add `python_path: [src]` at the top level of the pipeline",
        "orders:ship",
    ),
    Mistake(
        "a module two packages below",
        {"app/__init__.py": "", "app/jobs/__init__.py": "", "app/jobs/orders.py": SHIP},
        "p.yaml:3:46",
        'module "orders" not found',
        'did you mean "app.jobs.orders"?',
        "orders:ship",
    ),
    Mistake(
        "a file with a hyphen",
        {"my-handlers.py": SHIP},
        "p.yaml:3:46",
        'module "my_handlers" not found',
        "rename my-handlers.py to my_handlers.py: a module's name has no hyphen",
        "my_handlers:ship",
    ),
    Mistake(
        "a name of another module of the package",
        {"shop/__init__.py": "", "shop/handlers.py": SHIP},
        "p.yaml:3:51",
        'module "shop" (shop/__init__.py) has no "ship"',
        'it is in "shop.handlers": write "shop.handlers:ship"',
        "shop:ship",
    ),
    Mistake(
        "a function that exists only in the main program",
        {"app.py": 'if __name__ == "__main__":\n    def ship(order): ...\n'},
        "app.py:2:9",
        'module "app" (app.py) has no "ship"',
        'it is defined under `if __name__ == "__main__"`, which does not run here: move it out, to the left margin',
    ),
    Mistake(
        "a function inside of another one",
        {"app.py": "def outer():\n    def ship(order): ...\n"},
        "app.py:2:9",
        'module "app" (app.py) has no "ship"',
        'it is defined inside of outer(): move it out, to the left margin, and write "app:ship"',
    ),
    Mistake(
        "a method without its class",
        {"app.py": "class Shop:\n    def ship(self, order): ...\n"},
        "app.py:2:9",
        'module "app" (app.py) has no "ship"',
        'it is a method of Shop: add `shop = Shop(…)` to the module, and write "app:shop.ship"',
    ),
    Mistake(
        "a callback of pika",
        {"app.py": "def ship(ch, method, properties, body): ...\n"},
        "app.py:1:10",
        '"app:ship" looks like a handler of pika (ch, method, properties, body)',
        'write "def ship(body: bytes):", and remove what uses "ch", "method" and "properties": '
        'the runner acknowledges; `raise Reject("why")`, with "from runner import Reject" at the top, stands for '
        'basic_nack without requeue, and a parameter "message: runner.Message", with "import runner", gets the headers',
    ),
    Mistake(
        "a bound task of Celery",
        {"app.py": "def ship(self, order_id, customer_id): ...\n"},
        "app.py:1:10",
        '"app:ship" has "self" as its first parameter, but is not a method: it gets one payload',
        'write "def ship(payload: dict):", and take payload["order_id"] and payload["customer_id"] out of it',
    ),
    Mistake(
        "several parameters that nothing provides",
        {"app.py": "def ship(order, carrier, *, price): ...\n"},
        "app.py:1:17",
        '"app:ship" needs "carrier" and "price", which nothing provides: the whole payload goes to "order"',
        'remove them and use order["carrier"] and order["price"], or pass a value by `with: {carrier: …, price: …}`, '
        "or declare the resources `carrier` and `price`",
    ),
    Mistake(
        "the fields of a payload",
        {"app.py": "def ship(id: int, article: str): ...\n"},
        "app.py:1:19",
        '"app:ship" needs "article", which nothing provides: the whole payload goes to "id"',
        'write "def ship(payload: dict):", and take payload["id"] and payload["article"] out of it, '
        "or pass a value by `with: {article: …}`",
    ),
    Mistake(
        "the fields of a payload without annotations",
        {"app.py": "def ship(order_id, article): ...\n"},
        "app.py:1:20",
        '"app:ship" needs "article", which nothing provides: the whole payload goes to "order_id"',
        'write "def ship(payload: dict):", and take payload["order_id"] and payload["article"] out of it, '
        "or pass a value by `with: {article: …}`",
    ),
    Mistake(
        "a payload in keyword arguments",
        {"app.py": "def ship(**order): ...\n"},
        "app.py:1:5",
        '"app:ship" takes no parameter for the payload',
        'its first parameter gets the payload: remove the "**" before "order"',
    ),
    Mistake(
        "a class that does its work when an object is made",
        {"app.py": "class Ship:\n    def __init__(self, order): ...\n"},
        "app.py:1:7",
        '"app:Ship" is a class, not a function',
        'add `def ship(order): Ship(order)` to the module, and write "app:ship"',
        "app:Ship",
    ),
    Mistake(
        "a resource that is not declared",
        {"app.py": "def ship(order, db): ...\n"},
        "app.py:1:17",
        '"app:ship" needs "db", which nothing provides',
        "declare the resource `db`, or pass a value by `with: {db: …}`",
    ),
    Mistake(
        "a message without an annotation",
        {"app.py": "def ship(order, message): ...\n"},
        "app.py:1:17",
        '"app:ship" needs "message", which nothing provides',
        'write "message: runner.Message", with "import runner" at the top of the module, '
        "and remove calls such as message.ack(): the runner acknowledges",
    ),
    Mistake(
        "a context of another library",
        {"app.py": "def ship(ctx, order: dict): ...\n"},
        "app.py:1:10",
        '"app:ship" has "ctx" as its first parameter, and gets only the payload',
        'remove "ctx" from its parameters',
    ),
    Mistake(
        "a context of a cloud function",
        {"app.py": "def ship(event, context): ...\n"},
        "app.py:1:17",
        '"app:ship" looks like a handler of AWS Lambda (event, context)',
        'write "def ship(event: dict):", and handle event itself in place of each item of event["Records"]: it is '
        "called once for each message, with the decoded body",
    ),
    Mistake(
        "an object of a class that is not made",
        {"app.py": "class Service:\n    def ship(self, order): ...\n"},
        "p.yaml:3:50",
        'module "app" (app.py) has no "service"',
        "add `service = Service(…)` to the module: Service is the class",
        "app:service.ship",
    ),
    Mistake(
        "a payload by name only",
        {"app.py": "def ship(*, order): ...\n"},
        "app.py:1:13",
        '"app:ship" takes "order" only by name, and the payload is passed by position',
        'remove the "*" before it',
    ),
    Mistake(
        "a class that can be called",
        {"app.py": "class Ship:\n    def __init__(self, db): ...\n    def __call__(self, order): ...\n"},
        "app.py:1:7",
        '"app:Ship" is a class, not a function',
        'add `ship = Ship(db=…)` to the module, and write "app:ship"',
        "app:Ship",
    ),
    Mistake(
        "a class with a method",
        {"app.py": "class Ship:\n    def handle(self, order): ...\n"},
        "app.py:1:7",
        '"app:Ship" is a class, not a function',
        'add `handle = Ship().handle` to the module, and write "app:handle"',
        "app:Ship",
    ),
]

IMPORTED = [
    Mistake(
        "a function that another one returns",
        {"app.py": "def make(a):\n    def ship(order): ...\n    return ship\n"},
        "app.py:2:9",
        'module "app" (app.py) has no "make.ship"',
        'make() makes it: add `ship = make(…)` to the module, and write "app:ship"',
        "app:make.ship",
    ),
    Mistake(
        "a function of a package without __init__.py",
        {"jobs/ship_job.py": SHIP},
        "p.yaml:3:51",
        'module "jobs" has no "ship"',
        'it is in "jobs.ship_job": write "jobs.ship_job:ship"',
        "jobs:ship",
    ),
    Mistake(
        "an item of a dict",
        {"app.py": "HANDLERS = {'ship': print}\n"},
        "app.py:1:1",
        'module "app" (app.py) has no "HANDLERS.ship"',
        '"HANDLERS" is a dict: add `ship = HANDLERS["ship"]` to app.py, and write "app:ship"',
        "app:HANDLERS.ship",
    ),
    Mistake(
        "a message of aio-pika",
        {"app.py": "from aio_pika import IncomingMessage\nasync def ship(message: IncomingMessage): ...\n"},
        "app.py:2:16",
        '"app:ship" takes IncomingMessage, a type of aio_pika, in "message"',
        'write "message: runner.Message", with "import runner" at the top, message.payload in place of '
        "json.loads(message.body), and remove `async with message.process():` and calls such as message.ack(): the "
        "runner decodes and acknowledges",
    ),
    Mistake(
        "a field of a model that is a parameter, too",
        {"app.py": "import dataclasses\n@dataclasses.dataclass\nclass O:\n    a: int\ndef ship(o: O, a): ...\n"},
        "app.py:5:16",
        '"app:ship" needs "a", which nothing provides: the whole payload goes to "o"',
        "remove it and use o.a, or pass a value by `with: {a: …}`, or declare the resource `a`",
    ),
    Mistake(
        "a type that is imported for type checkers only",
        {
            "app.py": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from models import Order\ndef ship(order: Order): ...\n"
        },
        "app.py:5:10",
        "an annotation of \"app:ship\" cannot be resolved: name 'Order' is not defined",
        'move "from models import Order" out of `if TYPE_CHECKING`',
    ),
    Mistake(
        "a misspelt type in an annotation that is not evaluated",
        {"app.py": "class Order(dict): ...\ndef ship(order: 'Oder'): ...\n"},
        "app.py:2:10",
        "an annotation of \"app:ship\" cannot be resolved: name 'Oder' is not defined",
        'did you mean "Order"?',
    ),
    Mistake(
        "a class of attrs",
        {"app.py": "import attrs\n@attrs.define\nclass O:\n    a: int\ndef ship(order: O): ...\n"},
        "app.py:5:10",
        '"app:ship" takes O, a type of attrs, in "order"',
        'write "class O(pydantic.BaseModel):" in place of the decorator of attrs, pydantic.Field(…) in place of '
        'attrs.field(…), as in Field(gt=0) for validators.gt(0), and "import pydantic" at the top of the module',
    ),
    Mistake(
        "a model that names a missing type",
        {"app.py": "import pydantic\nclass O(pydantic.BaseModel):\n    lines: list['Line']\ndef ship(order: O): ...\n"},
        "app.py:3:18",
        'the model "O" cannot be used: its module does not define "Line"',
        "define Line in this module, or import it",
    ),
]

if sys.version_info < (3, 14):  # pydantic.v1 does not work there
    IMPORTED.append(
        Mistake(
            "a model of pydantic 1",
            {"app.py": "from pydantic.v1 import BaseModel\nclass O(BaseModel):\n    a: int\ndef ship(order: O): ...\n"},
            "app.py:4:10",
            '"app:ship" takes O, a type of pydantic.v1, in "order"',
            'write "from pydantic import BaseModel" in place of the one of pydantic.v1',
        )
    )


def write(project: Path, files: dict[str, str], handler: str) -> None:
    for name, text in {**files, "p.yaml": PIPELINE.replace("HANDLER", handler)}.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def problems() -> list[Problem]:
    try:
        return [problem for problem in load([Path("p.yaml")], {}).warnings if problem.severity == "error"]
    except PipelineInvalid as invalid:
        return list(invalid.problems)


def said(problem: Problem, project: Path) -> tuple[str, str, str]:
    place = f"{os.path.relpath(problem.file, project)}:{problem.line}:{problem.column}"
    return place, problem.message, problem.help.replace(sys.executable, "python")


@pytest.mark.parametrize("mistake", [*MODULES, *NAMES, *IMPORTED], ids=lambda mistake: mistake.name)
def test_a_mistake_is_one_problem_with_its_place_and_what_to_write(project: Path, mistake: Mistake) -> None:
    write(project, mistake.files, mistake.handler)
    [problem] = problems()
    assert said(problem, project) == (mistake.place, mistake.message, mistake.help)
    assert problem.path == "subscribers.ship.handler"


@pytest.mark.parametrize("mistake", NAMES, ids=lambda mistake: mistake.name)
def test_a_wrong_name_is_reported_in_the_same_words_without_imports(project: Path, mistake: Mistake) -> None:
    write(project, mistake.files, mistake.handler)
    [problem] = check([Path("p.yaml")], {})[0]
    assert said(problem, project) == (mistake.place, mistake.message, mistake.help)


@pytest.mark.filterwarnings("ignore:Support for class-based")
@pytest.mark.parametrize(("code", "expected"), MODELS.items())
def test_what_a_library_says_is_told_in_our_words(project: Path, code: str, expected: tuple[str, str]) -> None:
    """With the help that keeps what is meant, and without an address in memory."""
    head = "from typing import Literal\nfrom pydantic import BaseModel, Field, field_validator\n"
    write(project, {"app.py": head + code + SHIP, "below/data.json": "{}"}, "app:ship")
    [problem] = problems()
    assert problem.message.startswith('module "app" ')
    assert expected[0] in problem.message
    assert expected[1] in problem.help.replace(sys.executable, "python")
    assert problem.file.endswith("app.py")


def test_each_row_of_the_table_has_the_names_that_its_texts_use() -> None:
    always = {"error", "type", "text", "python", "rest", "kind"}
    for _, what, help_, pattern in read_table("runner.pipeline", "import_failures.txt", 4):
        assert {*re.compile(pattern).groupindex, *always}.issuperset(re.findall(r"\{(\w+)\}", what + help_)), what


def test_a_typed_dict_of_typing_is_one_problem_at_its_import(project: Path) -> None:
    """Before Python 3.12 pydantic cannot check it. The other names of the import stay."""
    code = "from typing import NotRequired, TypedDict\nclass O(TypedDict):\n    a: int\ndef ship(order: O): ...\n"
    write(project, {"app.py": code}, "app:ship")
    if sys.version_info >= (3, 12):
        assert problems() == []
        return
    [problem] = problems()
    assert said(problem, project)[0] == "app.py:1:33"
    assert problem.help.endswith('and "from typing import NotRequired" in place of this line')


@pytest.mark.parametrize(("code", "help_"), SYNTAX.items())
def test_code_that_is_not_python(project: Path, code: str, help_: str) -> None:
    """In the words of Python, which differ between its versions, with what to write."""
    write(project, {"app.py": code}, "app:ship")
    [problem] = problems()
    assert problem.help == help_
    assert problem.message.startswith('module "app" is not valid Python: ')


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (SHIP.encode("utf-16"), "UTF-16, not UTF-8"),
        (b"x = 1\nname = '\xe9'\n", "not UTF-8 (line 2)"),
        (b"x = 1\0\n", "not a text file: it has null bytes"),
    ],
)
def test_a_file_in_another_encoding(project: Path, content: bytes, what: str) -> None:
    write(project, {}, "app:ship")
    (project / "app.py").write_bytes(content)
    [problem] = problems()
    assert problem.message == f'module "app" cannot be read: app.py is {what}'
    assert problem.help == "save it as UTF-8"


def test_a_cause_that_several_modules_share_is_one_problem(project: Path) -> None:
    """It is named once, with all the items that it stops."""
    write(project, {"one.py": "import below\n", "two.py": "import below\n", "below.py": "1 / 0\n"}, "one:ship")
    extra = 'subscribers: {ship: {from: orders, handler: "one:a"}, send: {from: more, handler: "two:b"}}\n'
    (project / "p.yaml").write_text(f"version: 1\nqueues: {{orders: , more: }}\n{extra}")
    [problem] = problems()
    assert problem.message.endswith("ZeroDivisionError: division by zero (also named by subscribers.send)")


def test_what_the_source_of_a_broken_module_shows_is_said_at_once(project: Path) -> None:
    """A misspelt function, and parameters that nothing provides; not a name that the rest of the module may make."""
    code = "1 / 0\ndef ship(order): ...\ndef send(order, tenant): ...\n"
    write(project, {"app.py": code}, "app:shpi")
    items = {"a": "app:shpi", "b": "app:send", "c": "app:x"}
    more = "subscribers:\n" + "".join(f'  {name}: {{from: o, handler: "{at}"}}\n' for name, at in items.items())
    (project / "p.yaml").write_text(f"version: 1\nqueues: {{o: }}\n{more}")
    found = [(problem.path, problem.code) for problem in problems() if problem.severity == "error"]
    assert sorted(found) == [
        ("subscribers.a.handler", "attribute-not-found"),
        ("subscribers.a.handler", "module-failed"),
        ("subscribers.b.handler", "wrong-parameters"),
    ]


def test_an_import_that_does_not_end_is_ended(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the module catches every Exception. What it set up for itself is put back."""
    monkeypatch.setenv("RUNNER_IMPORT_TIMEOUT", "200ms")
    loop = "while True:\n    try:\n        time.sleep(0.01)\n    except Exception:\n        pass\n"
    write(project, {"app.py": f"import time\n{loop}"}, "app:ship")
    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT), os._exit
    [problem] = problems()
    assert problem.message.startswith('module "app" is still being imported after 200ms: this line runs something')
    assert (problem.line, problem.help.partition(",")[0]) == (2, 'put this line under `if __name__ == "__main__":`')
    assert (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT), os._exit) == before


def test_ctrl_c_during_an_import_is_not_a_mistake_of_the_module(project: Path) -> None:
    write(project, {"app.py": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n" + SHIP}, "app:ship")
    with pytest.raises(KeyboardInterrupt):
        problems()


def test_a_process_that_a_module_forks_while_it_is_imported_can_end(project: Path) -> None:
    code = "import os\nif not (child := os.fork()):\n    os._exit(7)\nSTATUS = os.waitpid(child, 0)[1]\n" + SHIP
    write(project, {"app.py": code}, "app:ship")
    assert problems() == []
    assert os.waitstatus_to_exitcode(sys.modules["app"].STATUS) == 7


def test_modules_are_imported_in_other_threads_too(project: Path) -> None:
    """Signals can only be handled in the main thread."""
    write(project, {"app.py": "import os\nos._exit(3)\n"}, "app:ship")
    found: list[Problem] = []
    thread = threading.Thread(target=lambda: found.extend(problems()))
    thread.start()
    thread.join()
    assert [problem.code for problem in found] == ["module-failed"]


EFFECTS = {
    "import os\nos.chdir('/')\n": ("app.py:2:1", "changes the current folder", 'pathlib.Path("/", …)'),
    "import signal\nsignal.signal(signal.SIGTERM, print)\n": ("app.py:2:1", "handles SIGTERM", "after the `yield`"),
    "import pydantic\nclass O(pydantic.BaseModel):\n    json: dict\n": ("app.py:3:5", '"json" in "O"', "`json_` with"),
    "import threading\nSTOP = threading.Event()\nthreading.Thread(target=STOP.wait, name='beat').start()\n": (
        "app.py:3:1",
        'starts the thread "beat"',
        "daemon=True",
    ),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("code", "expected"), EFFECTS.items())
def test_what_an_import_does_to_the_process_is_a_warning(
    project: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: tuple[str, str, str]
) -> None:
    """It is named where it is done. The current folder stays."""
    monkeypatch.chdir(project)
    before = signal.getsignal(signal.SIGTERM)
    write(project, {"app.py": code + SHIP}, "app:ship")
    try:
        [problem] = load([Path("p.yaml")], {}).warnings
    finally:
        signal.signal(signal.SIGTERM, before)
        getattr(sys.modules["app"], "STOP", threading.Event()).set()
    place, message, help_ = said(problem, project)
    assert (problem.severity, problem.code, place) == ("warning", "import-effect", expected[0])
    assert message.startswith('module "app" ')
    assert expected[1] in message
    assert expected[2] in help_
    assert Path.cwd() == project


def test_threads_that_end_with_the_process_are_no_warning(project: Path) -> None:
    code = "import concurrent.futures, threading\nPOOL = concurrent.futures.ThreadPoolExecutor()\nPOOL.submit(print)\n"
    code += "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    write(project, {"app.py": code + SHIP}, "app:ship")
    assert load([Path("p.yaml")], {}).warnings == ()


def test_a_typed_dict_is_schema_and_annotation(project: Path) -> None:
    code = "from typing_extensions import TypedDict\nclass O(TypedDict):\n    a: int\ndef ship(order: O): ...\n"
    write(project, {"app.py": code}, "app:ship")
    text = PIPELINE.replace("HANDLER", "app:ship").replace("orders: }", 'orders: {schema: "app:O"}}')
    (project / "p.yaml").write_text(text)
    assert problems() == []


def test_a_wrong_exception_does_not_move_those_after_it(project: Path) -> None:
    write(project, {"app.py": SHIP}, "app:ship")
    written = PIPELINE.replace('"HANDLER"', '"app:ship", retry: {on: [a.b.C, "app:ship"]}')
    (project / "p.yaml").write_text(written)
    assert [problem.path for problem in problems()] == ["subscribers.ship.retry.on.0", "subscribers.ship.retry.on.1"]
