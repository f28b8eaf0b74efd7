"""Call a function in a thread at the n-th point where Python may run signal handlers and finalizers."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

# After these instructions, the interpreter checks for pending work. It never does between acquiring a lock and the
# first step of the block of its `with`.
_LOOKS_AFTER = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}


class Stepping:
    """Calls `action` once, in the thread that calls `begin`, at point `number` of the code from one file.

    `happened` is whether that point was reached.
    """

    def __init__(self, filename: str, number: int, action: Callable[[], None]) -> None:
        self._filename = filename
        self._left = number
        self._action = action
        self._names: dict[CodeType, dict[int, str]] = {}
        self._last: dict[FrameType, str] = {}
        self.happened = False

    def begin(self) -> None:
        """Trace each step of this thread from now on."""
        sys.settrace(self._entered)

    def _entered(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != self._filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "return":
            self._last.pop(frame, None)
        if event != "opcode":
            return self._stepped
        last, self._last[frame] = self._last.get(frame, ""), self._name(frame)
        if last in _LOOKS_AFTER:
            self._left -= 1
            if self._left < 0:
                sys.settrace(None)
                frame.f_trace = None
                self.happened = True
                self._action()
                return None
        return self._stepped

    def _name(self, frame: FrameType) -> str:
        names = self._names.get(frame.f_code)
        if names is None:
            names = self._names[frame.f_code] = {
                step.offset: step.opname for step in dis.get_instructions(frame.f_code)
            }
        return names[frame.f_lasti]
