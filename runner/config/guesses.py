"""What is meant by values of wrong forms: durations, sizes, cron lines, time zones and import paths of other tools.

Each function returns "" unless nothing of the value is lost.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from runner.config.messages import closest

_UNITS: Final = {
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds", "毫秒"), 1),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "秒", "秒钟"), 1000),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes", "分", "分钟"), 60_000),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "小时", "时"), 3_600_000),
    **dict.fromkeys(("d", "day", "days", "天", "日"), 86_400_000),
    **dict.fromkeys(("w", "week", "weeks"), 604_800_000),
}
_SHORT: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z\u4e00-\u9fff]+)[\s,]*(?:and\s+)?")
_ISO: Final = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_CLOCK: Final = re.compile(r"(\d{1,3}):([0-5]\d):([0-5]\d)")
_MAX_MODULES: Final = 500
_WORDS: Final = {"a": "1", "an": "1", "one": "1"}


def duration(text: str) -> str:
    """Return the duration that `5 minutes`, `1h30m`, `PT5M` or `00:05:00` means, as in `5m`."""
    text = re.sub(r"^(?:rate\((.*)\)|@?every (.*))$", r"\1\2", text.strip())
    if (match := _ISO.fullmatch(text.upper())) and any(match.groups()):
        return _short(sum(int(number or 0) * size for number, (_, size) in zip(match.groups(), _SHORT, strict=False)))
    if match := _CLOCK.fullmatch(text):
        return _short(sum(int(number) * size for number, (_, size) in zip(match.groups(), _SHORT[1:], strict=False)))
    text = re.sub(r"^(\d+),(\d{1,2})(?=\s*[A-Za-z])", r"\1.\2", text)
    text = re.sub(r"^(a|an|one)(?=\s)", lambda found: _WORDS[found[1].lower()], text, flags=re.IGNORECASE)
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text) or any(unit.lower() not in _UNITS for _, unit in parts):
        return ""
    if any(unit == "M" for _, unit in parts):
        return ""  # months, perhaps
    return _short(sum(float(number) * _UNITS[unit.lower()] for number, unit in parts))


def _short(milliseconds: float) -> str:
    """Return a duration in the largest unit that is a whole number, "" if it is not a whole number of milliseconds."""
    if milliseconds != int(milliseconds) or milliseconds <= 0:
        return ""
    unit, size = next((unit, size) for unit, size in _SHORT if milliseconds % size == 0)
    return f"{int(milliseconds // size)}{unit}"


_NAMES_OF_DAYS: Final = re.compile(
    r"\b(mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|jun|jul|aug|sep|oct|nov|dec)"
    r"(?:day|sday|nesday|rsday|urday|uary|ruary|ch|il|e|y|ust|tember|ober|ember|s)\b",
    re.IGNORECASE,
)


def cron(line: str) -> tuple[str, str]:
    """Return the cron line of five fields that one of Quartz, Spring or AWS means, and what changes; "" if unknown."""
    line = re.sub(r"^cron\((.*)\)$", r"\1", line.strip())
    line, renamed = _NAMES_OF_DAYS.subn(lambda match: match[1].lower(), line)
    parts = line.split()
    changes = []
    if renamed and len(parts) == 5 and "?" not in parts:
        return " ".join(parts), "all but three letters of each name"
    if len(parts) == 7 and parts[6] == "*":
        parts, changes = parts[:6], ["the year"]
    if len(parts) == 6 and re.fullmatch(r"\*|(19|20)\d\d", parts[5]) and "?" in (parts[2], parts[4]):
        if parts[5] != "*":
            return "", ""
        parts, changes = parts[:5], ["the year"]  # AWS
    elif len(parts) == 6 and parts[0] in ("0", "00"):
        parts, changes = parts[1:], ["the seconds", *changes]
    if "?" in (*parts[2:3], *parts[4:5]):
        changes.append('the "?"')
        parts = ["*" if part == "?" else part for part in parts]
    if len(parts) != 5 or not changes or ('the "?"' in changes and re.search(r"\d", parts[4])):
        return "", ""  # Quartz counts days of the week from 1 for Sunday
    return " ".join(parts), " and ".join(changes)


def cron_at(text: str) -> str:
    """Return the cron line for a time of the day such as `06:00`, and a cron line itself; "" for another text."""
    clock = re.fullmatch(r"(?:at |daily at |every day at )?([01]?\d|2[0-3]):([0-5]\d)", text.strip().lower())
    fields = re.fullmatch(r"[\d*/,-]+( [\w*/,-]+){4}", text.strip())
    return f"{int(clock[2])} {int(clock[1])} * * *" if clock else text.strip() if fields else ""


_CALENDAR: Final = re.compile(
    r"(?:(?:on |every |each )?(?P<days>[a-z][a-z, -]*?) )?(?:at )?"
    r"(?:(?:\*|\d{4})-(?P<month>\*|\d{1,2})-(?P<day>\*|\d{1,2}) )?"
    r"(?P<hour>\*|[01]?\d|2[0-3])(?::(?P<minute>[0-5]\d|\*|[*0]/\d{1,2}))?(?::00)? ?(?P<half>am|pm)?"
)
_DAYS: Final = {
    **dict.fromkeys(("day", "daily", "everyday"), "*"),
    **dict.fromkeys(("weekday", "workday", "weekdays", "workdays", "working day"), "mon-fri"),
    **dict.fromkeys(("weekend", "weekends"), "sat,sun"),
}


def calendar(text: str) -> str:
    """Return the cron line for days and a time, as in `weekdays at 6:30` or systemd's `Mon..Fri *-*-* 06:30:00`."""
    found = _CALENDAR.fullmatch(" ".join(text.lower().replace("..", "-").split()))
    if found is None:
        return ""
    days = _DAYS.get(found["days"] or "day") or re.sub(
        r"(sun|mon|tue|wed|thu|fri|sat)[a-z]*", r"\1", re.sub(r"\s*(?:,|and)\s*", ",", found["days"] or "")
    )
    if not re.fullmatch(r"\*|(?:sun|mon|tue|wed|thu|fri|sat)(?:[,-](?:sun|mon|tue|wed|thu|fri|sat))*", days):
        return ""
    hour, minute = found["hour"], found["minute"] or "0"
    if found["half"]:
        hour = str(int(hour) % 12 + (12 if found["half"] == "pm" else 0)) if hour != "*" else hour
    fields = (re.sub(r"^0/", "*/", minute), hour, found["day"] or "*", found["month"] or "*")
    return " ".join([*(str(int(field)) if field.isdecimal() else field for field in fields), days])


