"""Retrieval data in a folder of the user's: found, read and checked row by row, the same for both lines of hosts.

Three tables, each a file or a folder of files (``.jsonl``, ``.jsonl.gz``, ``.parquet``, ``.csv``, ``.tsv``):

* ``corpus``: ``_id``, ``text`` and, where there is one, ``title``;
* ``queries``: ``_id``, ``text``;
* ``qrels``: ``query-id``, ``corpus-id``, ``score``; one file for every split, or ``qrels/SPLIT.tsv`` for each.

Several languages are folders of their own with these tables in them, or tables with a prefix (``en-corpus``). A row that
no model can be asked about, or whose meaning would have to be guessed, is an error; what only a reader must know is
counted. No host is needed to read.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evalscope_vacc.errors import ConfigError
from evalscope_vacc.redact import clean

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".tsv")
DEFAULT_SUBSET = "default"
# how the judgements' folder is called: by BEIR, and by the hub
_JUDGEMENTS = ("qrels", "default")
_ID, _QUERY, _DOCUMENT = ("_id", "id"), ("query-id", "query_id", "qid"), ("corpus-id", "corpus_id", "pid")
# as the hub cuts a table: test-00000-of-00002.parquet
_PIECE = re.compile(r"-\d+-of-\d+$")
_BOM = b"\xef\xbb\xbf"
# mteb keeps judgements in 32 bits
_LARGEST = 2**31 - 1
_SHOWN = 5
_KEYS = ("name", "data_path", "eval_splits")
# what EvalScope says of every custom task
_LANGUAGE = "eng-Latn"
_LANGUAGES = {
    "ar": "ara-Arab", "de": "deu-Latn", "en": "eng-Latn", "es": "spa-Latn", "fr": "fra-Latn", "it": "ita-Latn",
    "ja": "jpn-Jpan", "ko": "kor-Hang", "pt": "por-Latn", "ru": "rus-Cyrl", "zh": "cmn-Hans",
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """Something about one row, or one file, that its owner should know.

    Attributes:
        kind: What is wrong, the same words for every row.
        file: Path inside the folder.
        line: Line of the file, or row of a Parquet file, from 1; 0 for the whole file.
        row: The row's id, "" where it has none.
        seen: What was seen, where the kind does not say it.
        error: Whether the data cannot be used; what is no error is counted, and the run goes on.
    """

    kind: str
    file: str
    line: int = 0
    row: str = ""
    seen: str = ""
    error: bool = True

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f", {'row' if self.file.endswith('.parquet') else 'line'} {self.line}"
        row = f", _id {clean(self.row, limit=80)!r}" if self.row else ""
        return f"{place}{row}: {self.kind}{f': {clean(self.seen, limit=160)}' if self.seen else ''}"


@dataclass(frozen=True)
class Part:
    """One subset and split.

    Attributes:
        subset: "default", or the language's folder.
        split: Such as "test".
        corpus: Document to its text, the title before it.
        queries: Query to its text; only those with a judgement.
        relevant: Query to document to score.
    """

    subset: str
    split: str
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class CustomData:
    """What a folder holds.

    Attributes:
        folder: The folder.
        parts: Every subset and split; tables that several share are the same objects.
        faults: In the order of the files.
    """

    folder: Path
    parts: tuple[Part, ...]
    faults: tuple[Fault, ...]

    @property
    def errors(self) -> list[Fault]:
        """What makes the data unusable."""
        return [fault for fault in self.faults if fault.error]

    @property
    def subsets(self) -> list[str]:
        """The languages' names, or "default" alone."""
        return list(dict.fromkeys(part.subset for part in self.parts))

    def counted(self) -> list[str]:
        """One line for each kind of what is no error, with the first row of it."""
        found: dict[tuple[str, str], list[Fault]] = {}
        for fault in self.faults:
            if not fault.error:
                found.setdefault((fault.file, fault.kind), []).append(fault)
        return [
            str(first) if len(all_of_it) == 1 else f"{file}: {kind} ({len(all_of_it)} rows, the first is {first})"
            for (file, kind), all_of_it in found.items()
            for first in all_of_it[:1]
        ]

    def report(self) -> list[str]:
        """Lines for a person: what is there, every error, what was counted, the verdict."""
        lines = [str(self.folder)]
        for part in self.parts:
            judged = sum(map(len, part.relevant.values()))
            lines.append(
                f"  {part.subset} {part.split}: {len(part.corpus)} documents, {len(part.queries)} queries with "
                f"{judged} judgements"
            )
        lines += [f"  wrong: {fault}" for fault in self.errors]
        lines += [f"  counted: {line}" for line in self.counted()]
        many = len(self.errors)
        verdict = (
            f"FAILED  {many} row{'s' * (many > 1)} cannot be used" if many else "PASSED  the data can be evaluated"
        )
        return [*lines, verdict]

    def check(self, name: str) -> None:
        """Raises where the data cannot be used.

        Args:
            name: Of the task, for the message.

        Raises:
            ConfigError: File, line and ``_id`` of the first rows of each kind, and how many there are.
        """
        errors = self.errors
        if not errors:
            return
        if len(errors) == 1:
            raise ConfigError(f"{name}: {self.folder}: {errors[0]}")
        kinds = Counter(fault.kind for fault in errors)
        shown: Counter[str] = Counter()
        lines = []
        for fault in errors:
            shown[fault.kind] += 1
            if shown[fault.kind] <= _SHOWN:
                lines.append(f"  {fault}")
        lines += [f"  {kind}: {n - _SHOWN} more rows" for kind, n in kinds.items() if n > _SHOWN]
        raise ConfigError(
            f"{name}: {len(errors)} faults in {self.folder} (`evalscope-vacc check-data {self.folder}` lists all):\n"
            + "\n".join(lines)
        )


