import pytest

from surefoot.base.errors import UserError
from surefoot.commands import run


@pytest.mark.parametrize("pid", [0, -7])
def test_the_lock_of_another_machine_is_waited_for(pid, capsys):
    """As after a failure of that machine: a job that was queued again mustn't end by it."""
    run._refuse_or_wait("wide", pid)
    assert capsys.readouterr().out.startswith(
        "waiting for the run wide: a process that isn't known here is at work on it"
    )


def test_a_run_that_a_process_here_is_at_is_refused():
    with pytest.raises(UserError, match=r"^process 7 is at work on the run wide$"):
        run._refuse_or_wait("wide", 7)
