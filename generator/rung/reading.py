"""Reads untrusted files: regular files only, of a bounded size, as UTF-8."""

import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 50


class UnreadableError(Exception):
    """The file cannot be read; the message is the reason, without the file's name."""


def read_bytes(file: Path, *, most: int = _MAX_BYTES) -> bytes:
    try:
        # O_NONBLOCK: opening a FIFO that nobody writes to would wait forever.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError("it is not a regular file")
    with os.fdopen(descriptor, "rb") as opened:
        try:
            content = opened.read(most + 1)
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error
    if len(content) > most:
        raise UnreadableError(f"it is larger than {most >> 10} KiB")
    return content


def read_yaml(file: Path) -> Any:
    return parse_yaml(read_bytes(file))


def parse_yaml(content: bytes | str) -> Any:
    """Plain YAML without aliases, which could make a small file huge or endless."""
    if len(content) > _MAX_BYTES:
        raise UnreadableError(f"it is larger than {_MAX_BYTES >> 10} KiB")
    try:
        text = content.decode() if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        raise UnreadableError("it is not UTF-8") from error
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader with limits
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" (line {mark.line + 1})" if mark else ""
        raise UnreadableError(f"it is not YAML{line}") from error
    # PyYAML lets these through for !!int "zz", !!bool "zz", !!timestamp "zz", 2026-99-99, {[]: 1}.
    except (AttributeError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UnreadableError("it is not YAML") from error


def written_scalars(content: bytes) -> dict[str, str]:
    """The text of each plain value of a mapping. As a value, YAML reads 0123 as the number 83."""
    root = yaml.compose(content, _PlainLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    return {key.value: value.value for key, value in pairs if isinstance(value, yaml.ScalarNode)}


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases, deep nesting, and a key that is there twice, as after a merge."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise UnreadableError("it has YAML aliases, which are not allowed here")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnreadableError(f"it is nested deeper than {_MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, times in keys.most_common(1):
            if times > 1:
                raise UnreadableError(f"it says {key[:60]} twice")
        return node
