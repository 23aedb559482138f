"""Config files. Errors name the file and the line, so that a user can fix them."""

from pathlib import Path
from typing import Any

import yaml

from saemake.base.errors import SaemakeError, first_line


def read(path: Path) -> dict[str, Any]:
    """The config keys of a YAML file. Raises SaemakeError, with the file and the line, if it
    cannot be read."""
    try:
        content = _content(path)
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise SaemakeError(f"{path}: there is no such config file{where}") from None
    except OSError as error:
        raise SaemakeError(f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise SaemakeError(
            f"{path}{line}: not valid YAML ({error.problem}); correct this line or the one above"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # an invalid date; bytes that are not UTF-8
        raise SaemakeError(f"{path}: not valid YAML ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise SaemakeError(
            f"{path}: not a config file; a config file has keys and values, such as"
            " config/config.yaml"
        )
    return content


def _content(path: Path) -> Any:
    """The same as yaml.safe_load, with a check for repeated keys."""
    loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
    try:
        node = loader.get_single_node()
        _check_keys(path, node)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _check_keys(path: Path, node: yaml.Node | None) -> None:
    """Raise SaemakeError if a section has a key twice: YAML readers silently drop the first."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(path, item)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            first, line = lines.setdefault(key.value, key.start_mark.line), key.start_mark.line
            if first != line:
                raise SaemakeError(
                    f"{path}, line {line + 1}: '{key.value}' appears twice, first in line"
                    f" {first + 1}; write both into one section"
                )
        _check_keys(path, value)
