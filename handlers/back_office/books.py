"""The stock and the payments, in an SQLite database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from threading import Lock

TABLES = """
CREATE TABLE IF NOT EXISTS stock (article TEXT PRIMARY KEY, quantity INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS reservations (number INTEGER PRIMARY KEY, shelf TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS payments (number INTEGER PRIMARY KEY, day TEXT NOT NULL, cents INTEGER NOT NULL);
"""


class UnknownArticle(Exception):
    """The shop does not sell this."""


class NotEnough(Exception):
    """There is less of an article than an order wants."""


class Books:
    """All methods can be called again with the same order: a message may be handled twice."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = Lock()  # handlers in threads share the connection, and a transaction is one at a time

    def reserve(self, number: int, article: str, quantity: int) -> str:
        """Take articles out of the stock, and return the shelf on which they lie."""
        with self._lock, self._connection as db:
            if row := db.execute("SELECT shelf FROM reservations WHERE number = ?", [number]).fetchone():
                return str(row[0])
            row = db.execute("SELECT quantity FROM stock WHERE article = ?", [article]).fetchone()
            if row is None:
                raise UnknownArticle(f"there is no article called {article}")
            if row[0] < quantity:
                raise NotEnough(f"{row[0]} {article} left")
            shelf = f"{article}-{number}"
            db.execute("UPDATE stock SET quantity = quantity - ? WHERE article = ?", [quantity, article])
            db.execute("INSERT INTO reservations VALUES (?, ?)", [number, shelf])
            return shelf

    def book(self, payments: list[tuple[int, str, int]]) -> None:
        """Write payments, each as number of the order, day and cents, in one transaction."""
        with self._lock, self._connection as db:
            db.executemany("INSERT OR IGNORE INTO payments VALUES (?, ?, ?)", payments)

    def payments_of(self, day: date) -> tuple[int, int]:
        """Return how many payments were booked on a day, and their sum in cents."""
        with self._lock:
            query = "SELECT count(*), coalesce(sum(cents), 0) FROM payments WHERE day = ?"
            count, cents = self._connection.execute(query, [day.isoformat()]).fetchone()
        return count, cents


@contextmanager
def open_books(database: str, stock: dict[str, int]) -> Iterator[Books]:
    """Open the database; the stock is that of the first time."""
    with closing(sqlite3.connect(database, check_same_thread=False)) as connection:
        connection.executescript(TABLES)
        with connection:
            connection.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?)", stock.items())
        yield Books(connection)