@dataclass(frozen=True)
class CustomTask:
    """One entry of ``eval.custom_tasks`` whose data have been read and checked.

    Attributes:
        name: As results are filed.
        splits: Those that are evaluated.
        data: What its folder holds.
    """

    name: str
    splits: tuple[str, ...]
    data: CustomData

    @property
    def languages(self) -> dict[str, list[str]] | list[str]:
        """MTEB's ``eval_langs``: by subset where there are several."""
        if self.data.subsets == [DEFAULT_SUBSET]:
            return [_LANGUAGE]
        return {subset: [_LANGUAGES.get(subset, _LANGUAGE)] for subset in self.data.subsets}


def custom_tasks(given: Iterable[Any], *, is_known: Callable[[str], bool], default: str) -> list[CustomTask]:
    """Reads the folders of ``eval.custom_tasks``, and says what was counted in them.

    Args:
        given: Mappings or objects with ``name``, ``data_path`` and ``eval_splits``.
        is_known: Whether MTEB has a task of a name.
        default: Name of one that has none.

    Raises:
        ConfigError: A folder or its data cannot be used, or a name is taken.
    """
    found: list[CustomTask] = []
    for entry in given:
        keys = entry if isinstance(entry, Mapping) else {key: getattr(entry, key, None) for key in _KEYS}
        name, path, splits = (keys.get(key) for key in _KEYS)
        name, where = name or default, "eval.custom_tasks"
        unknown = [key for key in keys if key not in _KEYS]
        if unknown:
            raise ConfigError(f"{where}: {name}: unknown key {unknown[0]!r}: the keys are {', '.join(_KEYS)}")
        if not path:
            raise ConfigError(f"{where}: {name} needs a data_path: the folder of corpus.jsonl, queries.jsonl and qrels")
        if is_known(name):
            raise ConfigError(
                f"{where}: {name} is a task of MTEB, whose published scores are of other data: choose another name, or "
                f"name a local copy of it as eval.dataset_paths: {{{name}: {path}}}"
            )
        if any(name == other.name for other in found):
            raise ConfigError(f"{where}: two tasks are named {name}: their results would be one file")
        wanted = (splits,) if isinstance(splits, str) else tuple(splits or ("test",))
        data = read_folder(Path(path), wanted)
        data.check(f"{where}: {name}")
        for line in data.counted():
            logger.warning("%s: %s", name, line)
        found.append(CustomTask(name, wanted, data))
    return found


def read_folder(folder: Path, splits: Sequence[str] | None = None, *, published: bool = False) -> CustomData:
    """Reads a folder, and checks every row of it.

    Args:
        folder: The data's folder.
        splits: Those wanted; default all that have judgements, "test" where they are for every split.
        published: Whether it is a copy of a published data set, whose scores were measured with negative judgements and
            with those of absent documents (TREC-COVID has some): they are kept and counted.

    Raises:
        ConfigError: It is no folder with the three tables, or has no judgements of a split.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder of data")
    reader = _Reader(folder, published)
    parts: list[Part] = []
    for subset, tables in _subsets(folder):
        parts += reader.parts(subset, tables, splits)
    return CustomData(folder, tuple(parts), tuple(reader.faults))


def facts(data: CustomData) -> dict[str, Any]:
    """Returns what `evalscope-vacc check-data --json` prints of a folder."""
    return {
        "folder": str(data.folder),
        "parts": [
            {
                "subset": part.subset,
                "split": part.split,
                "documents": len(part.corpus),
                "queries": len(part.queries),
                "judgements": sum(map(len, part.relevant.values())),
            }
            for part in data.parts
        ],
        "faults": [asdict(fault) for fault in data.faults],
        "errors": len(data.errors),
    }


def data_folders(folder: Path) -> list[Path]:
    """Returns the folders of data sets: those in a folder, or the folder itself.

    Raises:
        ConfigError: There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder of data")
    found = [inner for inner in sorted(folder.iterdir()) if inner.is_dir() and has_tables(inner)]
    if _table(folder, "corpus") or _prefixes(folder) or not found:
        return [folder]
    return found


