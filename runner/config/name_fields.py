"""The types of fields for names, patterns, import paths and URLs."""

from __future__ import annotations

import builtins
import re
import unicodedata
from keyword import iskeyword
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field

from runner.config.broker_urls import EXAMPLE_URL, parse_broker_url
from runner.config.document import Interpolated
from runner.config.field_types import ERROR_PATH, IDENTIFIER, IMPORT_PATH, NAME, PATTERN, SCHEMA, STORE, TEXT, URL
from runner.config.fields import one_or_many, text
from runner.config.messages import closest, describe, quoted, spec_error
from runner.config.spec_model import Conflict, raise_conflicts
from runner.config.store_urls import store_url_meant, store_url_problem
from runner.redaction import mask_passwords

MAX_NAME_BYTES: Final = 255
"""The limit of AMQP. Derived names, such as those of dead-letter queues, are checked in `spec_checks`."""

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MADE = re.compile(r"((?:[A-Za-z_][\w.]*:)?[A-Za-z_]\w*)\((.*)\)", re.DOTALL)
"""An exception that is made, as in `shop:Away("no answer")`."""
_BARE_NAME = re.compile(r"[A-Za-z_]\w*")
_PAYLOAD_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_IMPORT_EXAMPLE = 'write "package.module:name", as in "handlers.orders:process_order"'


def name_problem(name: str) -> str:
    """Return why a name is not allowed on a broker, "" if it is."""
    if not name:
        return "must not be empty"
    if name != name.strip():
        return "must not start or end with a blank"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "must not have control characters"
    if "${" in name:
        return "must not have ${…} in it: variables are replaced in values, not in keys"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"must not be longer than {MAX_NAME_BYTES} bytes"
    return ""


def reserved_problem(name: str) -> str:
    """Return why a name is reserved by RabbitMQ, "" if it is not."""
    return 'must not start with "amq.": RabbitMQ reserves these names' if name.startswith("amq.") else ""


def name(value: object, *, may_be_pattern: bool = False, may_be_reserved: bool = False) -> str:
    value = text(value, "a name")
    problem = name_problem(value) or ("" if may_be_reserved else reserved_problem(value))
    help_ = "write another name"
    if not problem and not may_be_pattern and ("*" in value or "#" in value):
        problem = 'must not have "*" or "#" in it'
        help_ = 'patterns are allowed only in "from" of a subscriber and in "events" and "bind" of a queue'
    if not problem and may_be_pattern and (part := _half_wildcard(value)):
        problem = f'has a "*" or "#" inside the word "{part}"; they stand for whole words'
        help_ = f'write "{_whole_words(value)}"'
    if problem:
        raise spec_error("bad-name", f"the name {quoted(value)} {problem}", help_)
    return str(value)


def _whole_words(pattern: str) -> str:
    """Return the nearest pattern of whole words: `order.#` for `order*` and `order/#`, `order.*` for `order.pl*`."""
    if "." in pattern and "/" not in pattern and pattern.endswith("*") and pattern[-2:] != "**":
        return f"{pattern.rpartition('.')[0]}.*"
    words = filter(None, re.split(r"\.|(#|\*+)", re.sub(r"\*$", "#", pattern.replace("/", "."))))
    return re.sub(r"[*]{2,}|(#\.)+(?=#)|[*]+\.(?=#)", "#", ".".join(words)).replace("##", "#")


def _half_wildcard(pattern: str) -> str:
    words = pattern.split(".")
    return next((word for word in words if len(word) > 1 and ("*" in word or "#" in word)), "")


def _pattern(value: object) -> str:
    return name(value, may_be_pattern=True)


def _exchange_name(value: object) -> str:
    return name(value, may_be_reserved=True)


def _routing_key(value: object) -> str:
    """Return a routing key or binding key: any text of at most 255 bytes, the limit of AMQP."""
    key = text(value)
    if len(key.encode()) > 255:
        raise spec_error("bad-name", "a routing key must not be longer than 255 bytes", "write a shorter one")
    return key