_CRON_KEYS: Final = ("min(ute)?s?", "hours?", "days?(_of_month)?|dom", "months?(_of_year)?", "day_of_week|weekday|dow")


def cron_of(value: object) -> str:
    """Return the cron line that a map of its fields, or a list of lines or of fields, means."""
    if isinstance(value, dict):
        found = [[str(value[key]) for key in value if re.fullmatch(keys, str(key))] for keys in _CRON_KEYS]
        is_known = len(value) == sum(map(len, found)) and all(len(item) < 2 for item in found) and found[0]
        return " ".join(item[0] if item else "*" for item in found) if is_known else ""
    items = [str(item).split() for item in value] if isinstance(value, list) else []
    if len(items) == 5 and all(len(item) == 1 for item in items):
        items = [[item[0] for item in items]]
    columns = [list(dict.fromkeys(column)) for column in zip(*items, strict=False)]
    is_joined = len(columns) == 5 == max(map(len, items)) and sum(len(column) > 1 for column in columns) <= 1
    return " ".join(",".join(column) for column in columns) if is_joined else ""


_OFFSET: Final = re.compile(r"(?:UTC|GMT)?\s*([+-])0?(\d{1,2})(?::?00)?", re.IGNORECASE)


_PLACES: Final = {
    **{"PST": "America/Los_Angeles", "MST": "America/Denver", "CST": "America/Chicago", "EST": "America/New_York"},
    **{"BST": "Europe/London", "WEST": "Europe/Lisbon", "EEST": "Europe/Helsinki", "MSK": "Europe/Moscow"},
    **{"IST": "Asia/Kolkata", "JST": "Asia/Tokyo", "KST": "Asia/Seoul", "SGT": "Asia/Singapore"},
    **{"AEST": "Australia/Sydney", "NZST": "Pacific/Auckland"},
}
"""A place for each of some abbreviations, most of which have other meanings elsewhere."""