def has_tables(folder: Path) -> bool:
    """Whether a folder has a corpus, of whatever layout."""
    try:
        return bool(_subsets(folder))
    except ConfigError:
        return False


# -- the layout ----------------------------------------------------------------------------------------------------------

Files = Mapping[str, Sequence[Path]]
"""Split to the files of a table; "" for a single file, which is for every split."""


@dataclass(frozen=True)
class _Tables:
    corpus: Files
    queries: Files
    qrels: Files


def _subsets(folder: Path) -> list[tuple[str, _Tables]]:
    """Returns the languages of a folder and where the tables of each are.

    Raises:
        ConfigError: There is no corpus, or a table of one is missing.
    """
    if _table(folder, "corpus"):
        return [(DEFAULT_SUBSET, _tables(folder, ""))]
    entries = sorted(folder.iterdir())
    prefixes = _prefixes(folder)
    if prefixes:
        return [(prefix, _tables(folder, f"{prefix}-")) for prefix in prefixes]
    inside = [entry for entry in entries if entry.is_dir() and _table(entry, "corpus")]
    if inside:
        return [(entry.name, _tables(entry, "")) for entry in inside]
    seen = ", ".join(entry.name for entry in entries[:8]) or "nothing"
    raise ConfigError(
        f"{folder}: no corpus: expected corpus.jsonl, queries.jsonl and qrels.jsonl or qrels/test.tsv (also .parquet, "
        f".csv, .tsv; one folder a language), found {clean(seen, limit=200)}"
    )


def _prefixes(folder: Path) -> list[str]:
    """Returns the languages of tables such as ``en-corpus``."""
    names = (_stem(entry) for entry in sorted(folder.iterdir()) if entry.is_dir() or _suffix(entry))
    return list(dict.fromkeys(name.removesuffix("-corpus") for name in names if name.endswith("-corpus")))


def _tables(folder: Path, prefix: str) -> _Tables:
    corpus, queries = (_table(folder, f"{prefix}{name}") for name in ("corpus", "queries"))
    judgements = _JUDGEMENTS[:1] if prefix else _JUDGEMENTS
    qrels = next(filter(None, (_table(folder, f"{prefix}{name}") for name in judgements)), {})
    for name, found in (("queries", queries), ("qrels", qrels)):
        if not found:
            raise ConfigError(f"{folder}: no {prefix}{name}: expected {prefix}{name}.jsonl, or another of {SUFFIXES}")
    for name, found in (("corpus", corpus), ("queries", queries)):
        if "" in found and (len(found) > 1 or len(found[""]) > 1):
            both = ", ".join(sorted({file.name for files in found.values() for file in files}))
            raise ConfigError(f"{folder}: several files for the {name}: {both}; keep one")
    return _Tables(corpus, queries, qrels)


def _table(folder: Path, name: str) -> dict[str, list[Path]]:
    """Returns the files of a table by their split; a folder's files are of the split that they are named for."""
    found: dict[str, list[Path]] = {}
    for suffix in SUFFIXES:
        file = folder / f"{name}{suffix}"
        if file.is_file():
            found.setdefault("", []).append(file)
    inside = folder / name
    if inside.is_dir():
        for file in sorted(inside.iterdir()):
            if _suffix(file) and file.is_file():
                found.setdefault(_PIECE.sub("", _stem(file)), []).append(file)
    return found


def _suffix(path: Path) -> str:
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), "")


def _stem(path: Path) -> str:
    return path.name.removesuffix(_suffix(path)) if path.is_file() else path.name


