"""Several changes in one revision, each compared with what it was based on.

`svnmucc -r R` refuses to change what has changed after R: that is the compare-and-set. But alone it
would replace a directory by a file of its name, it has one R for all of its actions, and it takes
a path for unchanged when an older copy of it was put in its place. So svn is asked first, in one
call, what is there now and what was there in each base revision. What answers is compared, and R
is the oldest "now" of the answer: whatever is committed after that is the server's to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from sepelib.vcs._answers import Info
from sepelib.vcs._errors import AlreadyExists, NotFound, OutOfDate, SvnError
from sepelib.vcs._url import ancestors, parent, split


class Put(NamedTuple):
    """Write *data* to the file *url*, read in *base_revision*; None creates it."""

    url: str
    data: bytes
    base_revision: int | None


class Delete(NamedTuple):
    """Delete a file or a directory; with a *base_revision* only if unchanged since."""

    url: str
    base_revision: int | None = None


class Mkdir(NamedTuple):
    """Make a directory. Its parent is there, or made before in the same commit."""

    url: str


class Copy(NamedTuple):
    """Copy *source*, as of *revision* (None: as it is now), to *url*, where nothing is."""

    source: str
    url: str
    revision: int | None = None


class Move(NamedTuple):
    """Move *source* to *url*, where nothing is; with a *base_revision* only if unchanged since."""

    source: str
    url: str
    base_revision: int | None = None


Action: TypeAlias = Put | Delete | Mkdir | Copy | Move


class Question(NamedTuple):
    """What is at *url*, in *revision* or now?"""

    url: str
    revision: int | None = None


Answers: TypeAlias = dict[Question, Info]


def check_shape(actions: Sequence[Action]) -> None:
    """ValueError for a commit that has no clear meaning; all URLs are canonical."""
    if not actions:
        raise ValueError("a commit without actions")
    seen: set[str] = set()
    server = split(actions[0].url)[0]
    for action in actions:
        for url in _touched(action):
            if split(url)[0] != server:
                raise ValueError(f"{url} and {server} are not of one repository")
            if url in seen:
                raise ValueError(f"{url}: twice in one commit")
            seen.add(url)
    for action in actions:
        for url in _touched(action):
            if nested := [above for above in ancestors(url) if above in seen]:
                raise ValueError(
                    f"{url}: below {nested[0]}, which this commit changes or makes later"
                )
        if isinstance(action, Mkdir):
            seen.remove(action.url)  # made by now: what follows may be below it


def questions(actions: Sequence[Action]) -> list[Question]:
    """What to ask before the commit, each once."""
    made = _made(actions)
    found = dict.fromkeys(q for action in actions for q in _questions(action, made))
    # Of one URL "now" comes last: see match().
    return sorted(found, key=lambda question: question.revision is None)


def match(what: str, questions: Sequence[Question], infos: Sequence[Info]) -> Answers:
    """Which question each of *infos* answers: they have its order, and those of missing URLs lack.

    What answers "URL in revision 5" cannot be the answer of "URL now": were 5 the newest, the
    first of them would have been answered too.
    """
    answers: Answers = {}
    unmatched = list(reversed(infos))
    for question in questions:
        if unmatched and _fits(question, unmatched[-1]):
            answers[question] = unmatched.pop()
    if unmatched:
        raise SvnError(f"{what}: asked for other URLs, svn told of {unmatched[-1].url}")
    return answers


def _fits(question: Question, info: Info) -> bool:
    # By the path alone: the server's name may be written in several ways.
    same_url = unquote(split(info.url)[1]) == unquote(split(question.url)[1])
    return same_url and question.revision in (None, info.revision)


def compare(actions: Sequence[Action], answers: Answers) -> int:
    """The revision to commit against. Raises when something is not as an action expects it."""
    made = _made(actions)
    for action in actions:
        _compare(action, answers, made)
    return min(info.revision for question, info in answers.items() if question.revision is None)


def arguments(actions: Sequence[Action], against: int) -> list[str]:
    """For svnmucc; the data of the n-th action is in the file "n"."""
    found: list[str] = []
    for number, action in enumerate(actions):
        match action:
            case Put():
                found += ["put", str(number), action.url]
            case Delete():
                found += ["rm", action.url]
            case Mkdir():
                found += ["mkdir", action.url]
            case Copy():
                revision = against if action.revision is None else action.revision
                found += ["cp", str(revision), action.source, action.url]
            case Move():
                found += ["mv", action.source, action.url]
    return found


def _made(actions: Sequence[Action]) -> set[str]:
    return {action.url for action in actions if isinstance(action, Mkdir)}


def _touched(action: Action) -> tuple[str, ...]:
    return (action.source, action.url) if isinstance(action, Move) else (action.url,)


def _creates(action: Action) -> bool:
    return not isinstance(action, Delete | Put) or (
        isinstance(action, Put) and action.base_revision is None
    )


def _questions(action: Action, made: set[str]) -> Iterator[Question]:
    match action:
        case Put(url, _, int(base)) | Delete(url, base) | Move(url, _, base):
            if base is not None:
                yield Question(url, base)
            yield Question(url)
        case Copy(source, _, revision):
            yield Question(source, revision)
    if _creates(action) and parent(action.url) not in made:
        yield Question(parent(action.url))
        yield Question(action.url)


def _compare(action: Action, answers: Answers, made: set[str]) -> None:
    match action:
        case Put(url, _, int(base)):
            if _unchanged(url, base, answers).kind != "file":
                raise SvnError(f"{url}: a directory, put writes files")
        case Delete(url, base) | Move(url, _, base):
            if base is not None:
                _unchanged(url, base, answers)
            else:
                _present(Question(url), answers)
        case Copy(source, _, revision):
            _present(Question(source, revision), answers)
    if _creates(action) and parent(action.url) not in made:
        if _present(Question(parent(action.url)), answers).kind != "dir":
            raise NotFound(f"{parent(action.url)}: a file, nothing can be below it")
        if Question(action.url) in answers:
            raise AlreadyExists(f"{action.url}: exists, and was to be created")


def _present(question: Question, answers: Answers) -> Info:
    if question not in answers:
        when = "" if question.revision is None else f" in revision {question.revision}"
        raise NotFound(f"{question.url}: does not exist{when}")
    return answers[question]


def _unchanged(url: str, base: int, answers: Answers) -> Info:
    before = _present(Question(url, base), answers)
    now = answers.get(Question(url))
    if now is None:
        raise OutOfDate(f"{url}: deleted since revision {base}")
    if now.last_changed_revision != before.last_changed_revision:
        raise OutOfDate(
            f"{url}: changed since revision {base}, last in {now.last_changed_revision}"
        )
    return now