def zone(text: str, zones: set[str]) -> str:
    """Return the help for the name of a time zone that does not exist, "" if its meaning is unknown.

    A nearest name would be another zone, so only the last part of a name is looked for, such as Berlin.
    """
    low = text.strip().lower()
    if (match := _OFFSET.fullmatch(text.strip())) and int(match[2]) <= 14:
        turned = "-" if match[1] == "+" else "+"
        return (
            f'write a place, as in Europe/Berlin, or "Etc/GMT{turned}{int(match[2])}" (its sign is the other way round)'
        )
    city = low.rpartition("/")[2].replace(" ", "_")
    found = sorted(name for name in zones if name.lower() == low.replace(" ", "_") or name.lower().endswith(f"/{city}"))
    found = [name for name in found if not name.startswith(("Etc/", "posix/", "right/", "US/"))] or found
    if len(found) == 1:
        return f'write "{found[0]}"'
    if re.fullmatch(r"[A-Z]{2,5}", text.strip()):
        place = _PLACES.get(text.strip().replace("DT", "ST"), "Europe/Berlin")
        return f"write a place, as in {place}; it changes to summer time by itself"
    return ""


def import_path(text: str) -> tuple[str, str]:
    """Return the import path that is meant, and a hint; one of both may be empty."""
    if "\n" in text.strip() or text.lstrip().startswith(("def ", "lambda", "async def ", "import ")):
        return "", "code cannot stand in the pipeline: put the function into a module, and name it"
    if made := re.fullmatch(r"([\w.]+):(\w+\([^()]*\)(?:\.(\w+))?)", text.strip()):
        name = made[3] or "handler"
        if made[3] or not made[2].endswith("()"):
            return "", f'add `{name} = {made[2]}` to the module, and write "{made[1]}:{name}"'
    called = re.sub(r"\(\s*\)$|[\"']|[\]})]$", "", _bare_path(text))
    if outside := re.fullmatch(r"((?:/|\.\./)\S*)/(\w+)(?:\.py)?:(\w+)", called):
        return "", f'write "{outside[2]}:{outside[3]}", and `python_path: [{outside[1]}]` at the top of the pipeline'
    path, colon, name = re.sub(r"\s*(?:::|->|=>|=|#|!|@|,)\s*", ":", called).rpartition(":")
    if not colon and called.endswith(".py"):
        return "", f'write the function as well, as in "{_module(called)}:name"'
    if not colon:
        path, _, name = called.rpartition(".")
    if not path:
        bare = called or "name"
        example = f'name its module as well, as in "package.module:{bare}"'
        return "", example if bare.isidentifier() else ""
    found = f"{_module(path)}:{name.strip().removesuffix('.py')}"
    if "-" in path and re.fullmatch(r"[A-Za-z_][\w.-]*:[A-Za-z_][\w.]*", found):
        file = _module(path).rpartition(".")[2].replace("-", "_")
        return "", f'write "{found.replace("-", "_")}", and name the file {file}.py: a module\'s name has no hyphen'
    return (
        (found, "") if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", found) else ("", "")
    )


def _bare_path(text: str) -> str:
    """Return the path in a command or an import statement, such as `python -m app` or `from app import ship`."""
    text = re.sub(r"^(python\S*|uv run)\s+(-m\s+)?", "", text.strip())
    return re.sub(r"^from\s+(\S+)\s+import\s+(\w+)$", r"\1:\2", text)


