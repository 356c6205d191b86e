"""The command line: `umaf COMMAND ...`."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from umaf.errors import UmafError


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    Exit codes: 0 done; 1 a mistake umaf explains in one line; 2 a command line it cannot read; 130 interrupted;
    143 terminated. With --debug, given anywhere, a mistake shows its traceback.

    Args:
        argv: the words after `umaf`; those of the process when not given.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    own = words[: words.index("--")] if "--" in words else words
    debug = "--debug" in own
    words = [word for word in own if word != "--debug"] + words[len(own) :]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)
    # Importing torch makes millions of objects that stay; looking through them again and again takes a fifth of it.
    gc.set_threshold(200_000, 20, 50)
    # Nor need they be looked through when the process ends: that takes another fifth.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    sys.exit(_run(words, debug))


def _run(words: list[str], debug: bool) -> int:
    from umaf.cli.app import command

    try:
        code = command().main(args=words, prog_name="umaf", standalone_mode=False)
    except UmafError as mistake:
        if debug:
            raise
        print(f"umaf: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        code = 130
    except Exception as problem:
        # Typer's own mistakes (an unknown option, a missing argument) know how to show themselves.
        if debug or not hasattr(problem, "show") or not hasattr(problem, "exit_code"):
            raise
        problem.show()  # type: ignore[attr-defined]
        return int(problem.exit_code)  # type: ignore[attr-defined]
    if code == 130:
        # These can be gone on with; everything else is made whole or not at all.
        left = "nothing half-written was kept"
        if words[:1] == ["merge"]:
            left = "--resume goes on from what is whole"
        elif words[:2] == ["expert", "train"]:
            left = "the same command goes on where it was"
        print(f"umaf: interrupted; {left}.", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception, where the default is to die at once, lets half-written output be removed.
    raise SystemExit(128 + number)
