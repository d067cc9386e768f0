import os
import pty
import signal
import subprocess
import sys

import pytest

START = """if True:
    import os, sys
    from pipeline.console import filter_stderr
    drain = filter_stderr()
"""
INFO = "I0000 00:00:1795430076.727391    3656 port.cc:153] oneDNN custom operations are on.\\n"
ERROR = "E0000 00:00:1795430076.727391    3656 port.cc:153] something broke\\n"


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", START + program],
        capture_output=True,
        text=True,
        env=inherited | environment,
        timeout=120,
        check=False,
    )


def test_errors_pass_and_come_before_what_is_printed_after_a_drain():
    done = run(f"""
    for number in range(100):
        os.write(2, b"{INFO}{ERROR}")
    drain()
    print("last", file=sys.stderr)
    drain()
    """)
    assert done.stderr == ERROR.replace("\\n", "\n") * 100 + "last\n"
    assert done.returncode == 0


def test_an_import_that_nobody_waits_for_says_nothing_behind_the_last_line(tmp_path):
    (tmp_path / "slow.py").write_text("""if True:
    import os, sys, time
    while not hasattr(sys, "drained"):
        time.sleep(0.001)
    os.write(2, b"late\\n")
    """)
    done = run(f"""
    sys.path.append({str(tmp_path)!r})
    from pipeline.ahead import Imports
    imports = Imports()
    imports.begin("slow")
    drain()
    sys.drained = True
    imports.wait()
    print("last", file=sys.stderr)
    """)
    assert (done.returncode, done.stderr) == (0, "last\n")


def test_long_output_is_whole():
    done = run("""
    for number in range(20000):
        os.write(2, b"line %d\\n" % number)
    """)
    assert done.stderr == "".join(f"line {number}\n" for number in range(20000))


def test_nothing_is_lost_when_the_process_aborts():
    done = run("""
    os.write(2, b"F0000 00:00:1795430076.727391 1 port.cc:1] Check failed\\nno newline")
    os.abort()
    """)
    assert done.returncode == -signal.SIGABRT
    assert done.stderr.endswith("port.cc:1] Check failed\nno newline\n")


def test_the_noise_of_child_processes_is_kept_away_too():
    done = run(f"""
    import subprocess
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'''{INFO}{ERROR}''')"])
    """)
    assert done.stderr == ERROR.replace("\\n", "\n")


def test_a_child_that_lives_on_is_not_waited_for_long():
    done = run(f"""
    import subprocess, time
    child = subprocess.Popen(["sleep", "60"])
    os.write(2, b"{ERROR}")
    start = time.monotonic()
    drain()
    print(time.monotonic() - start < 5, file=sys.stderr)
    child.kill()
    child.wait()
    """)
    assert done.stderr == ERROR.replace("\\n", "\n") + "True\n"


def test_without_grep_everything_passes():
    done = run(f"os.write(2, b'{INFO}'); drain()", PATH="/none")
    assert done.stderr == INFO.replace("\\n", "\n")


def test_who_asks_for_the_messages_gets_them():
    done = run(f"os.write(2, b'{INFO}')", TF_CPP_MIN_LOG_LEVEL="0")
    assert done.stderr == INFO.replace("\\n", "\n")


def test_python_still_sees_the_terminal():
    reader, terminal = pty.openpty()
    program = START + "print(sys.stderr.isatty(), os.isatty(2))"
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=terminal, check=True
    )
    os.close(terminal)
    os.close(reader)
    assert done.stdout == b"True False\n"


@pytest.mark.parametrize("descriptors", [3, 5, 7])
def test_without_descriptors_nothing_is_filtered_and_none_is_lost(descriptors: int) -> None:
    script = f"""
import os, resource, sys
from pipeline.console import filter_stderr
resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors}, {descriptors}))
drain = filter_stderr()
print("said", file=sys.stderr)
drain()
print([handle for handle in range(3, 8) if os.path.exists(f"/proc/self/fd/{{handle}}")])
"""
    environment = {name: value for name, value in os.environ.items() if "TF_CPP" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "said\n")
