"""Machines that meet: who is taken, who is refused and why, and what the first one says of it. Nothing is trained."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed.elastic.rendezvous import RendezvousGracefulExitError

from surefoot.base import terminal
from surefoot.base.documents import parse_document
from surefoot.base.errors import UserError
from surefoot.run.processes import addresses, joined_machine, launch, machines, meeting, wanted
from surefoot.run.processes.addresses import interface_of, listen_for_machines
from surefoot.run.processes.endings import LOST
from surefoot.run.processes.first_machine import FirstMachine
from surefoot.run.processes.joined_machine import FirstMachineGone, JoinedMachine, reach
from surefoot.run.processes.machines import Machines
from surefoot.run.processes.meeting import JoinRequest
from surefoot.run.processes.same_work import NO_SOURCES, Work, describe_work, what_differs
from surefoot.run.processes.wanted import Place, read_place
from tests.helpers import PROJECT, wait_for

HOST = "127.0.0.1"
WORK = Work(
    commit="1" * 40,
    torch="2.13.0",
    fingerprint="2" * 64,
    params={"train.lr": 0.1, "train.shards": 4},
    files={"src/networks/mlp.py": "3" * 64},
    data="4" * 64,
    start={},
)


def free_place():
    with socket.create_server((HOST, 0)) as free:
        return Place(HOST, free.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    for module in (machines, joined_machine):
        monkeypatch.setattr(module, "SILENT_LOOKS", 30)
        monkeypatch.setattr(module, "pause", lambda: threading.Event().wait(0.02))
    monkeypatch.setattr(joined_machine, "SECONDS_A_BEAT", 0.02)


@pytest.fixture
def first():
    """The first machine of at most three, which has one of four processes; how far its run is can be set."""
    place, run = free_place(), {"progress": 0}
    others = Machines(place, (1, 3), 1, 4, WORK, lambda: run["progress"])
    others.run, others.asked = run, []
    yield others
    for joined in others.asked:
        joined.leave(0)


@contextmanager
def looking(first):
    """The first machine looks at what the others say, all the time."""
    ended = threading.Event()

    def look():
        while not ended.wait(0.02):
            first.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def other(first, processes=1, **work):
    request = JoinRequest(work=WORK.model_copy(update=work), processes=processes, address=HOST)
    first.asked.append(JoinedMachine(first.place, request))
    return first.asked[-1]


def meeting_of(joined):
    """The machine waits for a round, in a thread; or for the end of the run."""

    def wait():
        with suppress(RendezvousGracefulExitError):
            joined.next_rendezvous()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def refused(first, **given):
    with looking(first), pytest.raises(UserError) as error, other(first, **given) as joining:
        joining.join()
    return str(error.value)


@pytest.mark.parametrize(
    ("differing", "named", "said"),
    [
        ({"commit": "5" * 40}, "commit", "commit (555555555555 here, 111111111111 on the first machine)"),
        ({"torch": "2.12.0"}, "torch", "torch (2.12.0 here, 2.13.0 on the first machine)"),
        ({"fingerprint": "6" * 64}, "fingerprint", "fingerprint (666666666666 here, 222222222222 on the first"),
        ({"data": "7" * 64}, "data/batches", "data/batches (777777777777 here, 444444444444 on the first machine)"),
        (
            {"params": {"train.lr": 0.2, "train.shards": 4}},
            "params.yaml: train.lr",
            "params.yaml: train.lr (0.2 here, 0.1 on the first machine)",
        ),
        ({"files": {"src/networks/mlp.py": "8" * 64}}, "src", "src (src/networks/mlp.py)"),
        ({"files": {**WORK.files, "src/sources/new.py": ""}}, "src", "src (src/sources/new.py)"),
        ({"start": {"start.json": "9" * 64}}, "data/start_from", "data/start_from (another model to start from)"),
    ],
)
def test_a_machine_that_would_train_something_else_is_refused_by_the_name_of_what_differs(
    first, capfd, differing, named, said
):
    assert said in refused(first, **differing)
    assert capfd.readouterr().err == f"a machine was refused ({HOST}): it differs in {named}\n"
    assert not first.here


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("src/networks/mlp.py", True),
        ("src/networks/words.txt", True),
        ("src/networks/.mlp.py.swp", False),
        ("src/.DS_Store", False),
        ("src/networks/mlp.py~", False),
        ("src/networks/__pycache__/mlp.cpython-311.pyc", False),
        ("src/surefoot.egg-info/PKG-INFO", False),
    ],
)
def test_what_counts_as_code(name, counts):
    assert (NO_SOURCES.search(name) is None) == counts


def test_a_clone_that_runs_the_code_of_another_is_told(tmp_path, monkeypatch):
    (tmp_path / "src/surefoot").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        describe_work(None)
    assert str(error.value).startswith(f"the code that runs is that of {PROJECT / 'src'}, not this clone's: make a ")


def test_what_differs_is_nothing_where_all_is_the_same():
    assert what_differs(WORK, parse_document(Work, WORK.model_dump_json().encode())) == {}


def test_more_processes_than_shards_are_refused(first):
    assert "SUREFOOT_PROCESSES: 5 processes, of which the other machines have 1, can't share the 4 shards" in refused(
        first, processes=4
    )
    with looking(first):
        other(first, processes=3).join()
    assert [machine.processes for machine in first.here] == [3]


def test_a_machine_too_many_is_refused_unless_another_is_gone(first, capfd):
    with looking(first):
        joined = [other(first), other(first)]
        for machine in joined:
            machine.join()
    assert "the run has all machines that it takes: 3 (SUREFOOT_NODES on the first machine)" in refused(first)
    joined[0]._letters.say(left=0)  # as a machine that is killed: nothing is heard of it from now on
    joined[0]._letters.join()
    first.here[0].line = meeting.Line()
    first._store.set(f"line {first.here[0].key}", meeting.Line(beat=10**6, after=0).model_dump_json())
    with looking(first):
        third = other(first)
        third.join()
        wait_for(lambda: len(first.here) == 2, pause=0.02)
    assert [machine.number for machine in first.here] == [3, 4]
    assert f"machine 2 ({HOST}) is gone: nothing was heard of it for 10 s" in capfd.readouterr().err


def test_rounds_begin_with_those_that_wait_and_end_when_one_says_so(first, capfd):
    with looking(first):
        joined = other(first, processes=2)
        joined.join()
        begun = meeting_of(joined)
        wait_for(lambda: first.here[0].waits, pause=0.02)
    assert first.begin_round(1, 4711) == 3
    begun.join()
    assert (joined.first_rank, joined.size, joined.num_nodes_waiting()) == (1, 3, 0)
    with looking(first):
        wait_for(lambda: first.here[0].line.after is None, pause=0.02)
    assert not first.want_another_round()

    joined.ended({2: -9})  # its second process was killed
    begun = meeting_of(joined)
    wait_for(first.want_another_round, pause=0.02)
    first.end_round(lambda: None)
    assert [list(code) for code in first.here[0].line.codes] == [[2, -9]]
    assert first.begin_round(2, 4711) == 3
    begun.join()
    assert not first.want_another_round()
    assert "joined" in capfd.readouterr().out


def test_a_machine_whose_processes_have_done_all_waits_without_ending_the_round(first):
    with looking(first):
        joined = other(first)
        joined.join()
        begun = meeting_of(joined)
        wait_for(lambda: first.here[0].waits, pause=0.02)
    first.begin_round(1, 4711)
    begun.join()
    joined.ended({})
    begun = meeting_of(joined)
    with looking(first):
        wait_for(lambda: first.here[0].waits, pause=0.02)
    assert not first.want_another_round()
    first.say(over=0)
    begun.join()


def test_one_that_comes_during_a_round_is_taken_in_when_the_next_state_is_stored(first, capfd):
    first.begin_round(1, 4711)
    with looking(first):
        joined = other(first)
        joined.join()
        begun = meeting_of(joined)
        wait_for(lambda: first.here[0].waits, pause=0.02)
    assert "has joined, with 1 process; it takes part when the next state is stored" in capfd.readouterr().out
    assert not any(first.want_another_round() for _ in range(20))
    first.run["progress"] = 1
    wait_for(first.want_another_round, pause=0.001)
    assert first.begin_round(2, 4711) == 2
    begun.join()


def test_one_that_stood_still_joins_again_by_itself(first, capfd):
    with looking(first):
        joined = other(first)
        joined.join()
        waiting = meeting_of(joined)
        wait_for(lambda: first.here and first.here[0].waits, pause=0.02)
        first.here[0].unchanged = 10**6
        first._lose(first.here[0], "is gone")
        wait_for(lambda: [machine.number for machine in first.here] == [3] and first.here[0].waits, pause=0.02)
    first.begin_round(1, 4711)
    waiting.join()
    assert joined.size == 2


GIBBERISH = st.one_of(
    st.binary(max_size=40),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists).map(
        lambda value: json.dumps(value).encode()
    ),
    st.fixed_dictionaries(
        {},
        optional={
            name: st.integers() | st.text() | st.just([["x", None]])
            for name in ("beat", "after", "codes", "left", "work", "processes", "address")
        },
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(GIBBERISH, GIBBERISH, GIBBERISH)
def test_whatever_a_joining_program_writes_the_first_machine_goes_on(first, asked, line, later):
    key = str(first._store.add("joins", 1))
    first._store.set(f"request {key}", asked)
    first._store.set(f"line {key}", line)
    first.look()
    first._store.set(f"line {key}", later)
    first.look()
    assert key in first._asking
    assert not first.here


def test_what_a_machine_that_has_joined_writes_is_not_believed(first, capfd):
    with looking(first):
        joined = other(first, processes=2)
        joined.join()
        begun = meeting_of(joined)
        wait_for(lambda: first.here[0].waits, pause=0.02)
    host = FirstMachine(first, lambda: None, lambda: 0)
    host.next_rendezvous()
    begun.join()
    joined._letters.say(left=0)
    joined._letters.join()
    codes = [[0, -9], [2, -9], [7, 1]]  # those of ranks that it doesn't have are no matter
    first._store.set(f"line {first.here[0].key}", json.dumps({"beat": 10**6, "after": 1, "codes": codes}))
    host._store.set("hung", json.dumps({"seconds": 5, "processes": [[9, 1], [2, 4711]]}))
    host.next_rendezvous()
    assert capfd.readouterr().err == (
        f"process 3 of 3 (machine 2 ({HOST}), pid 4711) didn't answer within 5 s (SUREFOOT_TIMEOUT); it is ended; all"
        " are started again, and go on from the last state\n"
    )


def test_a_machine_of_another_kind_is_told_that_it_is_not_understood(first, monkeypatch):
    monkeypatch.setattr(JoinRequest, "model_dump_json", lambda _: json.dumps({"commit": "1" * 40}))
    assert "isn't understood: are both clones at the same commit?" in refused(first)


def test_one_that_stood_still_before_it_said_who_it_is_may_ask_again(first):
    key = str(first._store.add("joins", 1))
    wait_for(lambda: first.look() or not first._asking, pause=0.001)
    assert json.loads(first._store.get(f"answer {key}"))["struck"]


def test_however_many_ask_to_join_only_some_are_looked_at_together(first):
    first._store.add("joins", 10**15)
    first.look()
    assert len(first._asking) == machines.MOST_JOINS


def test_the_end_of_the_run_is_told_to_all_and_to_those_too_late(first):
    with looking(first):
        joined = other(first)
        joined.join()
    first.say(over=3)
    late = other(first)
    late.join()
    assert late.over == 3
    late.leave(3)
    assert joined.num_nodes_waiting() == 1
    joined.leave(3)
    first.say_goodbye(3)
    assert not first.here


def test_a_first_machine_that_vanishes_is_noticed(first):
    with looking(first):
        joined = other(first)
        joined.join()
    first._store = None  # which ends its server
    with pytest.raises(FirstMachineGone) as gone:
        wait_for(lambda: joined._look() is None, pause=0.02)
    assert gone.value.was_heard


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_another_program_at_the_place_is_noticed(greeting, monkeypatch):
    monkeypatch.setattr(joined_machine, "SECONDS_SILENT", 1)
    with socket.create_server((HOST, 0)) as program:
        place = Place(HOST, program.getsockname()[1])

        def answer():
            with program.accept()[0] as connection:
                connection.sendall(greeting)
                over.wait()

        over = threading.Event()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(FirstMachineGone) as gone:
            JoinedMachine(place, JoinRequest(work=WORK, processes=1, address=HOST)).join()
        over.set()
        thread.join()
    assert not gone.value.was_heard


def test_machines_that_never_come_are_not_waited_for_for_ever(monkeypatch, capfd):
    monkeypatch.setenv("SUREFOOT_JOIN_TIMEOUT", "0.1")
    others = Machines(free_place(), (3, 3), 1, 4, WORK, lambda: 0)
    with pytest.raises(UserError) as error:
        others.wait_for_least(lambda: None)
    assert (
        "of the 3 machines that are needed (SUREFOOT_NODES) 2 didn't join within 0.1 s (SUREFOOT_JOIN_TIMEOUT)"
        in str(error.value)
    )
    assert capfd.readouterr().out == f"waiting for 2 machines to join, by: surefoot join {others.place}\n"


def test_a_run_that_is_never_there_is_not_waited_for_for_ever(monkeypatch, capfd):
    monkeypatch.setenv("SUREFOOT_JOIN_TIMEOUT", "0.1")
    place = free_place()
    with pytest.raises(UserError) as error:
        reach(place)
    assert f"no run was found at {place} within 0.1 s (SUREFOOT_JOIN_TIMEOUT): Connection refused" in str(error.value)
    with pytest.raises(UserError, match=r"nowhere\.invalid: "):
        reach(Place("nowhere.invalid", 1))
    with pytest.raises(UserError, match=r"a\.\.b: no host can have this name"):
        reach(Place("a..b", 1))


def test_a_start_that_brings_nothing_three_times_is_the_last(first, monkeypatch):
    host = FirstMachine(first, lambda: None, lambda: 0)
    for number in range(3):
        host.next_rendezvous()
        host.ended({0: -9})
        if number == 2:
            with pytest.raises(UserError, match="process 1 of 1 was ended by SIGKILL, 3 times in a row without a new"):
                host.next_rendezvous()


def test_a_lost_process_is_told_of_only_where_no_other_ended(first, capfd):
    first.processes = 2
    host = FirstMachine(first, lambda: None, lambda: 0)
    host.next_rendezvous()
    host.ended({0: LOST, 1: -9})
    host.next_rendezvous()
    assert capfd.readouterr().err == (
        "process 2 of 2 was ended by SIGKILL; all are started again, and go on from the last state\n"
    )


def test_processes_are_named_by_their_machine_also_where_another_is_lost(first, capfd):
    host = FirstMachine(first, lambda: None, lambda: 0)
    with looking(first):
        joined = [other(first), other(first)]
        for machine in joined:
            machine.join()
        begun = [meeting_of(machine) for machine in joined]
        wait_for(lambda: all(machine.waits for machine in first.here), pause=0.02)
    host.next_rendezvous()
    for thread in begun:
        thread.join()
    host._store.set("hung", json.dumps([5, [(2, 4711)]]))
    joined[0].leave(2)
    wait_for(first.want_another_round, pause=0.02)
    joined[1].ended({2: LOST})
    begun = meeting_of(joined[1])
    host.next_rendezvous()
    begun.join()
    said = capfd.readouterr().err
    assert f"machine 2 ({HOST}) has left: exit code 2; all are started again, and go on from the last state" in said
    assert list(host._names) == ["machine 1", f"machine 3 ({HOST})"]


def test_a_machine_that_can_start_no_process_leaves_the_others(first, monkeypatch, capfd):
    def refuse(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(launch.Agent, "_start_workers", refuse)
    monkeypatch.setenv(wanted.RANK, "")
    begin = threading.Thread(
        target=lambda: (wait_for(lambda: first.here and first.here[0].waits), first.begin_round(1, 1))
    )
    with looking(first), pytest.raises(BlockingIOError), other(first) as joined:
        joined.join()
        begin.start()
        launch.launch(joined, 1, "cpu", b"")
    begin.join()
    first.look()
    assert not first.here
    assert first.lost == [f"machine 2 ({HOST}) has left: exit code 2"]


# --- what the environment says


@pytest.mark.parametrize("value", ["0", "two", "2:1", "1:", ":2", "0:2", "1:2:3", "-1", "1.5", "1:" + "9" * 5000])
def test_a_number_of_machines_that_makes_no_sense_is_refused(monkeypatch, value):
    monkeypatch.setenv("SUREFOOT_NODES", value)
    with pytest.raises(UserError) as error:
        wanted.wanted_machines()
    assert str(error.value) == terminal.one_line(
        f"SUREFOOT_NODES: a number of machines is needed, or the least and the most, as 1:2; got {value!r}"
    )


@pytest.mark.parametrize(
    ("value", "counts"), [("1", (1, 1)), ("2", (2, 2)), ("1:2", (1, 2)), (" 3:8 ", (3, 8)), ("", (1, 1))]
)
def test_numbers_of_machines(monkeypatch, value, counts):
    monkeypatch.setenv("SUREFOOT_NODES", value)
    assert wanted.wanted_machines() == counts


@pytest.mark.parametrize(
    "value",
    [
        *("host", "host:", ":80", "host:0", "host:65536", "host:x", "::1:80", "[::1]", "[host]:80", "host:8 0", ""),
        "host:" + "8" * 5000,
    ],
)
def test_a_place_that_is_none_is_refused(value):
    with pytest.raises(UserError) as error:
        read_place("HOST:PORT", value)
    assert str(error.value) == terminal.one_line(f"HOST:PORT: HOST:PORT is needed, as 10.0.0.1:29400; got {value!r}")


@given(st.one_of(st.from_regex(r"[a-z0-9.-]+", fullmatch=True), st.ip_addresses().map(str)), st.integers(1, 65535))
def test_a_place_reads_as_it_is_written(host, port):
    place = Place(host, port)
    assert read_place("HOST:PORT", str(place)) == place


def test_where_machines_meet_must_be_said_for_several_and_only_for_several(monkeypatch):
    assert wanted.wanted_place(1) is None
    with pytest.raises(UserError, match="SUREFOOT_RENDEZVOUS: an address of this machine and a free port are needed"):
        wanted.wanted_place(2)
    monkeypatch.setenv("SUREFOOT_RENDEZVOUS", "10.0.0.1:29400")
    assert wanted.wanted_place(2) == Place("10.0.0.1", 29400)
    with pytest.raises(UserError, match="SUREFOOT_RENDEZVOUS is where several machines meet; say by SUREFOOT_NODES"):
        wanted.wanted_place(1)


def test_fewer_shards_than_machines_are_refused():
    wanted.check_machines((2, 2), 3, 4)
    with pytest.raises(UserError, match="SUREFOOT_NODES: 2 processes on 2 machines can't share the 1 shard of a"):
        wanted.check_machines((1, 2), 1, 1)
    with pytest.raises(UserError, match="SUREFOOT_NODES: 5 processes on 2 machines can't share the 4 shards of a"):
        wanted.check_machines((2, 2), 4, 4)


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0"])
def test_an_address_of_no_interface_is_refused(host):
    with pytest.raises(UserError, match=f"SUREFOOT_RENDEZVOUS: {host} is no address of this machine"):
        listen_for_machines(Place(host, 29400))


def test_a_name_that_only_this_machine_reaches_is_refused(monkeypatch):
    monkeypatch.setattr(addresses, "_addresses_of", lambda *_: socket.getaddrinfo("127.0.1.1", 29400))
    with pytest.raises(UserError, match=r"SUREFOOT_RENDEZVOUS: node1 is 127\.0\.1\.1 here, which no other machine"):
        listen_for_machines(Place("node1", 29400))


def test_a_port_in_use_is_refused():
    with socket.create_server((HOST, 0)) as taken:
        place = Place(HOST, taken.getsockname()[1])
        with pytest.raises(UserError, match=f"SUREFOOT_RENDEZVOUS: port {place.port} is in use"):
            listen_for_machines(place)


def test_a_host_that_is_unknown_is_refused():
    for host in ("nowhere.invalid", "a..b"):
        with pytest.raises(UserError, match=f"SUREFOOT_RENDEZVOUS: {re.escape(host)}:29400: "):
            listen_for_machines(Place(host, 29400))


def test_processes_talk_by_the_interface_that_has_the_address():
    loopback = interface_of(HOST)
    assert loopback in dict(map(reversed, socket.if_nameindex()))
    assert interface_of("127.1.2.3") == loopback
    assert interface_of("192.0.2.1") is None


def test_nothing_listens_but_on_loopback_where_no_place_is_given():
    host = FirstMachine(Machines(None, (1, 1), 2, 2, {}, lambda: 0), lambda: None, lambda: 0)
    found = host.next_rendezvous()
    assert found.bootstrap_store_info.master_addr == HOST
    port = found.bootstrap_store_info.master_port
    assert listening_at(port) == {"0100007F"}
    del found, host


def listening_at(port):
    """The addresses at which a port of this machine is listened to, as the system has them."""
    with open("/proc/net/tcp") as file:  # noqa: PTH123
        rows = [line.split() for line in file][1:]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


@pytest.mark.parametrize(
    ("launcher", "seconds", "code"), [(os.getpid, 2, 0), (os.getppid, 600, LOST)], ids=["there", "gone"]
)
def test_a_process_whose_launcher_was_gone_before_it_came_so_far_ends(launcher, seconds, code):
    program = f"from surefoot.run.processes import member; member._end_with_launcher(); member.time.sleep({seconds})"
    given = os.environ | {wanted.RANK: str(launcher())}
    assert subprocess.run([sys.executable, "-c", program], env=given, timeout=120, check=False).returncode == code


def test_a_process_that_finds_the_others_ended_when_it_starts_says_nothing():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = os.environ | {
        "RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)
    }  # fmt: skip
    given |= {wanted.RANK: str(os.getpid()), "SUREFOOT_TIMEOUT": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    program = "from surefoot.run.processes.member import Member; Member()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=given, timeout=120, check=False, capture_output=True, text=True
    )
    assert done.returncode == LOST
    assert "Traceback" not in done.stderr


def test_one_machine_by_one_process_is_the_default(monkeypatch):
    assert not wanted.is_asked()
    monkeypatch.setenv("SUREFOOT_NODES", "2")
    assert wanted.is_asked()


def test_a_number_of_processes_with_too_many_digits_is_refused(monkeypatch):
    monkeypatch.setenv("SUREFOOT_PROCESSES", "4" * 5000)
    with pytest.raises(UserError, match="SUREFOOT_PROCESSES: a number of processes is needed, or auto; got '444"):
        wanted.wanted_processes(4, 1)