def function_in(folders: Iterable[Path], text: str, item: str) -> str:
    """Return the import path of the function that a text without a colon means, by the files of its folders.

    `app`, `app/ship` and `ship` mean `app:ship`. `item` is the name of the subscriber, which its function may have.
    """
    text = _bare_path(text)
    *words, last = [word for word in re.split(r"[./\\:]+", re.sub(r"\.py(:|$)", ":", text)) if word] or [""]
    starts = range(max(1, len(words))) if text.startswith(("/", "~", "..")) else (0,)
    for folder, start in itertools.product(folders, starts):
        above = words[start:]
        for module, names in (([*above, last], (item,)), (above, (last,))):
            if all(word.isidentifier() for word in module) and module:
                defined = _defined(folder.joinpath(*module).with_suffix(".py"))
                if name := next((name for name in names if name in defined), defined[0] if len(defined) == 1 else ""):
                    return f"{'.'.join(module)}:{name}" if name else ""
        found = [module for module in _modules(folder) if not above and last in _defined(folder / f"{module}.py")]
        if len(found) == 1:
            return f"{found[0].replace('/', '.')}:{last}"
    return ""


def file_near(folder: Path, written: str) -> str:
    """Return the path of the file that is meant by one that a folder does not have, by its name or its path."""
    paths = [file.relative_to(folder).as_posix() for depth in range(3) for file in folder.glob(f"{'*/' * depth}*.*")]
    name = re.split(r"[/\\]", written)[-1]
    alike = [path for path in paths[:_MAX_MODULES] if path.endswith(Path(name).suffix) and path[0] != "."]
    same = [path for path in alike if path.rpartition("/")[2].lower() == name.lower()]
    return same[0] if len(same) == 1 else closest(written, alike, likeness=0.75) or ""


def _modules(folder: Path) -> list[str]:
    """Return the paths of the modules in a folder, in its packages and in theirs, without `.py`. Tests are none."""
    files = [file.relative_to(folder) for depth in range(4) for file in folder.glob(f"{'*/' * depth}*.py")]
    files = [
        file for file in files if file.stem != "__init__" and all(map(str.isidentifier, file.with_suffix("").parts))
    ]
    return [file.with_suffix("").as_posix() for file in files if not {"tests", "test"} & {*file.parts}][:_MAX_MODULES]