# -- rows ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """Reads tables, each once, and notes what is wrong in them."""

    folder: Path
    published: bool = False
    faults: list[Fault] = field(default_factory=list)
    _queries: dict[tuple[Path, str], int] = field(default_factory=dict)

    def parts(self, subset: str, tables: _Tables, splits: Sequence[str] | None) -> list[Part]:
        """Returns the splits of one subset."""
        named = [split for split in tables.qrels if split]
        read: dict[tuple[Path, ...], dict[str, str]] = {}
        judged: set[str] = set()
        found = []
        for split in splits or named or ["test"]:
            judgements = self._judged(tables.qrels, split)
            documents, asked = (self._chosen(files, split, tables) for files in (tables.corpus, tables.queries))
            for files in (documents, asked):
                if files not in read:
                    read[files] = self._texts(files, titles=files is documents)
            relevant = self._relevant(judgements, read[documents], read[asked])
            judged |= set(relevant)
            kept = {query: text for query, text in read[asked].items() if query in relevant}
            found.append(Part(subset, split, read[documents], kept, {query: relevant[query] for query in kept}))
        self._count_left_out(found, judged)
        return found

    def _count_left_out(self, parts: Sequence[Part], judged: set[str]) -> None:
        for (file, query), line in self._queries.items():
            if query not in judged:
                self._note("the query has no judgement: it is left out", file, line, query, error=False)
                continue
            scores = [part.relevant[query].values() for part in parts if query in part.relevant]
            if not any(score > 0 for values in scores for score in values):
                self._note("no document is relevant to the query: it scores 0", file, line, query, error=False)
        self._queries.clear()

    def _chosen(self, files: Files, split: str, tables: _Tables) -> tuple[Path, ...]:
        if split in files:
            return tuple(files[split])
        if len(files) == 1:
            return tuple(next(iter(files.values())))
        table = "corpus" if files is tables.corpus else "queries"
        raise ConfigError(f"{self.folder}: the {table} has the splits {', '.join(files)}, not {split!r}")

    def _judged(self, qrels: Files, split: str) -> list[tuple[Path, ...]]:
        """Returns the files of a split's judgements; where there are two forms of them, both."""
        found = [tuple(qrels[name]) for name in (split, "") if name in qrels]
        if not found:
            there = [name for name in qrels if name]
            raise ConfigError(
                f"{self.folder}: there are judgements of {', '.join(there)}, not of {split!r}: write eval_splits: {there}"
            )
        return found

    def _note(self, kind: str, file: Path, line: int = 0, row: str = "", seen: str = "", *, error: bool = True) -> None:
        self.faults.append(Fault(kind, file.relative_to(self.folder).as_posix(), line, row, seen, error))

    # -- tables

    def _texts(self, files: Sequence[Path], *, titles: bool) -> dict[str, str]:
        """Returns id to text of a corpus or of the queries."""
        found: dict[str, str] = {}
        for file in files:
            rows = 0
            for line, row in self._rows(file):
                rows += 1
                name = self._id(row, _ID, file, line)
                text = self._text(row, "text", file, line, name or "")
                title = self._title(row, file, line, name or "") if titles else ""
                if name is None or text is None or title is None:
                    continue
                if not text and not title:
                    self._note("the text is empty", file, line, name, error=False)
                text = f"{title} {text}".strip() if title else text
                if name not in found:
                    found[name] = text
                    if not titles:
                        self._queries[file, name] = line
                elif found[name] == text:
                    self._note("the row occurs twice", file, line, name, error=False)
                else:
                    self._note("the _id occurs twice, with different texts", file, line, name)
            if not rows and not self._unreadable(file):
                self._note("the file has no rows", file)
        return found

    def _unreadable(self, file: Path) -> bool:
        name = file.relative_to(self.folder).as_posix()
        return any(fault.file == name and fault.error for fault in self.faults)

    def _relevant(
        self, tables: Sequence[Sequence[Path]], corpus: Mapping[str, str], queries: Mapping[str, str]
    ) -> dict[str, dict[str, int]]:
        """Returns query to document to score."""
        found: list[dict[str, dict[str, int]]] = []
        for files in tables:
            found.append({})
            for file in files:
                for line, row in self._rows(file):
                    self._judgement(row, file, line, found[-1], corpus, queries)
        if found[0] != found[-1]:
            other = tables[0][0].relative_to(self.folder).as_posix()
            self._note("its judgements differ from those of the other file", tables[-1][0], seen=other)
        return found[0]

    def _judgement(
        self,
        row: Mapping[str, Any],
        file: Path,
        line: int,
        found: dict[str, dict[str, int]],
        corpus: Mapping[str, str],
        queries: Mapping[str, str],
    ) -> None:
        query, document = self._id(row, _QUERY, file, line), self._id(row, _DOCUMENT, file, line)
        score = self._score(row, file, line, query or "")
        if query is None or document is None or score is None:
            return
        if query not in queries:
            self._note("the judged query is not among the queries: it is left out", file, line, query, error=False)
            return
        if document not in corpus:
            wrong = score > 0 and not self.published
            self._note("the judged document is not in the corpus", file, line, query, document, error=wrong)
            if score <= 0 and not self.published:
                return
        before = found.setdefault(query, {}).setdefault(document, score)
        if before != score:
            self._note(
                "the document is judged twice, differently", file, line, query, f"{document}: {before} and {score}"
            )

    # -- values

    def _id(self, row: Mapping[str, Any], names: Sequence[str], file: Path, line: int) -> str | None:
        name = next((name for name in names if name in row), None)
        value = None if name is None else row[name]
        shown = name or names[0]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            if _halves(value):
                self._note(f"the {shown} holds half of a surrogate pair", file, line, "", repr(value))
                return None
            return value
        what = "missing" if name is None else "null" if value is None else "empty" if value == "" else _kind(value)
        self._note(f"the {shown} is {what}", file, line)
        return None

    def _text(self, row: Mapping[str, Any], key: str, file: Path, line: int, name: str) -> str | None:
        value = row.get(key)
        if not isinstance(value, str):
            what = "missing" if key not in row else "null" if value is None else _kind(value)
            self._note(f"the {key} is {what}", file, line, name)
            return None
        if not _halves(value):
            return value
        if _suffix(file) in (".csv", ".tsv"):
            self._note("the bytes are not UTF-8", file, line, name)
            return None
        self._note(f"half of a surrogate pair in the {key}: it is read as U+FFFD", file, line, name, error=False)
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _title(self, row: Mapping[str, Any], file: Path, line: int, name: str) -> str | None:
        if "title" not in row:
            return ""
        if row["title"] is None:
            self._note("the title is null: the document has none", file, line, name, error=False)
            return ""
        return self._text(row, "title", file, line, name)

    def _score(self, row: Mapping[str, Any], file: Path, line: int, name: str) -> int | None:
        if "score" not in row:
            self._note("the judgement has no score: it is 1", file, line, name, error=False)
            return 1
        value = row["score"]
        number: float | None = None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str):
            try:
                number = float(value)
            except ValueError:
                number = None
        if number is None:
            self._note("the score is not a number", file, line, name, "null" if value is None else repr(value))
        elif not math.isfinite(number) or number != int(number):
            self._note("the score is not a whole number", file, line, name, str(value))
        elif number < 0 and not self.published:
            self._note("the score is negative", file, line, name, str(value))
        elif abs(number) > _LARGEST:
            self._note("the score is too large", file, line, name, str(value))
        else:
            if number < 0:
                self._note("the score is negative", file, line, name, str(value), error=False)
            return int(number)
        return None

    # -- files

    def _rows(self, file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yields line and row; what cannot be read is noted."""
        suffix = _suffix(file)
        try:
            if suffix == ".parquet":
                yield from _parquet(file)
            elif suffix in (".csv", ".tsv"):
                yield from self._separated(file, "," if suffix == ".csv" else "\t")
            else:
                yield from self._lines(file)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            self._note("the file cannot be read", file, 0, "", " ".join(str(error).split()))

    def _lines(self, file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with _opened(file) as stream:
            for number, data in enumerate(stream, 1):
                line = data
                if number == 1 and line.startswith(_BOM):
                    self._note("the file begins with a byte order mark: it is skipped", file, error=False)
                    line = line[len(_BOM) :]
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    self._note("the bytes are not UTF-8", file, number, "", f"at byte {error.start}")
                    continue
                except (ValueError, RecursionError) as error:
                    self._note("the line is not JSON", file, number, "", str(error))
                    continue
                if isinstance(row, dict):
                    yield number, row
                else:
                    self._note("the line is not a JSON object", file, number, "", _kind(row))

    def _separated(self, file: Path, separator: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with file.open("rb") as peek:
            if peek.read(len(_BOM)) == _BOM:
                self._note("the file begins with a byte order mark: it is skipped", file, error=False)
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream, _long_fields():
            reader = csv.DictReader(stream, delimiter=separator, strict=True)
            try:
                for row in reader:
                    if None in row:
                        self._note("the row has more fields than the header", file, reader.line_num)
                    else:
                        yield reader.line_num, row
            except csv.Error as error:
                self._note("the row cannot be read, nor what follows it", file, reader.line_num + 1, "", str(error))


def _opened(file: Path) -> Any:
    return gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb")


@contextmanager
def _long_fields() -> Iterator[None]:
    """A document may be longer than what the module takes for a broken file."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def _halves(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no encoding of a request and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _kind(value: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        str: "a text",
    }
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