def _literal_key(value: object) -> str:
    """Return the routing key of an event, which is not a pattern."""
    key = _routing_key(value)
    if {"*", "#"} & set(key.split(".")):
        message = f"the routing key {quoted(key)} of an event must not have the word * or #"
        raise spec_error("bad-name", message, "patterns are allowed in `bind` of a queue, and in `from`")
    return key


def _identifier(value: object) -> str:
    if isinstance(value, str) and value.isidentifier() and not iskeyword(value):
        return str(value)
    reason = "is a keyword of Python" if isinstance(value, str) and iskeyword(value) else "is not one"
    message = f"the name of a resource is the name of a parameter, and {describe(value)} {reason}"
    raise spec_error("bad-name", message, "write letters, digits and _, as in db")


def _payload_path(value: object) -> str:
    path = text(value)
    if not _PAYLOAD_PATH.fullmatch(path):
        message = f"must be a dotted path into the payload, not {quoted(value)}"
        from runner.config import guesses

        meant = "" if isinstance(value, Interpolated) else guesses.payload_path(path)
        help_ = f'write "{meant}"' if meant else "write it as in customer.id"
        raise spec_error("bad-payload-path", message, help_, replacement=meant)
    return path


Name = Annotated[str, BeforeValidator(name), NAME]
Identifier = Annotated[str, BeforeValidator(_identifier), IDENTIFIER]
Pattern = Annotated[str, BeforeValidator(_pattern), PATTERN]
ExchangeName = Annotated[str, BeforeValidator(_exchange_name), NAME]
RoutingKey = Annotated[str, BeforeValidator(_routing_key), TEXT]
LiteralKey = Annotated[str, BeforeValidator(_literal_key), TEXT]
PayloadPath = Annotated[str, BeforeValidator(_payload_path)]


# Import paths and URLs


def _import_path(value: object) -> str:
    if isinstance(value, str) and _IMPORT_PATH.fullmatch(value) and ".py:" not in value:
        return str(value)
    meant, help_ = "", ""
    if isinstance(value, str) and not isinstance(value, Interpolated):
        from runner.config import guesses

        meant, help_ = guesses.import_path(value)
    if meant:
        is_dotted = isinstance(value, str) and meant.replace(":", ".") == value
        help_ = f'write a colon before the name: "{meant}"' if is_dotted else f'write "{meant}"'
    shown = "code" if "code cannot" in help_ else describe(value)
    message = f"must be an import path, not {shown}"
    raise spec_error("bad-import-path", message, help_ or _IMPORT_EXAMPLE, replacement=meant)


def is_schema_file(written: str) -> bool:
    """Whether a schema is the name of a file, not an import path."""
    return written.endswith((".json", ".yaml", ".yml"))


def file_name(value: str) -> str:
    """Return the name of a file. Control characters come from a backslash in double quotes, as in `"data\\new"`."""
    if any(unicodedata.category(character) == "Cc" for character in value):
        help_ = "write the path with /, or in single quotes: a backslash in double quotes is an escape of YAML"
        raise spec_error("bad-file", f"{quoted(value)} has a control character in it", help_)
    return str(value)


def _schema(value: object) -> str:
    if isinstance(value, str) and is_schema_file(value):
        return file_name(value)
    if isinstance(value, dict):
        help_ = "write it into a file of its own, and name that, as in `schema: schemas/order.json`"
        raise spec_error(
            "bad-import-path", "must be a file or an import path, not a map: a JSON Schema is a file", help_
        )
    if isinstance(value, str) and "/" in value and ":" not in value and not value.endswith(".py"):
        message = f"must be an import path or a JSON Schema file, not {describe(value)}"
        raise spec_error("bad-import-path", message, "write a file whose name ends in .json, .yaml or .yml")
    return _import_path(value)