def _defined(file: Path) -> list[str]:
    """Return the names of the functions of a Python file, none if it cannot be read."""
    try:
        return re.findall(r"^(?:async def|def|class) ([A-Za-z]\w*)", file.read_text("utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return []


def _module(path: str) -> str:
    return re.sub(r"[/\\]", ".", re.sub(r"^\./|([/\\]__init__)?\.py$", "", path.strip())).strip(".")


def number(text: str) -> str:
    """Return the whole number that `1_000`, `1,000`, `10k` or `"10 "` means."""
    text = text.strip()
    if re.fullmatch(r"\d{1,3}([_,' ]\d{3})+", text):
        return re.sub(r"\D", "", text)
    if re.fullmatch(r"0+[1-9]\d*", text):
        return text.lstrip("0")
    if match := re.fullmatch(r"(\d+)\s*([kK])", text):
        return f"{match[1]}000"
    return re.sub(r"[,;]$", "", text) if re.fullmatch(r"\d+[,;]", text) else ""


_SCHEMES: Final = re.compile(r"(?:py)?amqp(?:lib|s)?|rabbit(?:mq|s)?|amqp\+ssl|tcp|http|https", re.IGNORECASE)


def broker(text: str) -> tuple[str, str]:
    """Return the URL of a broker or `memory` that is meant, and a hint; one of both may be empty."""
    text = text.strip()
    if text.lower().replace("-", "").replace("_", "") in ("inmemory", "mem", "inprocess", "ram"):
        return "memory", ""
    if match := re.fullmatch(r"(?:sqlite3?|file|queue)?:?/{0,3}([^:\s]*\.(?:queue|db|sqlite3?))", text):
        path = match[1]
        return f"file:{'/' if re.match(r'[a-z0-9]+:////|/', text) and path[0] != '/' else ''}{path}", ""
    if re.match(r"\.{0,2}/[^/]", text):
        return "", f"for a broker in a file, write file:{text}{'shop.queue' if text.endswith('/') else ''}"
    if "," in text or ";" in text:
        urls = [url.strip() for url in re.split("[,;]", text) if url.strip()]
        return "", "put them into a list under the key `urls:`, below `broker:`" if len(urls) > 1 else ""
    if re.search(r"[^/:]//$", text) and not re.match(r"amqps?:", text):
        text = text[:-1]  # Celery's
    if re.search(r"[^/:]//$", text):
        return "", 'write one "/" at its end, for the virtual host "/"'
    scheme, separator, rest = re.sub(r"^(amqps?)(?::/?|//)(?=[^/])", r"\1://", text).partition("://")
    if not separator and closest(text, ["memory"]):
        return "memory", ""
    scheme = closest(scheme, ["amqp", "amqps"]) or scheme
    if login := re.fullmatch(r"([^:@/]+):(.*[/?#].*)@([^@/?#]+(?:/[^@/?#]*)?)", rest):  # a password as it is
        rest = f"{login[1]}:{quote(unquote(login[2]), safe='')}@{login[3]}"
    if separator and not _SCHEMES.fullmatch(scheme):
        hint = "the runner speaks AMQP 0-9-1, as RabbitMQ does: write amqp://host:5672/vhost"
        return "", hint if "sql" not in scheme else "write file:PATH, such as file:data/shop.queue"
    rest = re.sub(r":1(567[12])(?=/|$)", r":\1", rest if separator else text)
    if separator and scheme.lower().startswith("http"):
        rest = re.sub(r":\d+$", ":5671" if scheme.lower() == "https" else ":5672", rest.partition("/")[0])
    if not re.fullmatch(r"(?:[^\s@/]*@)?[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[^\s/]*)?", rest):
        return "", ""
    secure = "s" if scheme.lower().endswith(("s", "ssl")) and separator else ""
    return f"amqp{secure}://{rest}", ""


def address(text: str, names: Iterable[str]) -> str:
    """Return the help for the URL, URI or ARN of a queue in place of its name; "" for another text."""
    if not re.search(r"://|[^:]:[^:]*[?:/]|^(?:#|/|projects)/|\?\w+=", text):
        return ""
    parts = [part for part in re.split(r"[/:?&=#,]+", text) if part]
    found = [name for name in names if name in parts]
    count = re.search(r"(?:concurren|consumers)\w*=(\d+)", text, re.IGNORECASE)
    more = f' and "concurrency: {count[1]}"' if count else ""
    if len(found) == 1:
        return f'write "{found[0]}"{more}: a name, not an address'
    return "write the name of a queue or of an event, not an address"


def event_pattern(text: str) -> str:
    """Return the pattern of events that one of MQTT, of NATS, a glob or a regular expression means; "" for others."""
    if not re.search(r"[\\/+>%^$]|\*\*", text):
        return ""
    pattern = re.sub(r"^\^|\$$", "", text)
    pattern = re.sub(r"\\?\.[.]?[*+](?=$)", ".#", pattern) if re.search(r"\\|\.[+*]$", text) else pattern
    pattern = re.sub(r"\[\^\\?\.\][+*]|\\w[+*]", "*", pattern).replace("\\.", ".").replace("/", ".")
    words = [{"+": "*", ">": "#", "**": "#", "%": "*"}.get(word, word) for word in pattern.split(".")]
    meant = ".".join(words)
    is_pattern = {"*", "#"} & {*words} and all(re.fullmatch(r"[\w-]+|\*|#", word) for word in words)
    return meant if is_pattern and meant != text else ""


def rate(text: str) -> str:
    """Return the rate that `10rps`, `10 req/s`, `600 rpm` or `48 per day` means, with the same number."""
    pattern = r"(\d+(?:\.\d+)?)\s*(?:[a-z]*\s*/\s*|(?:[a-z]+\s+)?(?:per|an?|each|every)\s+|[a-z]p(?=[smh]$)|)([a-z]*)"
    match = re.fullmatch(pattern, text.strip().lower())
    units = {size: unit for unit, size in _SHORT[:-1]}
    size = _UNITS.get(match[2] or "s") if match else None
    return f"{match[1]}/{units[size]}" if match and size in units else ""


def payload_path(text: str) -> str:
    """Return the dotted path that `$.a.b`, `/a/b`, `a/b` or `a["b"]` means."""
    path = re.sub(r"\[[\"'](\w+)[\"']\]", r".\1", text.strip()).removeprefix("$").replace("/", ".").strip(".")
    return path if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", path) else ""
