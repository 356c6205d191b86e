"""The command line: `umaf COMMAND ...`."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from umaf.errors import UmafError

TERMINATED = 128 + signal.SIGTERM
RESUMED = (("expert", "train"), ("zoo", "build"), ("zoo", "bank"), ("index", "build"), ("index", "add"))


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
    end = _End()
    if any(Path(word).stem == "umaf" for word in sys.orig_argv[1:2]):
        atexit.register(end)
    end.code = _run(words, debug)
    sys.exit(end.code)


class _End:
    """The end of a process that is this command alone: without taking torch apart, which takes 0.2 s.

    What others want done at the end is done before, last come first; so it is registered before they are imported.
    """

    code: int | None = None

    def __call__(self) -> None:
        if self.code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:  # nobody reads any more: Python knows what to say
            return
        os._exit(self.code)


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
    except SystemExit as end:
        if end.code != TERMINATED:
            raise
        code = TERMINATED
    except Exception as problem:
        # Typer's own mistakes (an unknown option, a missing argument) know how to show themselves.
        if debug or not hasattr(problem, "show") or not hasattr(problem, "exit_code"):
            raise
        problem.show()  # type: ignore[attr-defined]
        return int(problem.exit_code)  # type: ignore[attr-defined]
    if code in (130, TERMINATED):
        # These can be gone on with; everything else is made whole or not at all.
        left = "nothing half-written was kept"
        if words[:1] == ["merge"]:
            left = "--resume goes on from what is whole"
        elif words[:1] == ["train"] or tuple(words[:2]) in RESUMED:
            left = "the same command goes on where it was"
        print(f"umaf: {'interrupted' if code == 130 else 'terminated'}; {left}.", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _leave(number: int, frame: FrameType | None) -> None:
    # An exception, where the default is to die at once, lets half-written output be removed.
    raise SystemExit(128 + number)