def _error_path(value: object) -> str:
    """Return the import path of an exception, or the name of a built-in one."""
    if not isinstance(value, str):
        help_ = 'write a name such as TimeoutError, or "package.module:Name"'
        raise spec_error("bad-import-path", f"must be an exception, not {describe(value)}", help_)
    if made := _MADE.fullmatch(value):
        name = made[1]
        written = name if ":" in name or name in vars(builtins) else f"package.module:{name}"
        help_ = f'write "{written}": it gets no arguments'
        meant = "" if made[2].strip() or written != name else name
        raise spec_error(
            "bad-import-path", f"must be the class of an exception, not {quoted(value)}", help_, replacement=meant
        )
    if not _BARE_NAME.fullmatch(value):
        return _import_path(value)
    found = getattr(builtins, value, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return str(value)
    known = [name for name, item in vars(builtins).items() if isinstance(item, type) and issubclass(item, Exception)]
    match = closest(value, known)
    help_ = f'did you mean "{match}"?' if match else 'write "package.module:Name" for an exception of your own'
    raise spec_error("bad-import-path", f"{quoted(value)} is not a built-in exception of Python", help_)


def _broker_url(value: object) -> str:
    if not isinstance(value, str):
        raise spec_error("bad-url", f"must be a URL, not {describe(value)}", f"write {EXAMPLE_URL}")
    if value == "memory":
        raise spec_error("bad-url", '"memory" cannot be in a list of URLs', 'write "broker: memory", or remove it')
    try:
        return parse_broker_url(str(value))
    except ValueError as error:
        help_, meant = url_help(value)
        raise spec_error("bad-url", str(error), help_, replacement=meant) from None


def url_help(value: str) -> tuple[str, str]:
    """Return the help for a wrong URL, and the URL that is meant if that is certain."""
    if isinstance(value, Interpolated):
        return f"set it to {EXAMPLE_URL}", ""
    if not value.startswith(("amqp://", "amqps://")) and closest(value, ["memory"]):
        return 'did you mean "memory"?', ""
    from runner.config import guesses

    meant, hint = guesses.broker(value)
    try:
        meant = meant if meant in ("", "memory") else parse_broker_url(meant)
    except ValueError as error:  # as a rule, the user and password are missing
        host = meant.partition("://")[2].rpartition("@")[2]
        scheme = meant.partition(":")[0]
        user = re.split("[:@]", meant.partition("://")[2])[0] if "@" in meant else ""
        login = f"{user or 'user'}:password"
        yours = "password" if user else "user and password"
        hint, meant = f'write "{scheme}://{login}@{host}", with your {yours}', ""
        if " before its host" not in str(error):
            hint = ""
    if meant and meant != value:
        shown = mask_passwords(meant)
        yours = ", with your password in place of ***" if shown != meant else ""
        return f'write "{shown}"{yours}', "" if "@" in meant else meant
    return hint or f"write {'file:data/shop.queue' if value.startswith('file:') else EXAMPLE_URL}", ""


def _store_url(value: object) -> str:
    why = store_url_problem(value) if isinstance(value, str) else f"must be the URL of a store, not {describe(value)}"
    if why:
        meant = store_url_meant(value) if isinstance(value, str) and not isinstance(value, Interpolated) else ""
        help_ = f'write "{meant}"' if meant else "write sqlite:seen.db, or redis://localhost:6379/0"
        raise spec_error("bad-url", why, help_, replacement=meant)
    return str(value)


ImportPath = Annotated[str, BeforeValidator(_import_path), IMPORT_PATH]
SchemaPath = Annotated[str, BeforeValidator(_schema), SCHEMA]
ErrorPath = Annotated[str, BeforeValidator(_error_path), ERROR_PATH]
BrokerUrl = Annotated[str, BeforeValidator(_broker_url), URL]
StoreUrl = Annotated[str, BeforeValidator(_store_url), STORE]


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a list. Duplicates are errors."""
    if len(set(names)) < len(names):
        first = {item: index for index, item in reversed(list(enumerate(names)))}
        raise_conflicts(
            Conflict((index,), "this name is in the list twice", "remove it", "duplicate-entry", whole_map=False)
            for index, item in enumerate(names)
            if first[item] < index
        )
    return names


OptionalNames = Annotated[tuple[Name, ...], BeforeValidator(one_or_many), AfterValidator(distinct)]
OptionalPatterns = Annotated[tuple[Pattern, ...], BeforeValidator(one_or_many), AfterValidator(distinct)]
Patterns = Annotated[OptionalPatterns, Field(min_length=1)]
