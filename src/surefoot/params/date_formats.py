"""Formats of dates, as strptime has them: which there are, and the regular expression that reads one."""

import re
from functools import lru_cache

ISO = "%Y-%m-%d"
CLOCK = "%H:%M"
"""Dates and times as they are written without a format: ISO 8601, and the time of a day."""

MONTH_NAMES = (
    r"jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?"
)
DAY_NAMES = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\.?"
DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "b": rf"(?P<b>{MONTH_NAMES})\.?",
    "B": rf"(?P<b>{MONTH_NAMES})\.?",
    "a": DAY_NAMES,
    "A": DAY_NAMES,
    "H": r"(?P<H>\d{1,2})",
    "I": r"(?P<H>\d{1,2})",
    "M": r"(?P<M>[0-5]\d)",
    "S": r"(?P<S>[0-5]\d)",
    "f": r"(?P<f>\d{1,9})",
    "p": r"(?P<p>[ap])\.?m\.?",
    "z": r"(?P<z>z|utc|gmt|[+-]\d{2}(?::?\d{2})?)",
    "s": r"(?P<s>-?\d{1,12})",
    "%": "%",
}
SHORT = {"F": "%Y-%m-%d", "D": "%m/%d/%y", "T": "%H:%M:%S", "R": "%H:%M", "e": "%d", "h": "%b"}
CLOCK_TEXT = r"(?P<H>\d{1,2}):(?P<M>[0-5]\d)(?::(?P<S>[0-5]\d)(?:[.,](?P<f>\d{1,9}))?)?(?:\s?(?P<p>[ap])\.?m\.?)?"
# After a date a time may follow; of an hour alone, as ISO 8601 and Arrow have it, too.
AFTER_DATE = (
    r"(?:(?:t|,?\s+)(?P<H>\d{1,2})(?::?(?P<M>[0-5]\d)(?::?(?P<S>[0-5]\d)(?:[.,](?P<f>\d{1,9}))?)?)?(?:\s?(?P<p>[ap])\.?m\.?)?"
    rf"(?:\s?{DIRECTIVES['z']})?)?"
)


def check_format(text: str) -> str:
    """The format, if dates or times can be read by it.

    Raises:
        ValueError: it has no directive, or one that isn't known here; a day without its month or year, or one of them
        twice.
    """
    directives = re.findall(r"%(.?)", _written_out(text))
    for directive in directives:
        if directive not in DIRECTIVES:
            known = " ".join(f"%{name}" for name in sorted([*DIRECTIVES, *SHORT], key=str.lower) if name != "%")
            raise ValueError(f"%{directive} isn't known in a format of dates; these are: {known}")
    groups = re.findall(r"\?P<(\w)>", "".join(DIRECTIVES[directive] for directive in directives))
    if twice := next((group for group in groups if groups.count(group) > 1), None):
        raise ValueError(f"%{twice} or its like stands in it twice")
    have = {{"y": "Y", "b": "m"}.get(group, group) for group in groups}
    if not ({"Y", "m"} <= have or have == {"Y"} or "s" in have or ("H" in have and not have & {"Y", "m", "d"})):
        raise ValueError(
            "a format of dates has a year, a month and a day, such as %d.%m.%Y; of times an hour, such as %H:%M"
        )
    if "p" in have and "H" not in have:
        raise ValueError("%p needs an hour, %I")
    if "z" in have and "Y" not in have:
        raise ValueError("%z needs a date: of a time of the day alone, nobody knows what it is elsewhere")
    return text


def is_time_format(form: str) -> bool:
    """Whether a format has no date, but a time of the day."""
    return re.search(r"\?P<[Yys]>", format_pattern(form)) is None


def _written_out(text: str) -> str:
    """Without what is short for several directives, and without the dash of %-d."""
    return re.sub(r"%-?(.)", lambda found: SHORT.get(found[1], f"%{found[1]}"), text)


@lru_cache(64)
def format_pattern(form: str) -> str:
    """The regular expression (RE2's) of a format.

    A time may follow a date, and the name of a weekday may precede it.
    """
    if form == CLOCK:
        return f"(?i)^{CLOCK_TEXT}$"
    pieces = re.findall(r"%.|[^%]+", _written_out(form))
    out = ""
    for number, piece in enumerate(pieces):
        if piece[0] != "%":
            out += re.sub(r"(?:\\\s|\s)+", r"\\s+", re.escape(piece))
            continue
        found = DIRECTIVES[piece[1]]
        # Digits side by side, as in 20240131, have their full number.
        beside = pieces[max(number - 1, 0) : number] + pieces[number + 1 : number + 2]
        out += found.replace("{1,2}", "{2}") if any(re.fullmatch("%[YymdHIMSfs]", other) for other in beside) else found
    if "?P<d>" in out and not re.search(r"\?P<[HMSsz]>", out):
        out = f"(?:{DAY_NAMES},?\\s+)?{out}{AFTER_DATE}"
    return f"(?i)^{out}$"
