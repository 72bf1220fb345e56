"""A run's account (`trajectory.json` in MLflow): read, and refused where it isn't one or doesn't hold together."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from surefoot.base.documents import Malformed, parse_document
from surefoot.base.errors import CannotSay, UserError
from surefoot.run.choose_epoch import choose_epoch
from surefoot.run.record import ACCOUNT, Account, Epoch
from surefoot.tracking import tag_names


def read_account(data: bytes, tags: Mapping[str, str]) -> Account:
    """The account, which goes with the run's tags.

    Raises:
        CannotSay: it doesn't.
    """
    try:
        account = parse_document(Account, data)
    except Malformed as error:
        raise CannotSay(f"its {ACCOUNT} in MLflow is damaged: {error}") from None
    said = {"identity": (tag_names.IDENTITY, account.identity), "model": (tag_names.WEIGHTS, account.model)}
    others = [
        f"its {what} isn't that of the run's tag {tag}"
        for what, (tag, value) in said.items()
        if tags.get(tag, value) != value
    ]
    why = _at_odds(account) or next(iter(others), None)
    if why:
        raise CannotSay(f"its {ACCOUNT} in MLflow doesn't hold together: {why}")
    return account


def _at_odds(account: Account) -> str | None:
    """What in an account contradicts the rest of it."""
    epochs, origin = account.epochs, account.origin.plain()
    keys = [epoch.key for epoch in epochs]
    if [epoch.epoch for epoch in epochs] != list(range(1, len(epochs) + 1)):
        return "its epochs aren't 1, 2, 3, ..."
    if any(after.step <= before.step for before, after in itertools.pairwise(epochs)):
        return "its steps don't rise from epoch to epoch"
    if len(set(keys)) < len(keys):
        return "two epochs have one key"
    if account.chosen:
        try:
            chosen = choose_epoch(account.select, epochs).key
        except UserError:  # no validation loss
            chosen = None
        if account.chosen != chosen:
            return f"the epoch that it calls chosen isn't the one that is chosen by {account.select}"
    for split, digests in (("train", account.data.train), ("validation", account.data.validation)):
        for name, said in (("inputs", digests.inputs), ("targets", digests.targets)):
            determined = _within(origin, "data", split, name, "sha256")
            if determined is not None and determined != said:
                return f"the {split} rows' {name} are others in its data than in its origin"
    if _within(origin, "start", "weights") != account.start.weights:
        return "the weights that it started from are others than in its origin"
    return None


def _within(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def check_keys(account: Account, made: Sequence[Epoch], origin: dict[str, Any]) -> None:
    """See whether an account's keys follow from its origin, as far as what was made again shows: equal keys come of
    equal origins alone.

    Args:
        account: what was recorded.
        made: the records of the epochs that were made again.
        origin: of those.

    Raises:
        CannotSay: they don't.
    """
    said = {epoch.epoch: epoch for epoch in account.epochs}
    both = [(said[record.epoch], record) for record in made if record.epoch in said]
    same_keys = [one.key == other.key for one, other in both]
    # As they are digested: 0 and 0.0 are two origins.
    same_origin = json.dumps(account.origin.plain(), sort_keys=True) == json.dumps(origin, sort_keys=True)
    same_states = all(one.state == other.state for one, other in both)
    # Other values that are scheduled make other keys, too, but then other states.
    if (any(same_keys) and not same_origin) or (same_origin and same_states and not all(same_keys)):
        raise CannotSay(f"its {ACCOUNT} in MLflow doesn't hold together: its keys aren't those of its origin")
    if any(one.key == other.key and one.step != other.step for one, other in both):
        raise CannotSay(f"its {ACCOUNT} in MLflow doesn't hold together: its steps aren't those of its keys")
