"""OpenWrt's configuration files (UCI)."""

import shlex


def blocks_of(text: str, kind: str) -> list[dict[str, str]]:
    """Returns the options of each section of a kind in a file.

    Raises:
        ValueError: a line has open quotes.
    """
    blocks: list[dict[str, str]] = []
    is_wanted = False
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["config"]:
            is_wanted = words[1:2] == [kind]
            blocks += [{}] if is_wanted else []
        elif is_wanted and len(words) == 3 and words[0] == "option":
            blocks[-1][words[1]] = words[2]
    return blocks
